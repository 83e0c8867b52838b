// sparsam sparsity: how few neurons of the MLPs a text needs, and at what perplexity.
#include "cli/sparsity.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/progress.h"
#include "cli/output.h"
#include "measure/finite.h"
#include "measure/plot.h"
#include "measure/sparsity_search.h"

namespace sparsam {

namespace {

// What one rule reached at each percentage.
struct RuleResult {
  std::string name;
  std::vector<SparsityPoint> points;
};

struct Report {
  ActivationProfile profile;
  double dense_perplexity = 0;
  i64 tokens = 0;                 // of the held-out text
  std::vector<RuleResult> rules;  // the first is CETT's
};

// Bytes of the weights of MLPs and parameter tokens that a token reads relative to a dense pass: what live neurons add,
// and where the gate decides also their up projection. `sparsity` is of each site.
double bytes_read(const Model& model, const std::vector<double>& sparsity, bool gate_decides) {
  double read = 0, all = 0;
  const auto sites = neuron_sites(model.config);
  for (size_t i = 0; i < sites.size(); ++i) {
    const auto& layer = model.weights.layers[static_cast<size_t>(sites[i].layer)];
    const auto bytes = [](const Matrix& m) { return static_cast<double>(m.bytes.size()); };
    const double live = 1 - sparsity[i], outputs = bytes(outputs_at(model.weights, model.config, sites[i]));
    const bool tokens = tokens_at(model.config, sites[i]);
    const double keys = tokens ? bytes(token_params_of(layer)[static_cast<size_t>(sites[i].place)]->keys) : 0;
    const double gate = tokens ? 0 : bytes(layer.mlp.gate.weight), up = tokens ? 0 : bytes(layer.mlp.up.weight);
    read += keys + gate + up * (gate_decides && gate > 0 ? live : 1) + outputs * live;
    all += keys + gate + up + outputs;
  }
  return all > 0 ? read / all : 1;
}

std::vector<double> per_site(const ActivationProfile& profile, double LayerCurve::*part) {
  std::vector<double> values;
  for (const LayerCurve& layer : profile.layers) values.push_back(layer.*part);
  return values;
}

bool any_tokens(const Config& config) {
  return std::any_of(config.layers.begin(), config.layers.end(), has_parameter_tokens);
}
// Of what bytes are reported.
const char* kind_of_bytes(const Config& config) { return any_tokens(config) ? "token_bytes" : "mlp_bytes"; }

Json curve_json(const LayerCurve& layer) {
  Json cett = Json::array(), sparsity = Json::array();
  constexpr size_t points = 64;
  const size_t step = std::max<size_t>(layer.cett.size() / points, 1);
  for (size_t k = 0; k < layer.cett.size(); k += step) {
    cett.push_back(layer.cett[k]);
    sparsity.push_back(layer.sparsity[k]);
  }
  return {{"cett", cett}, {"sparsity", sparsity}};
}

Json point_json(const SparsityPoint& point, const std::string& number) {
  return {
      {"percent", point.percent}, {"sparsity", point.sparsity}, {number, point.at}, {"perplexity", point.perplexity}};
}

Json report_json(const Report& report, const Model& model, const WindowOptions& windows) {
  Json json{{"dense_perplexity", report.dense_perplexity},
            {"exact_zeros", report.profile.exact_zeros()},
            {"gate_zeros", report.profile.gate_zeros()},
            {"ppl", Json::array()},
            {"layers", Json::array()},
            {"calibration_tokens", report.profile.tokens},
            {"tokens", report.tokens},
            {"protocol", describe(windows)},
            {fmt::format("lossless_{}", kind_of_bytes(model.config)),
             bytes_read(model, per_site(report.profile, &LayerCurve::gate_zeros), true)}};
  for (const SparsityPoint& point : report.rules.front().points) {
    Json item = point_json(point, "cett");
    item[kind_of_bytes(model.config)] = bytes_read(model, point.site_sparsity, false);
    json["ppl"].push_back(item);
  }
  for (size_t r = 1; r < report.rules.size(); ++r) {
    json[report.rules[r].name] = Json::array();
    for (const SparsityPoint& point : report.rules[r].points)
      json[report.rules[r].name].push_back(point_json(point, "number"));
  }
  for (size_t l = 0; l < report.profile.layers.size(); ++l) {
    const LayerCurve& layer = report.profile.layers[l];
    Json item{{"layer", layer.layer}, {"exact_zeros", layer.exact_zeros}, {"gate_zeros", layer.gate_zeros}};
    if (any_tokens(model.config)) item["place"] = token_kinds[static_cast<size_t>(layer.place)];
    item["ppl"] = Json::array();
    for (const SparsityPoint& point : report.rules.front().points)
      item["ppl"].push_back(
          {{"percent", point.percent}, {"sparsity", point.site_sparsity[l]}, {"threshold", point.sites[l].threshold}});
    item["curve"] = curve_json(layer);
    json["layers"].push_back(item);
  }
  return json;
}

void print_report(const Report& report, const Model& model) {
  const auto& points = report.rules.front().points;
  fmt::print("{:>5}  {:>11}  {:>10}", "layer", "exact zeros", "gate zeros");
  for (const SparsityPoint& point : points) fmt::print("  {:>9}", fmt::format("PPL-{:g} %", point.percent));
  fmt::print("\n");
  for (size_t l = 0; l < report.profile.layers.size(); ++l) {
    const LayerCurve& layer = report.profile.layers[l];
    const NeuronSite site{layer.layer, layer.place};
    fmt::print("{:>5}  {:>9.2f} %  {:>8.2f} %", any_tokens(model.config) ? name_of(site) : fmt::to_string(site.layer),
               100 * layer.exact_zeros, 100 * layer.gate_zeros);
    for (const SparsityPoint& point : points) fmt::print("  {:>7.2f} %", 100 * point.site_sparsity[l]);
    fmt::print("\n");
  }
  fmt::print("{:>5}  {:>9.2f} %  {:>8.2f} %", "mean", 100 * report.profile.exact_zeros(),
             100 * report.profile.gate_zeros());
  for (const SparsityPoint& point : points) fmt::print("  {:>7.2f} %", 100 * point.sparsity);
  fmt::print("\n\ndense perplexity {:.4f} over {} held-out tokens\n", report.dense_perplexity,
             format_count(static_cast<double>(report.tokens)));
  for (const RuleResult& rule : report.rules)
    for (const SparsityPoint& point : rule.points)
      fmt::print("PPL-{:g} % by {:<6} {:>7.2f} % of the {} left out, perplexity {:.4f}, {} {:.4f}\n", point.percent,
                 rule.name, 100 * point.sparsity, any_tokens(model.config) ? "tokens" : "neurons", point.perplexity,
                 rule.name == "cett" ? "CETT" : "number", point.at);
  fmt::print("bytes of the {} read without loss: {:.1f} %", any_tokens(model.config) ? "parameter tokens" : "MLPs",
             100 * bytes_read(model, per_site(report.profile, &LayerCurve::gate_zeros), true));
  for (const SparsityPoint& point : points)
    fmt::print("; PPL-{:g} %: {:.1f} %", point.percent, 100 * bytes_read(model, point.site_sparsity, false));
  fmt::print("\n");
}

Chart chart_of(const Report& report) {
  Chart chart{.title = "Neurons that can be left out",
              .x_label = "CETT (error of what is left out, relative)",
              .y_label = "sparsity",
              .series = {}};
  for (const LayerCurve& layer : report.profile.layers) {
    Series series{fmt::format("layer {}", name_of(NeuronSite{layer.layer, layer.place})), {}, true};
    for (size_t k = 0; k < layer.cett.size(); k += 8)
      if (layer.cett[k] <= 1) series.points.emplace_back(layer.cett[k], layer.sparsity[k]);
    chart.series.push_back(std::move(series));
  }
  Series marks{"PPL-p %", {}, false};
  for (const SparsityPoint& point : report.rules.front().points) marks.points.emplace_back(point.at, point.sparsity);
  chart.series.push_back(std::move(marks));
  return chart;
}

Report measure_sparsity(const SparsityFlags& flags, const OpenModel& open, const WindowOptions& windows,
                        const std::vector<TokenText>& calibration, const std::vector<TokenText>& held_out,
                        const Common& common) {
  const auto backend = make_backend(flags.model.backend);
  const i64 profile_context = resolve_context(flags.profile.context, open.model.config);
  const Transformer dense(open.model, *backend, open.compute, std::max(profile_context, windows.context));
  const std::vector<i32> tokens = joined(calibration);
  Report report;
  {
    Progress progress("profile", common.quiet);
    report.profile = profile_activations(dense, tokens, flags.profile, [&](double part) { progress.update(part, ""); });
  }
  Progress progress("search", common.quiet);
  double tried = 0;
  const auto loss = [&](const Transformer& model) {
    const Perplexity perplexity = held_out_perplexity(model, open.tokenizer, held_out, windows);
    report.tokens = perplexity.tokens;
    ++tried;
    // How many points there will be is not known; about ten a percentage and rule.
    const double expected = 10 * static_cast<double>(flags.percents.size()) * (flags.compare ? 3 : 1);
    progress.update(tried / (tried + expected), fmt::format("perplexity {:.4f}", perplexity.perplexity));
    return perplexity.nats_per_token.mean;
  };
  SparsitySearch search(open.model, *backend, open.compute, windows.context, loss);
  report.dense_perplexity = search.dense_perplexity();
  std::vector<TruncationRule> rules{cett_rule(report.profile)};
  if (flags.compare) rules.push_back(top_k_rule(open.model.config)), rules.push_back(fat_rule(open.model.config));
  for (const TruncationRule& rule : rules) {
    report.rules.push_back({rule.name, {}});
    for (const double percent : flags.percents) report.rules.back().points.push_back(search.at_rise(rule, percent));
  }
  return report;
}

Exit run_sparsity(const SparsityFlags& flags, const Common& common) {
  for (const double percent : flags.percents)
    if (!(percent >= 0 && percent <= 1000)) fail_usage("--ppl: {} %, expected 0 to 1000", percent);
  const InputFlags& inputs = flags.inputs;
  if (!inputs.wanted && !inputs.targets.empty()) fail_usage("--target: give --inputs, whose fraction it is");
  for (const double target : inputs.targets)
    if (!(target > 0 && target <= 90)) fail_usage("--target: {} %, expected above 0, at most 90", target);
  const BlockFlags& blocks = flags.blocks;
  if (inputs.wanted && blocks.size > 0) fail_usage("--inputs and --key-blocks: one after the other, not both");
  if (blocks.size == 0 && !blocks.reads.empty()) fail_usage("--read: give --key-blocks, whose fraction it is");
  for (const double read : blocks.reads)
    if (!(read > 0 && read <= 100)) fail_usage("--read: {} %, expected above 0, at most 100", read);
  const auto& [flag, points] = !inputs.targets.empty() ? std::pair("--target", inputs.targets)
                               : !blocks.reads.empty() ? std::pair("--read", blocks.reads)
                                                       : std::pair("--ppl", flags.percents);
  const double store = flags.store.value_or(points.front());
  const auto stored = std::find(points.begin(), points.end(), store);
  if (!flags.out.empty() && stored == points.end())
    fail_usage("--store {}: not one of {} {}", store, flag, fmt::join(points, ","));
  if (!flags.out.empty()) check_output("sparsity", flags.out, flags.model.path);
  OpenModel open = open_model(flags.model);
  check_finite(open.model, open.path);
  // Thresholds are measured on the whole model; those of inputs, and blocks of keys, join what neurons have.
  if (inputs.wanted)
    open.model.config.inputs = {};
  else if (blocks.size == 0)
    open.model.config = without_thresholds(open.model.config);
  const WindowOptions windows = windows_of(flags, open.model.config);
  const HeldOutTexts texts = load_texts(flags, open.tokenizer);
  const auto &calibration = texts.calibration, &held_out = texts.held_out;
  const size_t at = static_cast<size_t>(stored - points.begin());
  if (inputs.wanted) return run_input_sparsity(flags, open, windows, calibration, held_out, at, common);
  if (blocks.size > 0) return run_block_sparsity(flags, open, windows, held_out, at, common);
  const Report report = measure_sparsity(flags, open, windows, calibration, held_out, common);

  if (!flags.plot.empty()) write_text(flags.plot, svg(chart_of(report)));
  if (!flags.out.empty()) {
    const SparsityPoint& point = report.rules.front().points[at];
    const Json manifest{{"lever", "sparsity"},
                        {"model", open.path},
                        {"point", point_json(point, "cett")},
                        {"sparsity", report_json(report, open.model, windows)}};
    save_thinner(truncated(open.model, point.sites), open, flags, manifest);
  }
  if (common.json)
    print_json(report_json(report, open.model, windows));
  else
    print_report(report, open.model);
  return Exit::done;
}

}  // namespace

void save_thinner(Model model, const OpenModel& open, const SparsityFlags& flags, const Json& manifest) {
  const auto backend = make_backend(flags.model.backend);
  model.config.crossovers = SparseLayers(model, *backend, true).measure_input_crossovers(*backend);
  save_output(model, open.tokenizer, open.path, flags.out, manifest);
}

void add_sparsity(CLI::App& program, Command& command) {
  const auto flags = std::make_shared<SparsityFlags>();
  CLI::App* verb = add_verb(program, command, "sparsity", "how few neurons of the MLPs a text needs");
  add_model_flags(verb, flags->model);
  verb->add_option("--calibrate", flags->calibrate, "text that thresholds are fitted to; several may be given")
      ->required()
      ->allow_extra_args(false);
  verb->add_option("--data", flags->data, "held-out text whose perplexity judges them; another one")
      ->required()
      ->allow_extra_args(false);
  verb->add_option("--ppl", flags->percents, "percentages by which the perplexity may rise")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->capture_default_str();
  verb->add_flag("--compare", flags->compare, "the same by top-k and by one threshold of the gate (FAT)");
  verb->add_option("--tokens", flags->profile.tokens, "most tokens to calibrate on, 0: all")
      ->check(in_range(0, i64{1} << 40))
      ->capture_default_str();
  add_held_out_flags(verb, *flags);
  verb->add_option("--plot", flags->plot, "write the curves of all layers as SVG");
  verb->add_option("--out", flags->out, "write the model with thresholds; eval, generate and bench then apply them");
  verb->add_option("--store", flags->store,
                   "percentage of --ppl, --target or --read whose model is written (default: the first)");
  verb->add_flag("--inputs", flags->inputs.wanted,
                 "leave small inputs of all projections out instead (TEAL), to what --target or else --ppl says");
  verb->add_option("--target", flags->inputs.targets, "percentages of the blocks' bytes that decoding shall not read")
      ->delimiter(',')
      ->allow_extra_args(false);
  verb->add_option("--allocation", flags->inputs.allocation,
                   "how a block's inputs share them: uniform, or greedy by what it costs the block's output")
      ->capture_default_str();
  verb->add_option("--dense-positions", flags->inputs.dense_positions, "first positions that leave no input out")
      ->check(in_range(0, i64{1} << 24))
      ->capture_default_str();
  verb->add_option("--greedy-tokens", flags->inputs.greedy_tokens, "calibration tokens that greedy compares outputs on")
      ->check(in_range(1, i64{1} << 20))
      ->capture_default_str();
  verb->add_option("--key-blocks", flags->blocks.size,
                   "sort parameter tokens into blocks of so many instead, of which decoding reads what --read or else "
                   "--ppl says, keys and values")
      ->check(in_range(1, i64{1} << 20));
  verb->add_option("--read", flags->blocks.reads, "percentages of the blocks that decoding shall read")
      ->delimiter(',')
      ->allow_extra_args(false);
  add_example(
      verb,
      "sparsam sparsity model --calibrate train.txt --data held-out.txt --ppl 1,5,10\n"
      "  sparsam sparsity model --calibrate train.txt --data held-out.txt --inputs --target 25,40,50 --out thin");
  on_chosen(verb, command, [flags, &command] { return run_sparsity(*flags, command.common); });
}

}  // namespace sparsam
