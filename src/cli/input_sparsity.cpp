// sparsam sparsity --inputs: which small inputs of the projections can be left out, and at what perplexity.
#include "measure/input_sparsity.h"

#include "base/progress.h"
#include "cli/output.h"
#include "cli/sparsity.h"

namespace sparsam {

namespace {

constexpr std::array<const char*, block_inputs> input_names{"qkv", "o", "up", "down"};

struct InputReport {
  double dense_perplexity = 0;
  i64 calibration_tokens = 0, tokens = 0;
  bool by_target = false;
  std::vector<InputPoint> points;
};

// How much faster decoding could be by the bytes that it reads.
double bound(const Model& model, const InputPoint& point) {
  double blocks = 0;
  for (const auto& layer : model.weights.layers)
    for (const double bytes : input_bytes(layer)) blocks += bytes;
  const double all = static_cast<double>(decode_bytes(model));
  return all / (all - point.left_out * blocks);
}

Json point_json(const InputPoint& point, const Model& model, bool by_target) {
  Json layers = Json::array();
  for (size_t l = 0; l < point.layers.size(); ++l) {
    Json layer{{"layer", l}};
    for (size_t i = 0; i < block_inputs; ++i) layer[input_names[i]] = point.layers[l][i];
    layers.push_back(layer);
  }
  return {{by_target ? "target_percent" : "percent", point.asked},
          {"target", point.target},
          {"left_out", point.left_out},
          {"perplexity", point.perplexity},
          {"speedup_bound", bound(model, point)},
          {"layers", layers}};
}

Json report_json(const InputReport& report, const SparsityFlags& flags, const Model& model,
                 const WindowOptions& windows) {
  Json json{{"dense_perplexity", report.dense_perplexity},
            {"allocation", flags.inputs.allocation},
            {"dense_positions", flags.inputs.dense_positions},
            {"calibration_tokens", report.calibration_tokens},
            {"tokens", report.tokens},
            {"protocol", describe(windows)},
            {"inputs", Json::array()}};
  for (const InputPoint& point : report.points) json["inputs"].push_back(point_json(point, model, report.by_target));
  return json;
}

void print_report(const InputReport& report, const SparsityFlags& flags, const Model& model) {
  fmt::print("{:>9}  {:>9}  {:>10}  {:>8}  {:>8}", report.by_target ? "target" : "budget", "left out", "perplexity",
             "rise", "bound");
  for (const char* name : input_names) fmt::print("  {:>7}", name);
  fmt::print("\n");
  for (const InputPoint& point : report.points) {
    fmt::print("{:>7g} %  {:>7.2f} %  {:>10.4f}  {:>6.2f} %  {:>7.2f}x", point.asked, 100 * point.left_out,
               point.perplexity, 100 * (point.perplexity / report.dense_perplexity - 1), bound(model, point));
    for (size_t i = 0; i < block_inputs; ++i) {
      double sum = 0;
      for (const InputFractions& layer : point.layers) sum += layer[i];
      fmt::print("  {:>5.1f} %", 100 * sum / static_cast<double>(point.layers.size()));
    }
    fmt::print("\n");
  }
  fmt::print(
      "dense perplexity {:.4f} over {} held-out tokens; {} allocation; left out: bytes of the blocks' weights that "
      "decoding does not read, and the mean fraction of each input; bound: of the decoding speed by those bytes\n",
      report.dense_perplexity, format_count(static_cast<double>(report.tokens)), flags.inputs.allocation);
}

InputAllocation allocation_of(const InputFlags& flags, const Transformer& dense, const InputProfile& profile,
                              const std::vector<i32>& tokens, bool quiet) {
  if (flags.allocation == "uniform") return InputAllocation(profile.layers.size());
  Progress progress("greedy", quiet);
  const size_t count =
      std::min({tokens.size(), static_cast<size_t>(flags.greedy_tokens), static_cast<size_t>(dense.positions())});
  return InputAllocation(dense, profile, std::span(tokens).first(count), {},
                         [&](double part) { progress.update(part, ""); });
}

}  // namespace

Exit run_input_sparsity(const SparsityFlags& flags, const OpenModel& open, const WindowOptions& windows,
                        const std::vector<TokenText>& calibration, const std::vector<TokenText>& held_out,
                        size_t stored, const Common& common) {
  const std::vector<std::string> allocations{"uniform", "greedy"};
  if (std::find(allocations.begin(), allocations.end(), flags.inputs.allocation) == allocations.end())
    fail_unknown("allocation", flags.inputs.allocation, allocations, "--allocation", Exit::usage);
  if (flags.compare || !flags.plot.empty()) fail_usage("--inputs has no --compare and no --plot");
  const auto backend = make_backend(flags.model.backend);
  const i64 context = resolve_context(flags.profile.context, open.model.config);
  const Transformer dense(open.model, *backend, open.compute, std::max(context, windows.context));
  const std::vector<i32> tokens = joined(calibration);
  const auto profile = [&] {
    Progress progress("profile", common.quiet);
    return profile_inputs(
        dense, tokens,
        {.context = context, .tokens = flags.profile.tokens, .dense_positions = flags.inputs.dense_positions},
        [&](double part) { progress.update(part, ""); });
  }();
  const InputAllocation allocation = allocation_of(flags.inputs, dense, profile, tokens, common.quiet);

  InputReport report{.calibration_tokens = profile.tokens, .by_target = !flags.inputs.targets.empty(), .points = {}};
  Progress progress("search", common.quiet);
  double tried = 0;
  const std::vector<double>& asked = report.by_target ? flags.inputs.targets : flags.percents;
  const double expected = 1 + static_cast<double>(asked.size()) * (report.by_target ? 1 : 9);
  const InputSearch search(open.model, *backend, open.compute, windows.context, [&](const Transformer& model) {
    const Perplexity perplexity = held_out_perplexity(model, open.tokenizer, held_out, windows);
    report.tokens = perplexity.tokens;
    progress.update(++tried / expected, fmt::format("perplexity {:.4f}", perplexity.perplexity));
    return perplexity.nats_per_token.mean;
  });
  report.dense_perplexity = search.dense_perplexity();
  const auto rule = [&](double target) { return input_thresholds(profile, allocation, target); };
  for (const double percent : asked) {
    if (!report.by_target) {
      report.points.push_back(search.at_rise(rule, percent));
      continue;
    }
    InputPoint& point = report.points.emplace_back(search.measure(rule(percent / 100)));
    point.asked = percent, point.target = percent / 100;
  }

  const Json json = report_json(report, flags, open.model, windows);
  if (!flags.out.empty()) {
    Model model = open.model;
    model.config.inputs = report.points[stored].inputs;
    const Json manifest{{"lever", "sparsity"},
                        {"model", open.path},
                        {"point", point_json(report.points[stored], open.model, report.by_target)},
                        {"sparsity", json}};
    save_thinner(std::move(model), open, flags, manifest);
  }
  if (common.json)
    print_json(json);
  else
    print_report(report, flags, open.model);
  return Exit::done;
}

}  // namespace sparsam
