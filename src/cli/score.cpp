// sparsam score: how redundant each attention sublayer, MLP sublayer and block is.
#include <algorithm>
#include <cmath>

#include "base/progress.h"
#include "cli/scoring.h"

namespace sparsam {

void add_scoring_flags(CLI::App* verb, ScoringFlags& flags) {
  verb->add_option("--context", flags.options.context, "tokens of a window (default: the model's, at most 2048)")
      ->check(in_range(1, i64{1} << 24));
  verb->add_option("--tokens", flags.options.tokens, "most tokens to look at, 0: all")
      ->check(in_range(0, i64{1} << 40))
      ->capture_default_str();
}

Redundancy score_model(const OpenModel& open, const std::string& backend_name, const ScoringFlags& flags,
                       const Common& common) {
  std::vector<i32> tokens;
  if (flags.data.empty()) {
    if (!common.quiet) fmt::print(stderr, "no --data: scoring on the embedded corpus\n");
    tokens =
        embedded_text(flags.options.tokens ? flags.options.tokens : i64{1} << 16, common.seed, open.tokenizer).tokens;
  }
  for (const std::string& path : flags.data) {
    const TokenText text = load_text(path, open.tokenizer);
    tokens.insert(tokens.end(), text.tokens.begin(), text.tokens.end());
  }
  const auto backend = make_backend(backend_name);
  const Transformer model(open.model, *backend, open.compute,
                          resolve_context(flags.options.context, open.model.config));
  Progress progress("score", common.quiet);
  return measure_redundancy(model, tokens, flags.options, [&](double part) { progress.update(part, ""); });
}

Json scores_json(const Redundancy& redundancy) {
  Json sublayers = Json::array();
  for (const SublayerScore& s : redundancy.scores)
    sublayers.push_back({{"layer", s.layer}, {"kind", name_of(s.kind)}, {"score", s.score}});
  return {{"sublayers", sublayers}, {"tokens", redundancy.tokens}, {"context", redundancy.context}};
}

std::vector<SublayerScore> scores_from_json(const Json& json, const std::string& where) {
  Fields fields(json, where);
  std::vector<SublayerScore> scores;
  for (const Json& item : fields.required<std::vector<Json>>("sublayers")) {
    Fields f(item, fmt::format("{}: sublayers[{}]", where, scores.size()));
    scores.push_back({f.required<i64>("layer", {.least = 0, .most = i64{1} << 20}),
                      sublayer_from_name(f.required<std::string>("kind"), f.where()), f.required<double>("score")});
    f.finish();
  }
  return scores;
}

namespace {

// A bar of `cells` characters for a part of the whole, in eighths of a character.
std::string bar(double part, int cells) {
  const char* eighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  const int filled = static_cast<int>(std::lround(std::clamp(part, 0.0, 1.0) * cells * 8));
  std::string text;
  for (int i = 0; i < filled / 8; ++i) text += "█";
  text += eighths[filled % 8];
  const int used = filled / 8 + (filled % 8 != 0);
  return text.append(static_cast<size_t>(cells - used), ' ');
}

void print_scores(const Redundancy& redundancy) {
  constexpr int cells = 20;
  double greatest = 1e-30;
  i64 layers = 0;
  for (const SublayerScore& s : redundancy.scores)
    greatest = std::max(greatest, s.score), layers = std::max(layers, s.layer + 1);
  fmt::print("1 - cos(before, after), mean over {} tokens: the lower, the more redundant\n",
             format_count(static_cast<double>(redundancy.tokens)));
  fmt::print("{:>5}  {:<{}}  {:<{}}  {:<{}}\n", "layer", "attention", cells + 8, "mlp", cells + 8, "block", cells + 8);
  for (i64 layer = 0; layer < layers; ++layer) {
    std::string line = fmt::format("{:>5}", layer);
    for (const Sublayer kind : {Sublayer::attention, Sublayer::mlp, Sublayer::block}) {
      const auto found = std::find_if(redundancy.scores.begin(), redundancy.scores.end(),
                                      [&](const SublayerScore& s) { return s.layer == layer && s.kind == kind; });
      if (found == redundancy.scores.end())
        line += fmt::format("  {:<{}}", "dropped", cells + 8);
      else
        line += fmt::format("  {:.5f} {}", found->score, bar(found->score / greatest, cells));
    }
    line.erase(line.find_last_not_of(' ') + 1);
    fmt::print("{}\n", line);
  }
}

}  // namespace

void add_score(CLI::App& program, Command& command) {
  struct ScoreFlags {
    ModelFlags model;
    ScoringFlags scoring;
  };
  const auto flags = std::make_shared<ScoreFlags>();
  CLI::App* verb = add_verb(program, command, "score", "how redundant each attention and MLP sublayer is");
  add_model_flags(verb, flags->model);
  verb->add_option("--data", flags->scoring.data, "text; several may be given, - is standard input")
      ->required()
      ->allow_extra_args(false);
  add_scoring_flags(verb, flags->scoring);
  add_example(verb, "sparsam score model --data sample.txt");
  on_chosen(verb, command, [flags, &command] {
    const OpenModel open = open_model(flags->model);
    check_finite(open.model, open.path);
    const Redundancy redundancy = score_model(open, flags->model.backend, flags->scoring, command.common);
    if (command.common.json)
      print_json(scores_json(redundancy));
    else
      print_scores(redundancy);
    return Exit::done;
  });
}

}  // namespace sparsam
