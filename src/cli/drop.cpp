// sparsam drop: writes a model without the sublayers that do least.
#include "levers/drop.h"

#include <algorithm>

#include "cli/output.h"
#include "cli/scoring.h"

namespace sparsam {

namespace {

struct DropFlags {
  ModelFlags model;
  DropCounts counts;
  std::string list, scores_file, out;
  ScoringFlags scoring;
};

void check_flags(const DropFlags& flags) {
  const DropCounts& c = flags.counts;
  const bool counted = c.attention > 0 || c.mlp > 0 || c.block > 0 || c.joint > 0;
  if (counted == !flags.list.empty())
    fail_usage("drop: {}", counted ? "--list says exactly what to drop: give it without --attention, --mlp, --block, "
                                     "--joint"
                                   : "nothing to drop: give --attention N, --mlp N, --block N, --joint N or --list");
  if (!flags.list.empty() && (!flags.scores_file.empty() || !flags.scoring.data.empty()))
    fail_usage("drop: --list needs no scores: give it without --data and --scores");
  if (!flags.scores_file.empty() && !flags.scoring.data.empty())
    fail_usage("drop: scores come from --scores or from --data, not from both");
  check_output("drop", flags.out, flags.model.path);
}

// What was dropped, with its score where there are scores.
Json dropped_json(const Drops& drops, const std::vector<SublayerScore>& scores) {
  Json dropped = Json::array();
  const auto add = [&](Sublayer kind, const std::vector<i64>& layers) {
    for (const i64 layer : layers) {
      Json item{{"layer", layer}, {"kind", name_of(kind)}};
      for (const SublayerScore& s : scores)
        if (s.layer == layer && s.kind == kind) item["score"] = s.score;
      dropped.push_back(item);
    }
  };
  add(Sublayer::attention, drops.attention);
  add(Sublayer::mlp, drops.mlp);
  return dropped;
}

void print_report(const Json& dropped, const Model& before, const Model& after, const std::string& out) {
  fmt::print("dropped:");
  for (const Json& item : dropped) {
    fmt::print(" {}:{}", item["kind"].get<std::string>(), item["layer"].get<i64>());
    if (item.contains("score")) fmt::print(" ({:.5f})", item["score"].get<double>());
  }
  fmt::print("\n");
  print_costs(before, after);
  fmt::print("written to {}\n", out);
}

Exit run_drop(const DropFlags& flags, const Common& common) {
  check_flags(flags);
  const OpenModel open = open_model(flags.model);
  const Config& config = open.model.config;
  std::vector<SublayerScore> scores;
  Drops drops;
  if (!flags.list.empty()) {
    drops = parse_drops(flags.list, config);
  } else {
    check_counts(config, flags.counts);  // before the work of scoring
    if (!flags.scores_file.empty()) {
      scores = scores_from_json(parse_json(read_text(flags.scores_file), flags.scores_file), flags.scores_file);
    } else {
      check_finite(open.model, open.path);
      scores = score_model(open, flags.model.backend, flags.scoring, common).scores;
    }
    drops = select_drops(config, scores, flags.counts);
  }
  const Model thinner = drop(open.model, drops);
  const Json dropped = dropped_json(drops, scores);

  Json manifest{{"lever", "drop"}, {"model", open.path}, {"dropped", dropped}};
  if (!scores.empty()) manifest["sublayers"] = scores_json({scores, 0, 0, 0})["sublayers"];
  manifest["before"] = costs_json(open.model);
  manifest["after"] = costs_json(thinner);
  save_output(thinner, open.tokenizer, open.path, flags.out, manifest);

  if (common.json) {
    Json json{{"out", flags.out}};
    json.update(manifest);
    print_json(json);
  } else {
    print_report(dropped, open.model, thinner, flags.out);
  }
  return Exit::done;
}

}  // namespace

void add_drop(CLI::App& program, Command& command) {
  const auto flags = std::make_shared<DropFlags>();
  CLI::App* verb = add_verb(program, command, "drop", "write a model without the sublayers that do least");
  add_model_flags(verb, flags->model);
  const auto count = [&](const char* name, i64& value, const char* what) {
    verb->add_option(name, value, what)->check(in_range(0, i64{1} << 20));
  };
  count("--attention", flags->counts.attention, "how many attention sublayers, the most redundant first");
  count("--mlp", flags->counts.mlp, "how many MLP sublayers");
  count("--block", flags->counts.block, "how many blocks");
  count("--joint", flags->counts.joint, "how many of attention and MLP sublayers together");
  verb->add_option("--list", flags->list, "exactly these: attn:3,mlp:5,block:2");
  verb->add_option("--out", flags->out, "directory to write, or a file ending in .gguf")->required();
  verb->add_option("--data", flags->scoring.data, "text to score on (default: the embedded corpus)")
      ->allow_extra_args(false);
  verb->add_option("--scores", flags->scores_file, "scores from sparsam score --json");
  add_scoring_flags(verb, flags->scoring);
  add_example(verb, "sparsam drop model --attention 3 --data sample.txt --out thinner");
  on_chosen(verb, command, [flags, &command] { return run_drop(*flags, command.common); });
}

}  // namespace sparsam
