// sparsam grow: writes a model that is wider, deeper or has more parameter tokens.
#include "levers/grow.h"

#include <algorithm>
#include <cmath>

#include "cli/common.h"
#include "cli/output.h"
#include "levers/deepen.h"
#include "levers/widen.h"
#include "train/checkpoint.h"

namespace sparsam {

namespace {

struct GrowFlags {
  std::string model, params, to_tokens, begin = "zero-keys", dim, hidden, neurons = "copies", optimizer = "reset", out;
  i64 layers = 0;
  double noise = WidenOptions{}.noise;
  bool published = false, stack = false;
};

// The place of a flag's value in a closed list.
size_t choice(const std::string& value, const std::vector<std::string>& values, const char* flag) {
  const auto found = std::find(values.begin(), values.end(), value);
  if (found == values.end()) fail_unknown("way", value, values, flag, Exit::usage);
  return static_cast<size_t>(found - values.begin());
}

NewTokens way_of(const GrowFlags& flags, bool chosen) {
  if (flags.published && chosen) fail_usage("grow: --published draws keys and values: give it without --new");
  if (flags.published) return NewTokens::published;
  return static_cast<NewTokens>(choice(flags.begin, {"zero-keys", "zero-values", "ramp"}, "--new"));
}

// "2x" -> 2
double factor_of(const std::string& text, const char* flag) {
  char* end = nullptr;
  const double factor = std::strtod(text.c_str(), &end);
  if (end == text.c_str() || std::string_view(end) != "x")
    fail_usage("{}: '{}' is not understood, expected how many times as many: 2x", flag, text);
  return factor;
}
// "2x" of `before`, or the number itself.
i64 number_of(const std::string& text, i64 before, const char* flag) {
  constexpr double most = 1e9;
  char* end = nullptr;
  const double given = std::strtod(text.c_str(), &end);
  const double size = text.ends_with('x') ? factor_of(text, flag) * static_cast<double>(before) : given;
  if ((!text.ends_with('x') && (end == text.c_str() || *end != 0)) || !(size >= 1 && size <= most) ||
      size != std::floor(size))
    fail_usage("{}: '{}' is not understood, expected a number, or how many times as many: 2x", flag, text);
  return static_cast<i64>(size);
}

i64 neurons_of(const Config& config) {
  for (const Layer& layer : config.layers) {
    if (const auto* m = std::get_if<Mlp>(&layer.mlp)) return m->hidden;
    if (const auto* m = std::get_if<GatedMlp>(&layer.mlp)) return m->hidden;
  }
  return 0;
}

// What is done to the weights, and in the same way to the moments of an optimizer.
struct Plan {
  std::vector<std::function<Model(const Model&, Numbers)>> steps = {};
  Config config;
  bool exact = true;

  void add(const Config& to, auto&& grow_to) {
    steps.push_back([to, grow_to](const Model& m, Numbers numbers) { return grow_to(m, to, numbers); });
    config = to;
  }
  Model apply(Model model, Numbers numbers = Numbers::weights) const {
    for (const auto& step : steps) model = step(model, numbers);
    return model;
  }
};

void add_width(Plan& plan, const GrowFlags& flags, u64 seed) {
  Widening widening;
  if (!flags.dim.empty()) {
    const i64 before = plan.config.dim, after = number_of(flags.dim, before, "--dim");
    if (after % before != 0)
      fail_usage("--dim: {} is no multiple of the width {}, as equal copies of each channel are", after, before);
    widening.dim = after / before;
  }
  if (!flags.hidden.empty()) widening.hidden = number_of(flags.hidden, neurons_of(plan.config), "--hidden");
  const WidenOptions options{
      .neurons = static_cast<NewNeurons>(choice(flags.neurons, {"copies", "random"}, "--neurons")),
      .noise = flags.noise,
      .seed = seed};
  if (!(options.noise >= 0 && options.noise <= 10)) fail_usage("--noise is {}, expected 0 to 10", options.noise);
  plan.add(widened(plan.config, widening),
           [options](const Model& m, const Config& to, Numbers numbers) { return widen(m, to, options, numbers); });
}

void add_depth(Plan& plan, const GrowFlags& flags) {
  const Stacking how = flags.stack ? Stacking::copies : Stacking::zeros;
  plan.exact = plan.exact && !flags.stack;
  plan.add(deepened(plan.config, flags.layers),
           [how](const Model& m, const Config& to, Numbers numbers) { return deepen(m, to, how, numbers); });
}

void add_tokens(Plan& plan, const GrowFlags& flags, NewTokens how, u64 seed) {
  plan.exact = plan.exact && how != NewTokens::published;
  const Config to = flags.params.empty() ? with_tokens(plan.config, parse_token_targets(flags.to_tokens))
                                         : with_parameters(plan.config, factor_of(flags.params, "--params"));
  plan.add(to,
           [how, seed](const Model& m, const Config& c, Numbers numbers) { return grow(m, c, how, seed, numbers); });
}

Plan plan_of(const GrowFlags& flags, const Config& config, bool way_chosen, u64 seed) {
  if (!flags.params.empty() && !flags.to_tokens.empty())
    fail_usage("grow: --params and --to-tokens both say how many tokens; give one of them");
  if (flags.stack && flags.layers == 0) fail_usage("grow: --stack is how --layers are copied: give --layers N");
  const NewTokens how = way_of(flags, way_chosen);
  Plan plan{.config = config};
  if (!flags.dim.empty() || !flags.hidden.empty()) add_width(plan, flags, seed);
  if (flags.layers > 0) add_depth(plan, flags);
  if (!flags.params.empty() || !flags.to_tokens.empty()) add_tokens(plan, flags, how, seed);
  if (plan.steps.empty())
    fail_usage(
        "grow: how far? give --params 2x or --to-tokens attention:144,mlp:576, --dim 2x, --hidden 2x, --layers N");
  return plan;
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

Json sizes_json(const Config& before, const Config& after) {
  Json json = Json::object();
  const auto add = [&](const char* name, i64 was, i64 is) {
    if (was != is) json[name] = {{"from", was}, {"to", is}};
  };
  add("dim", before.dim, after.dim), add("hidden", neurons_of(before), neurons_of(after));
  add("layers", static_cast<i64>(before.layers.size()), static_cast<i64>(after.layers.size()));
  return json;
}

Exit run_grow(const GrowFlags& flags, bool way_chosen, const Common& common) {
  check_output("grow", flags.out, flags.model);
  const bool keep = choice(flags.optimizer, {"reset", "keep"}, "--optimizer") == 1;
  if (keep && fs::path(flags.out).extension() == ".gguf")
    fail_usage("grow: a .gguf file does not hold the optimizer's state; give --out a directory");
  const std::string from = keep ? directory_with_optimizer(flags.model).string() : flags.model;
  const Model model = load_model(from);
  require_language_model(model.config, from);
  const Plan plan = plan_of(flags, model.config, way_chosen, common.seed);
  const Model grown = plan.apply(model);

  std::optional<OptimizerState> optimizer;
  if (keep) {
    const OptimizerState old = load_optimizer(from, model.config);
    optimizer = {plan.apply(old.first, Numbers::first_moments), plan.apply(old.second, Numbers::second_moments),
                 old.updates};
  }
  Json manifest{{"lever", "grow"},
                {"model", from},
                {"sizes", sizes_json(model.config, grown.config)},
                {"new", flags.published ? "published" : flags.begin},
                {"neurons", flags.neurons},
                {"noise", flags.noise},
                {"stack", flags.stack},
                {"same_function", plan.exact},
                {"optimizer", optimizer ? Json{{"updates", optimizer->updates}} : Json(nullptr)},
                {"seed", common.seed},
                {"tokens", tokens_json(model.config, grown.config)},
                {"before", costs_json(model)},
                {"after", costs_json(grown)}};
  save_output(grown, tokenizer_beside(from), from, flags.out, manifest, [&](const fs::path& directory) {
    if (optimizer) save_optimizer(*optimizer, directory);
  });
  if (common.json) {
    Json json{{"out", flags.out}};
    json.update(manifest);
    print_json(json);
    return Exit::done;
  }
  const auto print = [](const std::string& what, const Json& change) {
    fmt::print("{:<22} {:>15} -> {:>15}\n", what, change["from"].get<i64>(), change["to"].get<i64>());
  };
  for (const auto& [name, change] : manifest["sizes"].items()) print(name, change);
  for (const auto& [kind, change] : manifest["tokens"].items()) print("tokens of " + kind, change);
  print_costs(model, grown);
  if (optimizer)
    fmt::print("moments of {} updates are kept (train --from {} --optimizer keep)\n", optimizer->updates, flags.out);
  fmt::print("{}\nwritten to {}\n",
             plan.exact ? "the function is the same" : "another function: what is new answers from the beginning",
             flags.out);
  return Exit::done;
}

}  // namespace

void add_grow(CLI::App& program, Command& command) {
  const auto flags = std::make_shared<GrowFlags>();
  CLI::App* verb = add_verb(program, command, "grow", "write a larger model that computes the same");
  verb->add_option("MODEL", flags->model, "a model, or the directory of a run")->required();
  verb->add_option("--params", flags->params, "how many times its parameters: 2x");
  verb->add_option("--to-tokens", flags->to_tokens,
                   "tokens afterwards, by kind: attention:144,mlp:576 (also q, k, v, o)");
  const CLI::Option* begin =
      verb->add_option("--new", flags->begin,
                       "how new tokens leave the function as it is: zero-keys; zero-values with random keys; ramp, "
                       "random ones under a mask that training takes off")
          ->capture_default_str();
  verb->add_flag("--published", flags->published, "random keys and values, tau of the new number: as the authors grew");
  verb->add_option("--dim", flags->dim, "width: a multiple, 2x or in channels; heads and neurons are copied alike");
  verb->add_option("--hidden", flags->hidden, "neurons of each MLP: their number, or 2x");
  verb->add_option("--neurons", flags->neurons,
                   "new neurons are copies that share, or random and not read yet (random)")
      ->capture_default_str();
  verb->add_option("--noise", flags->noise,
                   "how much copies differ, as a fraction of the weights; the function stays (0: they never part)")
      ->capture_default_str();
  verb->add_option("--layers", flags->layers,
                   "number of layers: copies whose last matrices are 0 come after the others");
  verb->add_flag("--stack", flags->stack, "new layers are whole copies, which is another function (G_stack)");
  verb->add_option("--optimizer", flags->optimizer,
                   "moments of AdamW: reset, or keep them of the run's last checkpoint")
      ->capture_default_str();
  verb->add_option("--out", flags->out, "directory to write")->required();
  add_example(verb,
              "sparsam grow model --params 2x --out grown && sparsam train --from grown --data text.txt --out on");
  on_chosen(verb, command, [flags, begin, &command] { return run_grow(*flags, begin->count() > 0, command.common); });
}

}  // namespace sparsam
