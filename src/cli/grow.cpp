// sparsam grow: writes a model with more parameter tokens.
#include "levers/grow.h"

#include "cli/common.h"
#include "cli/output.h"

namespace sparsam {

namespace {

struct GrowFlags {
  std::string model, params, to_tokens, begin = "zero-keys", out;
  bool published = false;
};

const std::vector<std::string> beginnings{"zero-keys", "zero-values"};

NewTokens way_of(const GrowFlags& flags, bool chosen) {
  if (flags.published && chosen) fail_usage("grow: --published draws keys and values: give it without --new");
  if (flags.published) return NewTokens::published;
  if (flags.begin == beginnings[0]) return NewTokens::zero_keys;
  if (flags.begin == beginnings[1]) return NewTokens::zero_values;
  fail_unknown("way", flags.begin, beginnings, "--new", Exit::usage);
}

// "2x" -> 2
double factor_of(const std::string& text) {
  char* end = nullptr;
  const double factor = std::strtod(text.c_str(), &end);
  if (end == text.c_str() || std::string_view(end) != "x")
    fail_usage("--params: '{}' is not understood, expected how many times the parameters: 2x", text);
  return factor;
}

// Tokens of each kind, before and after, where layers are alike; else of the first layer that has them.
Json tokens_json(const Config& before, const Config& after) {
  Json json = Json::object();
  const auto add = [&](const char* kind, const ParameterTokens& was, const ParameterTokens& is) {
    if (was.present() && !json.contains(kind))
      json[kind] = {{"from", was.tokens}, {"to", is.tokens}, {"tau_from", was.tau}, {"tau_to", is.tau}};
  };
  for (size_t l = 0; l < before.layers.size(); ++l) {
    const auto* a = std::get_if<SoftmaxAttention>(&before.layers[l].mixer);
    const auto* b = std::get_if<SoftmaxAttention>(&after.layers[l].mixer);
    if (a) add("q", a->q, b->q), add("k", a->k, b->k), add("v", a->v, b->v), add("o", a->o, b->o);
    if (const auto* t = std::get_if<ParameterTokens>(&before.layers[l].mlp))
      add("mlp", *t, std::get<ParameterTokens>(after.layers[l].mlp));
  }
  return json;
}

Exit run_grow(const GrowFlags& flags, bool way_chosen, const Common& common) {
  if (flags.params.empty() == flags.to_tokens.empty())
    fail_usage("grow: how far? give either --params 2x or --to-tokens attention:144,mlp:576");
  const NewTokens how = way_of(flags, way_chosen);
  check_output("grow", flags.out, flags.model);
  const Model model = load_model(flags.model);
  const Config to = flags.params.empty() ? with_tokens(model.config, parse_token_targets(flags.to_tokens))
                                         : with_parameters(model.config, factor_of(flags.params));
  const Model grown = grow(model, to, how, common.seed);

  const bool exact = how != NewTokens::published;
  const Json manifest{{"lever", "grow"},
                      {"model", flags.model},
                      {"new", exact ? flags.begin : "published"},
                      {"same_function", exact},
                      {"seed", common.seed},
                      {"tokens", tokens_json(model.config, grown.config)},
                      {"before", costs_json(model)},
                      {"after", costs_json(grown)}};
  save_output(grown, tokenizer_beside(flags.model), flags.model, flags.out, manifest);
  if (common.json) {
    Json json{{"out", flags.out}};
    json.update(manifest);
    print_json(json);
    return Exit::done;
  }
  for (const auto& [kind, change] : manifest["tokens"].items())
    fmt::print("{:<22} {:>15} -> {:>15}\n", "tokens of " + kind, change["from"].get<i64>(), change["to"].get<i64>());
  print_costs(model, grown);
  fmt::print("{}\nwritten to {}\n",
             exact ? "the function is the same" : "another function: new tokens answer from the beginning", flags.out);
  return Exit::done;
}

}  // namespace

void add_grow(CLI::App& program, Command& command) {
  const auto flags = std::make_shared<GrowFlags>();
  CLI::App* verb = add_verb(program, command, "grow", "write a model with more parameter tokens");
  verb->add_option("MODEL", flags->model, "a model with parameter tokens (train --preset tokenformer-nano)")
      ->required();
  verb->add_option("--params", flags->params, "how many times its parameters: 2x");
  verb->add_option("--to-tokens", flags->to_tokens,
                   "tokens afterwards, by kind: attention:144,mlp:576 (also q, k, v, o)");
  const CLI::Option* begin =
      verb->add_option("--new", flags->begin,
                       "how new tokens leave the function as it is: zero-keys, or zero-values with random keys")
          ->capture_default_str();
  verb->add_flag("--published", flags->published, "random keys and values, tau of the new number: as the authors grew");
  verb->add_option("--out", flags->out, "directory to write")->required();
  add_example(verb,
              "sparsam grow model --params 2x --out grown && sparsam train --from grown --data text.txt --out on");
  on_chosen(verb, command, [flags, begin, &command] { return run_grow(*flags, begin->count() > 0, command.common); });
}

}  // namespace sparsam
