// sparsam shrink: writes a model without the parameter tokens and neurons that add least.
#include "levers/shrink.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <optional>

#include "base/progress.h"
#include "cli/held_out.h"
#include "cli/output.h"
#include "measure/finite.h"
#include "measure/speed.h"

namespace sparsam {

namespace {

struct ShrinkFlags : HeldOutFlags {
  ModelFlags model;
  std::vector<std::string> keep;
  std::vector<double> percents;
  std::string tokens, score = "peak", allocation = "uniform", out;
  std::optional<std::string> store;
  i64 decode = 32;
  ContributionOptions scoring;
};

// One line of the frontier.
struct Point {
  std::string asked;    // "75%", "ppl 1", "attention:48,mlp:192"; "all" for the model as it is
  double fraction = 1;  // asked for
  bool reached = true;  // a bound of the perplexity left something to remove
  std::vector<i64> counts;
  Model model;
  double perplexity = 0;
  Repeated tokens_per_second;
  double speedup = 1;
};

double fraction_of(const std::string& text) {
  char* end = nullptr;
  const double percent = std::strtod(text.c_str(), &end);
  const std::string_view rest(end);
  if (end == text.c_str() || (rest != "%" && !rest.empty()))
    fail_usage("--keep: '{}' is not understood, expected a percentage: 75%", text);
  if (!(percent > 0 && percent <= 100)) fail_usage("--keep: {}, expected above 0 %, at most 100 %", text);
  return percent / 100;
}

void check_flags(const ShrinkFlags& flags) {
  if (!flags.keep.empty() + !flags.percents.empty() + !flags.tokens.empty() != 1)
    fail_usage("shrink: how far? give one of --keep 75%, --tokens attention:48,mlp:192 and --ppl 1");
  const std::vector<std::string> allocations{"uniform", "global"};
  if (std::find(allocations.begin(), allocations.end(), flags.allocation) == allocations.end())
    fail_unknown("allocation", flags.allocation, allocations, "--allocation", Exit::usage);
  const std::vector<std::string> scores{"peak", "mean-square"};
  if (std::find(scores.begin(), scores.end(), flags.score) == scores.end())
    fail_unknown("score", flags.score, scores, "--score", Exit::usage);
  if (!flags.tokens.empty() && flags.allocation != "uniform")
    fail_usage("shrink: --tokens says how many stay where: give it without --allocation");
  for (const double percent : flags.percents)
    if (!(percent >= 0 && percent <= 1000)) fail_usage("--ppl: {} %, expected 0 to 1000", percent);
  for (const std::string& keep : flags.keep) fraction_of(keep);
  if (flags.store && flags.out.empty()) fail_usage("shrink: --store says what is written: give --out");
  if (!flags.out.empty()) check_output("shrink", flags.out, flags.model.path);
}

i64 total(const std::vector<i64>& counts) {
  i64 sum = 0;
  for (const i64 count : counts) sum += count;
  return sum;
}

double mflops(const Model& model) {
  return flops_per_token(model.config, static_cast<double>(model.config.context) / 2) / 1e6;
}

// Makes models and measures their perplexity; each number of tokens and neurons once.
class Frontier {
 public:
  Frontier(const ShrinkFlags& flags, const OpenModel& open, const WindowOptions& windows,
           const std::vector<TokenText>& held_out, Backend& backend, std::vector<Contributions> contributions,
           Progress& progress)
      : flags_(flags),
        open_(open),
        windows_(windows),
        held_out_(held_out),
        backend_(backend),
        contributions_(std::move(contributions)),
        progress_(progress),
        all_(measure("all", 1, counts_for(open.model.config, 1.0))) {}

  const Point& all() const { return all_; }
  const std::vector<Contributions>& contributions() const { return contributions_; }
  i64 held_out_tokens() const { return tokens_; }

  Point at_tokens(const std::string& list) {
    const auto counts = counts_for(open_.model.config, parse_token_targets(list, "--tokens"));
    return measure(list, static_cast<double>(total(counts)) / static_cast<double>(total(all_.counts)), counts);
  }
  Point at_fraction(const std::string& asked, double fraction) { return measure(asked, fraction, counts_at(fraction)); }
  // The smallest model found whose perplexity is at most `percent` above the whole model's, by bisection of the
  // fraction that stays. Perplexity need not fall everywhere with it: a bracket is kept, not an order.
  Point at_rise(double percent) {
    const double limit = all_.perplexity * (1 + percent / 100);
    Point best = all_;
    best.asked = fmt::format("ppl {:g}", percent), best.reached = false;
    double low = 0, high = 1;
    constexpr double resolution = 1.0 / 128;
    while (high - low > resolution) {
      const double middle = (low + high) / 2;
      Point point = at_fraction(best.asked, middle);
      if (point.perplexity > limit) {
        low = middle;
        continue;
      }
      high = middle;
      if (total(point.counts) < total(best.counts)) best = std::move(point);
    }
    return best;
  }

 private:
  std::vector<i64> counts_at(double fraction) const {
    const Config& config = open_.model.config;
    return flags_.allocation == "global" ? counts_for(config, contributions_, fraction) : counts_for(config, fraction);
  }
  Point measure(const std::string& asked, double fraction, const std::vector<i64>& counts) {
    Point point{.asked = asked, .fraction = fraction, .counts = counts, .model = {}, .tokens_per_second = {}};
    point.model = shrink(open_.model, contributions_, counts);
    auto [known, fresh] = perplexities_.try_emplace(counts, 0.0);
    if (fresh) {
      const Transformer transformer(point.model, backend_, open_.compute, windows_.context);
      const Perplexity found = held_out_perplexity(transformer, open_.tokenizer, held_out_, windows_);
      known->second = found.perplexity, tokens_ = found.tokens;
      const double tried = static_cast<double>(perplexities_.size());
      progress_.update(tried / (tried + 1 + static_cast<double>(flags_.keep.size() + 7 * flags_.percents.size())),
                       fmt::format("{:.0f} %: perplexity {:.4f}", 100 * fraction, found.perplexity));
    }
    point.perplexity = known->second;
    return point;
  }

  const ShrinkFlags& flags_;
  const OpenModel& open_;
  const WindowOptions& windows_;
  const std::vector<TokenText>& held_out_;
  Backend& backend_;
  std::vector<Contributions> contributions_;
  Progress& progress_;
  std::map<std::vector<i64>, double> perplexities_;
  i64 tokens_ = 0;
  Point all_;
};

// Decoding of the same text by all of them in turns.
void measure_speeds(std::vector<Point>& points, const std::vector<i32>& tokens, Compute compute, Backend& backend) {
  const SessionOptions options{.compute = compute, .first_capacity = static_cast<i64>(tokens.size())};
  std::vector<std::unique_ptr<Session>> sessions;
  std::vector<Session*> all;
  for (const Point& point : points)
    all.push_back(sessions.emplace_back(std::make_unique<Session>(point.model, backend, options)).get());
  constexpr i64 repetitions = 3;
  const DecodeTurns turns = decode_in_turns(all, tokens, repetitions);
  for (size_t i = 0; i < points.size(); ++i)
    points[i].tokens_per_second = turns.tokens_per_second[i], points[i].speedup = turns.speedup[i];
}

Json point_json(const Point& point, const Point& all) {
  Json json{{"asked", point.asked},
            {"fraction", static_cast<double>(total(point.counts)) / static_cast<double>(total(all.counts))},
            {"kept", total(point.counts)},
            {"parameters", parameter_count(point.model.config)},
            {"weight_bytes", weight_bytes(point.model)},
            {"mflops_per_token", mflops(point.model)},
            {"perplexity", point.perplexity},
            {"rise", point.perplexity / all.perplexity - 1}};
  if (point.tokens_per_second.median > 0)
    json["tokens_per_second"] = point.tokens_per_second.median, json["speedup"] = point.speedup;
  if (!point.reached) json["reached"] = false;
  return json;
}

// What became of each site: how many stay, tau, and the relative square error that the removed ones make alone.
Json sites_json(const Point& point, const Model& before, const std::vector<Contributions>& contributions) {
  Json sites = Json::array();
  for (size_t i = 0; i < contributions.size(); ++i) {
    const NeuronSite site = contributions[i].site;
    std::vector<double> scores = contributions[i].scores;
    std::sort(scores.begin(), scores.end());
    double removed = 0;
    for (size_t p = 0; p + static_cast<size_t>(point.counts[i]) < scores.size(); ++p) removed += scores[p];
    Json json{{"site", name_of(site)},
              {"from", neurons_at(before.config, site)},
              {"to", point.counts[i]},
              {"removed_score", removed}};
    if (const ParameterTokens* tokens = tokens_at(before.config, site))
      json["tau_from"] = tokens->tau, json["tau_to"] = tokens_at(point.model.config, site)->tau;
    sites.push_back(json);
  }
  return sites;
}

Json report_json(const std::vector<Point>& points, const Frontier& frontier, const ShrinkFlags& flags, i64 calibration,
                 const WindowOptions& windows) {
  Json json{{"frontier", Json::array()},
            {"allocation", flags.tokens.empty() ? flags.allocation : "given"},
            {"score", flags.score},
            {"calibration_tokens", calibration},
            {"tokens", frontier.held_out_tokens()},
            {"protocol", describe(windows)}};
  for (const Point& point : points) json["frontier"].push_back(point_json(point, points.front()));
  return json;
}

void print_report(const std::vector<Point>& points, const Frontier& frontier, const ShrinkFlags& flags) {
  const Point& all = points.front();
  size_t width = 5;
  for (const Point& point : points) width = std::max(width, point.asked.size());
  fmt::print("{:<{}}  {:>6}  {:>12}  {:>10}  {:>9}  {:>10}  {:>8}", "asked", width, "kept", "parameters", "bytes",
             "MFLOP", "perplexity", "rise");
  const bool timed = all.tokens_per_second.median > 0;
  fmt::print("{}\n", timed ? fmt::format("  {:>9}  {:>8}", "tokens/s", "speed-up") : "");
  for (const Point& point : points) {
    fmt::print("{:<{}}  {:>5.1f}%  {:>12}  {:>10}  {:>9.3f}  {:>10.4f}  {:>6.2f} %", point.asked, width,
               100 * static_cast<double>(total(point.counts)) / static_cast<double>(total(all.counts)),
               format_count(static_cast<double>(parameter_count(point.model.config))),
               format_bytes(static_cast<double>(weight_bytes(point.model))), mflops(point.model), point.perplexity,
               100 * (point.perplexity / all.perplexity - 1));
    if (timed) fmt::print("  {:>9.1f}  {:>7.3f}x", point.tokens_per_second.median, point.speedup);
    fmt::print("{}\n", point.reached ? "" : "  not reached: nothing can be removed");
  }
  fmt::print("perplexity of {} unseen tokens; {} allocation; MFLOP of a token in the middle of the context\n",
             format_count(static_cast<double>(frontier.held_out_tokens())),
             flags.tokens.empty() ? flags.allocation : "given");
}

// Which point is written: the first, or the one that --store names as --keep or --ppl did.
size_t stored_point(const ShrinkFlags& flags) {
  if (!flags.store) return 1;
  std::vector<std::string> asked = flags.keep;
  for (const double percent : flags.percents) asked.push_back(fmt::format("{:g}", percent));
  const auto found = std::find(asked.begin(), asked.end(), *flags.store);
  if (found == asked.end())
    fail_usage("--store {}: not one of {}", *flags.store,
               asked.empty() ? flags.tokens : fmt::format("{}", fmt::join(asked, ",")));
  return 1 + static_cast<size_t>(found - asked.begin());
}

Exit run_shrink(const ShrinkFlags& flags, const Common& common) {
  check_flags(flags);
  const size_t stored = stored_point(flags);
  const OpenModel open = open_model(flags.model);
  if (!flags.tokens.empty()) counts_for(open.model.config, parse_token_targets(flags.tokens, "--tokens"));
  check_finite(open.model, open.path);
  const WindowOptions windows = windows_of(flags, open.model.config);
  const HeldOutTexts texts = load_texts(flags, open.tokenizer);
  const auto &calibration = texts.calibration, &held_out = texts.held_out;

  const auto backend = make_backend(flags.model.backend);
  const std::vector<i32> tokens = joined(calibration);
  auto contributions = [&] {
    Progress progress("score", common.quiet);
    const Transformer whole(open.model, *backend, open.compute,
                            resolve_context(flags.scoring.context, open.model.config));
    ContributionOptions options = flags.scoring;
    options.score = flags.score == "peak" ? Score::peak : Score::mean_square;
    return measure_contributions(whole, tokens, options, [&](double part) { progress.update(part, ""); });
  }();
  std::vector<Point> points;
  Progress progress("shrink", common.quiet);
  Frontier frontier(flags, open, windows, held_out, *backend, std::move(contributions), progress);
  points.push_back(frontier.all());
  if (!flags.tokens.empty()) points.push_back(frontier.at_tokens(flags.tokens));
  for (const std::string& keep : flags.keep) points.push_back(frontier.at_fraction(keep, fraction_of(keep)));
  for (const double percent : flags.percents) points.push_back(frontier.at_rise(percent));
  if (flags.decode > 0) {
    std::vector<i32> text = joined(held_out);
    text.resize(std::min(text.size(), static_cast<size_t>(std::min(flags.decode, open.model.config.context))));
    measure_speeds(points, text, open.compute, *backend);
  }

  const i64 scored = flags.scoring.tokens > 0 ? std::min(flags.scoring.tokens, static_cast<i64>(tokens.size()))
                                              : static_cast<i64>(tokens.size());
  Json json = report_json(points, frontier, flags, scored, windows);
  const Point& point = points[stored];
  json["sites"] = sites_json(point, open.model, frontier.contributions());
  const bool written = !flags.out.empty() && point.reached;
  if (written) {
    Json manifest{{"lever", "shrink"},
                  {"model", open.path},
                  {"point", point_json(point, points.front())},
                  {"before", costs_json(open.model)},
                  {"after", costs_json(point.model)}};
    manifest.update(json);
    save_output(point.model, open.tokenizer, open.path, flags.out, manifest);
    json["out"] = flags.out;
  }
  if (common.json) {
    print_json(json);
  } else {
    print_report(points, frontier, flags);
    if (written) fmt::print("{} written to {}\n", point.asked, flags.out);
  }
  const bool reached = std::all_of(points.begin(), points.end(), [](const Point& p) { return p.reached; });
  return reached ? Exit::done : Exit::bound_not_reached;
}

}  // namespace

void add_shrink(CLI::App& program, Command& command) {
  const auto flags = std::make_shared<ShrinkFlags>();
  CLI::App* verb = add_verb(program, command, "shrink", "write a model without the tokens and neurons that add least");
  add_model_flags(verb, flags->model);
  const auto texts = [&](const char* name, std::vector<std::string>& values, const char* what) {
    verb->add_option(name, values, what)->required()->allow_extra_args(false);
  };
  texts("--calibrate", flags->calibrate, "text that tokens and neurons are scored on; several may be given");
  texts("--data", flags->data, "unseen text whose perplexity judges; another one");
  verb->add_option("--keep", flags->keep, "percentages of the tokens and neurons that stay: 90%,75%")
      ->delimiter(',')
      ->allow_extra_args(false);
  verb->add_option("--tokens", flags->tokens,
                   "how many stay, by kind: attention:48,mlp:192 (also q, k, v, o; mlp: of an MLP its neurons)");
  verb->add_option("--ppl", flags->percents, "as few as raise the perplexity by at most so many percent")
      ->delimiter(',')
      ->allow_extra_args(false);
  verb->add_option("--score", flags->score, "by the peak of what each adds over the text, or by its mean-square")
      ->capture_default_str();
  verb->add_option("--allocation", flags->allocation,
                   "uniform: the same of every layer; global: the least of the whole model, so that layers differ")
      ->capture_default_str();
  verb->add_option("--calibration-tokens", flags->scoring.tokens, "most tokens to score on, 0: all")
      ->check(in_range(0, i64{1} << 40))
      ->capture_default_str();
  add_held_out_flags(verb, *flags);
  verb->add_option("--decode", flags->decode, "tokens of --data to decode for the speed, in turns; 0: none")
      ->check(in_range(0, i64{1} << 20))
      ->capture_default_str();
  verb->add_option("--out", flags->out, "directory to write, or a file ending in .gguf");
  verb->add_option("--store", flags->store, "which of --keep or --ppl is written (default: the first)");
  add_example(verb,
              "sparsam shrink model --calibrate train.txt --data held-out.txt --keep 75%,50% --out smaller\n"
              "  sparsam shrink model --calibrate train.txt --data held-out.txt --ppl 1 --out smaller");
  on_chosen(verb, command, [flags, &command] { return run_shrink(*flags, command.common); });
}

}  // namespace sparsam
