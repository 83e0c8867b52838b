// sparsam linearize: writes a model some of whose softmax attention is replaced by attention at constant cost.
#include "levers/linearize.h"

#include "base/progress.h"
#include "cli/output.h"
#include "cli/scoring.h"

namespace sparsam {

namespace {

struct LinearizeFlags {
  ModelFlags model;
  std::string layers, out;
  LinearAttention attention;
  FitOptions fit;
  ScoringFlags scoring;
};

std::vector<i32> tokens_of(const LinearizeFlags& flags, const OpenModel& open, const Common& common) {
  std::vector<i32> tokens;
  if (flags.scoring.data.empty()) {
    if (!common.quiet) fmt::print(stderr, "no --data: fitting on the embedded corpus\n");
    tokens = embedded_text(std::max<i64>(flags.fit.tokens, i64{1} << 16), common.seed, open.tokenizer).tokens;
  }
  for (const std::string& path : flags.scoring.data) {
    const TokenText text = load_text(path, open.tokenizer);
    tokens.insert(tokens.end(), text.tokens.begin(), text.tokens.end());
  }
  return tokens;
}

Json manifest_of(const LinearizeFlags& flags, const OpenModel& open, const Linearized& linearized,
                 const std::vector<LayerFit>& fits, const std::vector<SublayerScore>& scores) {
  const auto& mixer = std::get<LogSumExpAttention>(
      linearized.model.config.layers[static_cast<size_t>(linearized.layers.front())].mixer);
  Json replaced = Json::array();
  for (const LayerFit& f : fits) {
    Json item{{"layer", f.layer}, {"error_before", f.before}, {"error_after", f.after}};
    for (const SublayerScore& s : scores)
      if (s.layer == f.layer && s.kind == Sublayer::attention) item["score"] = s.score;
    replaced.push_back(item);
  }
  return {{"lever", "linearize"},
          {"model", open.path},
          {"replaced", replaced},
          {"window", mixer.window},
          {"features", mixer.features()},
          {"decay", mixer.decay},
          {"convolution", mixer.convolution},
          {"fit", {{"tokens", flags.fit.tokens}, {"learning_rate", flags.fit.learning_rate}}},
          {"before", costs_json(open.model)},
          {"after", costs_json(linearized.model)}};
}

Exit run_linearize(const LinearizeFlags& flags, const Common& common) {
  check_output("linearize", flags.out, flags.model.path);
  const OpenModel open = open_model(flags.model);
  LayerChoice choice = parse_layers(flags.layers, open.model.config);
  check_finite(open.model, open.path);
  std::vector<SublayerScore> scores;
  if (choice.least > 0) {
    scores = score_model(open, flags.model.backend, flags.scoring, common).scores;
    choice.layers = least_in_need(open.model.config, scores, choice.least);
  }
  const Linearized linearized = linearize(open.model, choice.layers, flags.attention);
  const auto backend = make_backend(flags.model.backend);
  const Transformer model(open.model, *backend, open.compute, resolve_context(flags.fit.sequence, open.model.config));
  Progress progress("linearize", common.quiet);
  const std::vector<LayerFit> fits = fit(model, linearized, tokens_of(flags, open, common), flags.fit,
                                         [&](double part) { progress.update(part, ""); });
  const Json manifest = manifest_of(flags, open, linearized, fits, scores);
  save_output(linearized.model, open.tokenizer, open.path, flags.out, manifest);
  if (common.json) {
    Json json{{"out", flags.out}};
    json.update(manifest);
    print_json(json);
    return Exit::done;
  }
  progress.finish();
  for (const LayerFit& f : fits)
    fmt::print("layer {:<16} {:>14.3f} -> {:>15.3f}  error of its outputs\n", f.layer, f.before, f.after);
  print_costs(open.model, linearized.model);
  fmt::print("written to {}; to heal it: sparsam train --from {} --teacher {}\n", flags.out, flags.out, open.path);
  return Exit::done;
}

}  // namespace

void add_linearize(CLI::App& program, Command& command) {
  const auto flags = std::make_shared<LinearizeFlags>();
  CLI::App* verb =
      add_verb(program, command, "linearize", "write a model with attention at constant cost in place of softmax");
  add_model_flags(verb, flags->model);
  verb->add_option("--layers", flags->layers,
                   "all, layers as 1,3, or the ones that need softmax least by their score: least:2, 50%")
      ->required();
  verb->add_option("--window", flags->attention.window, "tokens of exact softmax attention beside the state, 0: none")
      ->check(in_range(0, i64{1} << 20))
      ->capture_default_str();
  verb->add_option("--features", flags->attention.features, "channels of the state's keys (default: 2 head_dim)")
      ->check(in_range(1, i64{1} << 16));
  verb->add_flag("--decay", flags->attention.decay, "a learned decay of the state");
  verb->add_option("--convolution", flags->attention.convolution, "taps of a convolution of q, k and v")
      ->check(in_range(1, 64));
  verb->add_option("--data", flags->scoring.data, "text to fit to (default: the embedded corpus)")
      ->allow_extra_args(false);
  verb->add_option("--fit-tokens", flags->fit.tokens, "tokens to fit to, over and over where the text is shorter")
      ->check(in_range(0, i64{1} << 40))
      ->capture_default_str();
  verb->add_option("--sequence", flags->fit.sequence, "tokens of a window (default: the model's context, at most 512)")
      ->check(in_range(2, i64{1} << 24));
  verb->add_option("--lr", flags->fit.learning_rate, "learning rate of the fit")
      ->check(CLI::Range(0.0, 10.0).description(""))
      ->capture_default_str();
  verb->add_option("--out", flags->out, "directory to write")->required();
  add_example(verb,
              "sparsam linearize model --layers 50% --data sample.txt --out hybrid\n"
              "  sparsam train --from hybrid --teacher model --data text.txt --tokens 1000000 --out healed");
  on_chosen(verb, command, [flags, &command] { return run_linearize(*flags, command.common); });
}

}  // namespace sparsam
