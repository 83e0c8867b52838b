#include "train/ladder.h"

#include <algorithm>
#include <cmath>

#include "measure/perplexity.h"
#include "measure/sparsity_search.h"
#include "train/data.h"
#include "train/fields.h"

namespace sparsam {

namespace {

i64 step_tokens(const Recipe& recipe) { return recipe.batch * recipe.accumulate * recipe.sequence; }

Recipe recipe_from_json(const Json& json, const std::string& where, i64 context, i64 tokens) {
  Recipe recipe;
  recipe.schedule = ScheduleKind::constant, recipe.warmup = 100, recipe.lr = 0.01, recipe.mup_base = 256;
  recipe.sequence = context;
  read_fields(recipe, json, where);
  if (recipe.tokens > 0 || recipe.steps > 0 || recipe.minutes > 0)
    fail("{}: tokens, steps and minutes follow from checkpoints; leave them out", where);
  if (recipe.schedule != ScheduleKind::constant)
    fail("{}.schedule is {}, expected constant: the law is measured while the rate stays at its peak", where,
         enum_name(recipe.schedule));
  if (recipe.warmup < 0) fail("{}.warmup is {}, expected 0 or more steps", where, recipe.warmup);
  if (recipe.batch < 1 || recipe.sequence < 1)
    fail("{}: batch {} and sequence {}, expected 1 or more", where, recipe.batch, recipe.sequence);
  recipe.tokens = tokens;
  return recipe;
}

// make_config() and validate() speak of flags; here they are fields of the spec.
template <class F>
void in_spec(const std::string& where, F&& f) {
  try {
    f();
  } catch (const Error& error) {
    fail("{}: {}", where, error.what());
  }
}

std::vector<Architecture> models_from_json(Fields& spec, const std::string& where) {
  Architecture shared;
  shared.head_dim = 32;
  if (const Json* json = spec.find("architecture")) read_fields(shared, *json, where + ": architecture");
  std::vector<Architecture> models;
  std::vector<std::string> names;
  const auto shapes = spec.required<std::vector<Json>>("models");
  for (size_t i = 0; i < shapes.size(); ++i)
    for (const std::string& activation : spec.required<std::vector<std::string>>("activations")) {
      const std::string at = fmt::format("{}: models[{}]", where, i);
      Architecture model = shared;
      read_fields(model, shapes[i], at);
      model.activation = function_from_name(activation, where + ": activations");
      if (model.heads == 0 && model.head_dim > 0) {
        if (model.dim % model.head_dim != 0)
          fail("{}: dim {} is not a multiple of head-dim {}; give heads", at, model.dim, model.head_dim);
        model.heads = model.dim / model.head_dim;
      }
      if (model.hidden == 0) model.hidden = 5 * model.dim / 2;
      in_spec(at, [&] { make_config(model); });
      const std::string name = ladder_model_name(model);
      if (std::find(names.begin(), names.end(), name) != names.end()) fail("{}: {} is there twice", at, name);
      names.push_back(name);
      models.push_back(model);
    }
  if (models.empty()) fail("{}: no models or no activations, expected one or more of each", where);
  return models;
}

RunOptions run_options(const LadderSpec& spec, const Architecture& model, const fs::path& out) {
  RunOptions options;
  options.sources.data = spec.data, options.sources.valid = {spec.held_out};
  options.sources.tokenizer = (out / "tokenizer.json").string();
  options.architecture = model;
  options.recipe = spec.recipe;
  options.upkeep.eval_every = spec.recipe.tokens, options.upkeep.eval_tokens = 1;  // the ladder measures itself
  options.upkeep.save_every = 1000, options.upkeep.keep = 1;
  options.out = out / ladder_model_name(model), options.token_files = out;
  options.measure_peak = false;
  return options;
}

class Ladder {
 public:
  Ladder(LadderSpec spec, fs::path out, const LadderEvents& events)
      : spec_(std::move(spec)),
        out_(std::move(out)),
        events_(events),
        backend_(make_backend("cpu")),
        points_(read_law_points(out_ / "points.jsonl")),
        tokenizer_(make_tokenizer()),
        calibration_(read_tokens(spec_.calibration, spec_.calibration_tokens)),
        held_out_(read_tokens(spec_.held_out, spec_.held_out_tokens)) {
    constexpr double most = 0.1;
    if (const double part = overlap(held_out_.tokens, calibration_.tokens); part > most)
      fail("{}: {:.0f} % of it stands in the calibration text {} too; thresholds need a text of their own",
           held_out_.name, 100 * part, calibration_.name);
  }

  bool go() {
    for (const Architecture& model : spec_.models)
      for (const i64 tokens : spec_.checkpoints) {
        const i64 step = (tokens + step_tokens(spec_.recipe) - 1) / step_tokens(spec_.recipe);
        if (!is_done(model, step) && !(train_to(model, step) && measure(model, step))) return false;
      }
    return true;
  }

 private:
  void note(std::string_view text) const {
    if (events_.on_note) events_.on_note(text);
  }
  bool stop() const { return events_.stop && events_.stop(); }

  Tokenizer make_tokenizer() const {
    const fs::path path = out_ / "tokenizer.json";
    if (!fs::exists(path)) {
      note("learning a tokenizer");
      const auto documents = open_documents(spec_.data);
      std::vector<std::string_view> texts;
      constexpr size_t most_bytes = 16'000'000;  // frequent pairs show in a part of a long text
      for (const Document& document : documents) texts.push_back(document.text.substr(0, most_bytes));
      write_text(path, train_tokenizer(texts, spec_.models.front().vocab).to_json());
    }
    return Tokenizer::load(path);
  }
  TokenText read_tokens(const std::string& path, i64 most) const {
    const std::string text = read_text(path);
    TokenText tokens{encode_parallel(tokenizer_, text), tokenizer_.beginning_of_text(), path};
    if (most > 0 && static_cast<i64>(tokens.tokens.size()) > most) tokens.tokens.resize(static_cast<size_t>(most));
    return tokens;
  }

  bool is_done(const Architecture& model, i64 step) const {
    const auto tokens = static_cast<double>(step * step_tokens(spec_.recipe));
    return std::any_of(points_.begin(), points_.end(), [&](const LawPoint& point) {
      return point.model == ladder_model_name(model) && point.tokens == tokens;
    });
  }

  // Returns whether the step was reached.
  bool train_to(const Architecture& model, i64 step) {
    RunOptions options = run_options(spec_, model, out_);
    const std::string name = ladder_model_name(model);
    const auto checkpoint = newest_checkpoint(options.out);
    const i64 done = checkpoint ? read_state(*checkpoint).step : 0;
    if (done > step)
      fail(
          "{}: trained to step {} already, but the point of step {} is missing in {}; remove that directory to train "
          "the model anew",
          options.out.string(), done, step, (out_ / "points.jsonl").string());
    if (done == step) return true;
    options.upkeep.stop_after = step - done;
    RunEvents events;
    events.stop = [this] { return stop(); };
    events.on_note = [this](std::string_view text) { note(text); };
    events.on_step = [&](const StepMetrics& m) {
      if (!events_.on_progress) return;
      const double models = static_cast<double>(spec_.models.size());
      const double part = std::min(1.0, static_cast<double>(m.tokens) / static_cast<double>(spec_.recipe.tokens));
      events_.on_progress((static_cast<double>(&model - spec_.models.data()) + part) / models,
                          fmt::format("{}  step {}  loss {:.3f}  {:.0f} tokens/s", name, m.step, m.loss,
                                      static_cast<double>(m.step_tokens) / m.seconds));
    };
    options.overwrite = !checkpoint;  // what an interrupted first part left
    return (checkpoint ? resume_run(options, events) : start_run(options, events)).step == step;
  }

  // Returns whether it was not interrupted.
  bool measure(const Architecture& architecture, i64 step) {
    if (stop()) return false;
    const Recipe& recipe = spec_.recipe;
    const fs::path directory = out_ / ladder_model_name(architecture);
    const Model model = load_model(directory);
    const i64 context = std::max<i64>(recipe.sequence, 2);
    const WindowOptions windows = resolve(
        {.protocol = Protocol::stride, .context = context, .stride = context - 1, .batch_tokens = 4096}, model.config);
    const Transformer dense(model, *backend_, recipe.precision, context);
    constexpr i64 thresholds = 1024;
    const ActivationProfile profile =
        profile_activations(dense, calibration_.tokens, {.context = context, .tokens = 0, .thresholds = thresholds});
    const auto loss = [&](const Transformer& m) {
      return summarize(measure_losses(m, tokenizer_, held_out_, windows)).nats_per_token.mean;
    };
    SparsitySearch search(model, *backend_, recipe.precision, context, loss);
    const TruncationRule rule = cett_rule(profile);
    const SparsityPoint found = search.at_rise(rule, spec_.percent);
    for (const double factor : {0.5, 0.7, 1.4})
      search.measure_at(rule, factor * found.at);  // for law fit --cett shared
    LawPoint point{.model = ladder_model_name(architecture),
                   .activation = std::string(name_of(architecture.activation)),
                   .tokens = static_cast<double>(step * step_tokens(recipe)),
                   .activation_ratio = 1 - found.sparsity,
                   .dim = architecture.dim,
                   .layers = architecture.layers,
                   .parameters = parameter_count(model.config) - embedding_parameter_count(model.config),
                   .percent = spec_.percent,
                   .cett = found.at,
                   .perplexity = search.dense_perplexity(),
                   .nonzero_ratio = 1 - profile.exact_zeros()};
    for (const auto& [at, tried] : search.tried(rule))
      point.tried.push_back({at, 1 - tried.sparsity, tried.perplexity});
    points_.push_back(point);
    write_law_points(out_ / "points.jsonl", points_);
    if (events_.on_point) events_.on_point(point);
    return true;
  }

  LadderSpec spec_;
  fs::path out_;
  const LadderEvents& events_;
  std::unique_ptr<Backend> backend_;
  std::vector<LawPoint> points_;
  Tokenizer tokenizer_;
  TokenText calibration_, held_out_;
};

// Models and activations may be added to a ladder; the rest must be what its points were made with.
void refuse_other_spec(const Json& spec, const std::string& where, const fs::path& kept) {
  if (fs::exists(kept)) {
    const Json before = parse_json(read_text(kept), kept.string());
    for (const Json& object : {spec, before})
      for (const auto& [name, value] : object.items()) {
        if (name == "models" || name == "activations") continue;
        const auto has = before.find(name), asked = spec.find(name);
        if (has == before.end() || asked == spec.end() || *has != *asked)
          fail("{}: {} is {}, but the points beside {} were made with {}; take another --out", where, name,
               asked == spec.end() ? "not given" : asked->dump(), kept.string(),
               has == before.end() ? "none" : has->dump());
      }
  }
  write_text(kept, format_json(spec, where, 2) + "\n");
}

}  // namespace

std::string ladder_model_name(const Architecture& model) {
  return fmt::format("{}-{}x{}", name_of(model.activation), model.dim, model.layers);
}

LadderSpec ladder_from_json(const Json& json, const std::string& where) {
  Fields fields(json, where);
  LadderSpec spec;
  spec.data = fields.required<std::vector<std::string>>("data");
  spec.calibration = fields.required<std::string>("calibration");
  spec.held_out = fields.required<std::string>("held_out");
  spec.models = models_from_json(fields, where);
  for (const Architecture& model : spec.models)
    if (model.vocab != spec.models.front().vocab || model.context != spec.models.front().context)
      fail("{}: models differ in vocab or context, which their points would show too", where);
  spec.checkpoints = fields.required<std::vector<i64>>("checkpoints");
  if (spec.data.empty() || spec.checkpoints.empty()) fail("{}: no data or no checkpoints, expected some", where);
  const Json* recipe = fields.find("recipe");
  spec.recipe = recipe_from_json(recipe ? *recipe : Json::object(), where + ": recipe", spec.models.front().context,
                                 std::max<i64>(spec.checkpoints.back(), 0));
  i64 before = spec.recipe.warmup * step_tokens(spec.recipe);
  for (const i64 tokens : spec.checkpoints) {
    if (tokens < before + step_tokens(spec.recipe))
      fail("{}: checkpoints: {} tokens after {}, expected ascending, a step of {} apart and after the warm-up", where,
           tokens, before, step_tokens(spec.recipe));
    before = tokens;
  }
  spec.percent = fields.or_default<double>("percent", 1, {.least = 0, .most = 1000});
  spec.calibration_tokens = fields.or_default<i64>("calibration_tokens", 8192, {.least = 0, .most = i64{1} << 40});
  spec.held_out_tokens = fields.or_default<i64>("held_out_tokens", 16384, {.least = 0, .most = i64{1} << 40});
  fields.finish();
  in_spec(where, [&] { validate(run_options(spec, spec.models.front(), "out")); });
  return spec;
}

bool run_ladder(const Json& json, const std::string& where, const fs::path& out, const LadderEvents& events) {
  LadderSpec spec = ladder_from_json(json, where);
  std::error_code error;
  fs::create_directories(out, error);
  if (error) fail("{}: cannot create directory: {}", out.string(), error.message());
  const DirectoryLock lock(out);
  refuse_other_spec(json, where, out / "spec.json");
  return Ladder(std::move(spec), out, events).go();
}

}  // namespace sparsam
