#include "train/run.h"

#include <algorithm>
#include <cmath>

#include "base/clock.h"
#include "base/threads.h"
#include "train/fields.h"
#include "train/l1_schedule.h"
#include "train/manifest.h"
#include "train/metrics.h"
#include "train/mup.h"
#include "train/speed.h"
#include "train/task_data.h"

namespace sparsam {

namespace {

i64 derived(i64 given, i64 otherwise) { return given >= 0 ? given : otherwise; }

// How good predictions are, in the task's own numbers; the loss stands beside them.
void add_quality(Json& line, const Evaluation& evaluation) {
  if (evaluation.confusion) {
    line["accuracy"] = evaluation.confusion->accuracy();
    line["macro_f1"] = evaluation.confusion->macro_f1();
    return;
  }
  line["perplexity"] = evaluation.perplexity();
  if (evaluation.bytes > 0) line["bits_per_byte"] = evaluation.bits_per_byte();
}

void add_activity(Json& line, const std::vector<LayerActivity>& layers) {
  line["activation_ratio"] = mean_over(layers, &LayerActivity::activation_ratio);
  line["dead_neurons"] = mean_over(layers, &LayerActivity::dead_neurons);
  line["layers"] = Json::array();
  for (const LayerActivity& layer : layers) line["layers"].push_back(fields_to_json(layer));
}

template <class... A>
void tell(const std::function<void(A...)>& event, const std::type_identity_t<A>&... arguments) {
  if (event) event(arguments...);
}

// Everything that a run reads and nothing that it changes.
struct Inputs {
  Tokenizer tokenizer;
  Config config;
  std::optional<Model> from;  // weights to begin with
  std::optional<OptimizerState> optimizer;
  TaskData data;
};

Tokenizer make_tokenizer(const RunOptions& options, const TaskTexts& texts, const RunEvents& events) {
  const Sources& sources = options.sources;
  const bool masked = options.recipe.task == Task::masked;
  const auto finished = [&](Tokenizer tokenizer) { return masked ? tokenizer.with_mask_token() : tokenizer; };
  if (!sources.tokenizer.empty()) return finished(Tokenizer::load(sources.tokenizer));
  tell(events.on_stage, "learning a tokenizer");
  return finished(train_tokenizer(texts.training_texts(), options.architecture.vocab - masked));
}

// What the task makes of a new shape, or of the model of --from.
Config config_for_task(const RunOptions& options, const Model* from, i64 vocab, const TaskTexts& texts) {
  const Task task = options.recipe.task;
  const std::string& name = options.sources.from;
  Config config;
  if (from) {
    config = from->config;
    if (task == Task::language) require_language_model(config, "train: " + name);
    if (task == Task::masked && (config.causal || !config.labels.empty()))
      fail_usage("train: {} is no encoder that predicts hidden tokens, which --task masked needs", name);
  } else {
    // A tokenizer decides the vocabulary: one that is given, or one that found fewer pairs than asked for.
    Architecture shape = options.architecture;
    shape.vocab = vocab;
    config = make_config(shape);
    config.causal = task == Task::language;
    if (options.recipe.mup_base > 0) apply_mup_scales(config, options.recipe.mup_base);
  }
  if (task == Task::classify && config.labels.empty()) config.labels = texts.labels();
  try {
    validate(config, "train");
  } catch (const Error& error) {
    throw Error(error.what(), Exit::usage);
  }
  return config;
}

// A model to begin with, and its tokenizer: of a checkpoint, or of --from.
struct Origin {
  std::optional<Model> model;
  std::optional<Tokenizer> tokenizer;
  std::optional<OptimizerState> optimizer = {};  // of a run that keeps the moments of --from
};

// Resolves what the recipe leaves open.
Inputs read_inputs(RunOptions& options, Origin&& origin, const RunEvents& events) {
  const TaskTexts texts = read_task_texts(options.sources, options.recipe, events.on_stage);
  auto& [from, tokenizer, optimizer] = origin;
  if (!tokenizer) tokenizer = make_tokenizer(options, texts, events);
  Config config = config_for_task(options, from ? &*from : nullptr, tokenizer->vocab_size(), texts);
  if (tokenizer->vocab_size() > config.vocab)
    fail("train: the tokenizer has {} tokens, the model's vocabulary {}: they do not belong together",
         tokenizer->vocab_size(), config.vocab);
  Recipe& recipe = options.recipe;
  constexpr i64 longest_default = 512;
  if (recipe.sequence == 0) recipe.sequence = std::min(config.context, longest_default);
  constexpr i64 default_tokens = 4096;
  if (recipe.batch == 0) recipe.batch = std::max<i64>(1, default_tokens / recipe.sequence);
  if (recipe.sequence > config.context)
    fail_usage("--sequence is {}, but the model's context is {}", recipe.sequence, config.context);
  tell(events.on_stage, "tokenizing");
  const fs::path& kept = options.token_files.empty() ? options.out : options.token_files;
  TaskData data = make_task_data(texts, recipe, *tokenizer, config.labels, kept);
  return {std::move(*tokenizer), config, std::move(from), std::move(optimizer), std::move(data)};
}

class Run {
 public:
  Run(const RunOptions& options, const RunEvents& events, Origin origin)
      : options_(options),
        events_(events),
        backend_(make_backend("cpu")),
        inputs_(read_inputs(options_, std::move(origin), events)) {
    state_.sources = options_.sources;
    state_.architecture = options_.architecture;
    state_.recipe = options_.recipe;
    state_.activation = options_.activation;
    state_.threads = threads();
    state_.data_hash = inputs_.data.train_hash;
    state_.valid_hash = inputs_.data.held_out_hash;
    load_teacher();
    if (!options_.measure_peak) return;
    tell(events_.on_stage, "measuring the machine");
    peak_flops_ = measure_peak_flops(options_.recipe.precision);
  }

  void begin() {
    state_.steps = resolve_steps();
    l1_schedule();  // refused before anything is removed
    make_trainer();
    if (inputs_.optimizer) take_up(*inputs_.optimizer, *trainer_, 0);
    inputs_.optimizer.reset();
    for (const char* name : {"metrics.jsonl", "run.json", "model.safetensors", "config.json", "tokenizer.json"})
      fs::remove(options_.out / name);
    remove_checkpoints(options_.out);
  }

  void require_inputs_of(const fs::path& checkpoint, const RunState& before) const {
    if (before.data_hash != state_.data_hash || before.valid_hash != state_.valid_hash)
      fail("{}: the data differ from those that the run began with", checkpoint.string());
    if (before.teacher_hash != state_.teacher_hash)
      fail("{}: --teacher differs from the model that the run began with", checkpoint.string());
    if (before.threads != state_.threads)
      tell(events_.on_note, fmt::format("the run had {} threads, now {}: the result will differ in rounding",
                                        before.threads, state_.threads));
  }

  void go_on_from(const fs::path& checkpoint, const RunState& before) {
    make_trainer();
    take_up(load_optimizer(checkpoint, inputs_.config), *trainer_, before.step);
    state_.step = before.step, state_.steps = before.steps, state_.tokens = before.tokens;
    state_.seconds = before.seconds, state_.loss = before.loss;
    state_.initial_loss = before.initial_loss;
    state_.best_loss = before.best_loss, state_.best_step = before.best_step;
    state_.evaluated_step = before.evaluated_step;
    checkpoint_ = checkpoint;
  }

  RunResult go() {
    remove_leftovers(options_.out);
    metrics_.emplace(options_.out / "metrics.jsonl", state_.step);
    first_step_ = state_.step;
    seconds_before_ = state_.seconds;
    clock_.restart();
    tell(events_.on_start, info());
    const Schedule schedule = schedule_of(options_.recipe, state_.steps);
    const L1Schedule l1 = l1_schedule();
    evaluate_beginning();
    bool stopped = asked_to_stop();
    if (!stopped) evaluate_if_due();  // where a stop came before it
    while (state_.step < state_.steps && !stopped) {
      trainer_->mask_new_tokens(mask_of(state_.step + 1));
      take_step(schedule.learning_rate(state_.step + 1), l1.weight(state_.step + 1));
      stopped = asked_to_stop();
      if (!stopped) evaluate_if_due();
      if (stopped || state_.step == state_.steps || state_.step % options_.upkeep.save_every == 0) save();
    }
    RunResult result = summary();
    if (state_.step > 0) write_manifest(result);
    return result;
  }

 private:
  void load_teacher() {
    const std::string& path = options_.sources.teacher;
    if (path.empty()) return;
    Model model = load_model(path);
    require_same_vocabulary(model, path, inputs_.config, inputs_.tokenizer);
    state_.teacher_hash = hash_of(model);
    teacher_.emplace(std::move(model), options_.recipe, *backend_);
  }

  void make_trainer() {
    const auto has_neurons = [](const Layer& layer) {
      return has_mlp(layer) && !std::holds_alternative<ParameterTokens>(layer.mlp);
    };
    const auto& layers = inputs_.config.layers;
    if (options_.recipe.l1 != "0" && std::none_of(layers.begin(), layers.end(), has_neurons))
      fail_usage("--l1 {} is of the MLPs' activations, and this model has no MLP", options_.recipe.l1);
    auto specs = parameter_specs(inputs_.config);
    if (options_.recipe.mup_base > 0) apply_mup_deviations(specs, inputs_.config.dim);
    auto weights = std::make_shared<FlatParams>(specs);
    // A classifier's head begins anew where --from has none.
    if (!inputs_.from || inputs_.from->config.labels != inputs_.config.labels)
      initialize(specs, weights->views, static_cast<u64>(options_.recipe.seed));
    if (inputs_.from) read_weights(*inputs_.from, *weights);
    trainer_.emplace(inputs_.config, std::move(weights), options_.recipe, *backend_);
    inputs_.from.reset();
    if (teacher_) trainer_->learn_from(*teacher_);
  }

  // Of tokens that a ramp brings in (grow --new ramp).
  float mask_of(i64 step) const {
    const i64 ramp = std::max<i64>(1, derived(options_.recipe.ramp, state_.steps / 10));
    return static_cast<float>(std::min(1.0, static_cast<double>(step) / static_cast<double>(ramp)));
  }

  L1Schedule l1_schedule() const {
    L1Schedule schedule(options_.recipe.l1);
    schedule.resolve(state_.steps);
    return schedule;
  }
  i64 step_samples() const { return options_.recipe.batch * options_.recipe.accumulate; }
  i64 step_tokens() const { return options_.recipe.batch * options_.recipe.accumulate * options_.recipe.sequence; }
  // The work of an evaluation in training steps: a forward pass is a third of a step's.
  double evaluation_steps() const {
    return static_cast<double>(eval_tokens()) / (3 * static_cast<double>(step_tokens()));
  }
  i64 eval_every() const {
    if (options_.upkeep.eval_every > 0) return options_.upkeep.eval_every;
    constexpr double most = 10, share = 0.05;
    const double steps = static_cast<double>(state_.steps);
    const double evaluations = std::clamp(share * steps / std::max(evaluation_steps(), 1e-9), 1.0, most);
    return std::max<i64>(1, static_cast<i64>(std::ceil(steps / evaluations)));
  }
  i64 eval_tokens() const {
    const i64 all = inputs_.data.held_out_tokens;
    return options_.upkeep.eval_tokens > 0 ? std::min(all, options_.upkeep.eval_tokens) : all;
  }
  bool asked_to_stop() const {
    const i64 most = options_.upkeep.stop_after;
    return (events_.stop && events_.stop()) ||
           (most > 0 && state_.step - first_step_ >= most && state_.step < state_.steps);
  }

  // Minutes become steps by the speed of a few steps, evaluations counted in.
  i64 resolve_steps() {
    const Recipe& recipe = options_.recipe;
    if (recipe.steps > 0) return recipe.steps;
    if (recipe.tokens > 0) return (recipe.tokens + step_tokens() - 1) / step_tokens();
    if (recipe.epochs > 0)
      return std::max<i64>(1, std::llround(recipe.epochs * static_cast<double>(inputs_.data.epoch) /
                                           static_cast<double>(step_samples())));
    tell(events_.on_stage, "measuring the speed");
    const Stopwatch clock;
    constexpr i64 steps = 3;
    constexpr double part = 0.02, evaluations = 0.05;
    const double budget = 60 * recipe.minutes;
    const TrainSpeed speed = measure_training(inputs_.config, recipe, *backend_, steps, part * budget);
    const double left = (budget - clock.seconds()) / speed.seconds_per_step - evaluation_steps();  // the last one
    const i64 every = options_.upkeep.eval_every;
    const double between = every > 0 ? evaluation_steps() / static_cast<double>(every) : evaluations;
    return std::max<i64>(1, static_cast<i64>(left / (1 + between)));
  }

  void take_step(double learning_rate, double l1) {
    StepMetrics metrics;
    try {
      metrics = trainer_->step(inputs_.data.samples, learning_rate, l1);
      metrics.tokens = state_.tokens + metrics.step_tokens;
    } catch (const Error& error) {
      throw Error(fmt::format("{}; {}", error.what(),
                              checkpoint_ ? "the newest checkpoint is " + checkpoint_->string() : "nothing was saved"),
                  error.code);
    }
    state_.step = metrics.step, state_.tokens = metrics.tokens, state_.loss = metrics.loss;
    state_.seconds = seconds_before_ + clock_.seconds();
    const bool first = state_.step == first_step_ + 1;  // also allocates: not counted where there are others
    if (first || state_.step == first_step_ + 2) timed_seconds_ = 0, timed_tokens_ = 0;
    timed_seconds_ += metrics.seconds, timed_tokens_ += metrics.step_tokens;
    const double speed = static_cast<double>(metrics.step_tokens) / metrics.seconds;
    if (metrics.step % options_.upkeep.log_every == 0) {
      Json line{{"step", metrics.step},
                {"tokens", metrics.tokens},
                {"loss", metrics.loss},
                {"lr", metrics.learning_rate},
                {"grad_norm", metrics.gradient_norm},
                {"l1", metrics.l1},
                {"penalty", l1_penalty(metrics.activity)},
                {"tokens_per_second", speed},
                {"fraction_of_peak", fraction_of_peak(speed)},
                {"seconds", state_.seconds}};
      add_activity(line, metrics.activity);
      metrics_->write(line);
    }
    tell(events_.on_step, metrics);
  }

  void evaluate_if_due() {
    const bool last = state_.step == state_.steps;  // evaluated again when a complete run is resumed: for the result
    const bool due = state_.step > 0 && state_.step % eval_every() == 0 && state_.evaluated_step != state_.step;
    if (!inputs_.data.held_out || !(last || due)) return;
    const bool again = state_.evaluated_step == state_.step;
    evaluation_ = evaluate();
    if (state_.best_step == 0 || evaluation_->loss < state_.best_loss)
      state_.best_loss = evaluation_->loss, state_.best_step = state_.step;
    state_.evaluated_step = state_.step;
    if (again) return;
    report(*evaluation_);
  }

  // What training from a model begins with: where its activation is another from now on, what that alone costs.
  void evaluate_beginning() {
    if (options_.sources.from.empty() || state_.step > 0 || !inputs_.data.held_out) return;
    const Evaluation evaluation = evaluate();
    state_.initial_loss = evaluation.loss;
    report(evaluation);
  }

  Evaluation evaluate() {
    Evaluation evaluation = trainer_->evaluate(inputs_.data.held_out(eval_tokens()), inputs_.data.token_bytes);
    if (!std::isfinite(evaluation.loss)) fail("train: held-out loss is {} after step {}", evaluation.loss, state_.step);
    return evaluation;
  }

  void report(const Evaluation& evaluation) {
    state_.seconds = seconds_before_ + clock_.seconds();
    Json line{
        {"step", state_.step}, {"tokens", state_.tokens}, {"valid_loss", evaluation.loss}, {"seconds", state_.seconds}};
    add_quality(line, evaluation);
    add_activity(line, evaluation.activity);
    metrics_->write(line);
    if (events_.on_evaluation) events_.on_evaluation(state_.step, evaluation);
  }

  void save() {
    checkpoint_ = save_checkpoint(options_.out, *trainer_, inputs_.tokenizer, state_, options_.upkeep.keep);
    tell(events_.on_checkpoint, *checkpoint_);
  }

  double fraction_of_peak(double tokens_per_second) const {
    if (peak_flops_ == 0) return 0;
    return tokens_per_second * training_flops_per_token(inputs_.config, options_.recipe.sequence) / peak_flops_;
  }

  RunInfo info() const {
    return {.parameters = parameter_count(inputs_.config),
            .train_tokens = inputs_.data.train_tokens,
            .valid_tokens = inputs_.data.held_out_tokens,
            .vocab = inputs_.config.vocab,
            .first_step = state_.step,
            .steps = state_.steps,
            .step_tokens = step_tokens(),
            .peak_flops = peak_flops_,
            .flops_per_token = training_flops_per_token(inputs_.config, options_.recipe.sequence),
            .config = inputs_.config};
  }

  RunResult summary() const {
    const double speed = timed_seconds_ > 0 ? static_cast<double>(timed_tokens_) / timed_seconds_ : 0;
    return {.stopped = state_.step < state_.steps,
            .step = state_.step,
            .steps = state_.steps,
            .tokens = state_.tokens,
            .task = options_.recipe.task,
            .loss = state_.loss,
            .initial_loss = state_.initial_loss,
            .evaluation = evaluation_,
            .seconds = state_.seconds,
            .tokens_per_second = speed,
            .fraction_of_peak = fraction_of_peak(speed),
            .parameters = parameter_count(inputs_.config),
            .peak_bytes = trainer_->memory_bytes(),
            .checkpoint = checkpoint_};
  }

  void write_manifest(const RunResult& result) const {
    Json manifest{{"environment", environment_json()},
                  {"sources", fields_to_json(options_.sources)},
                  {"recipe", fields_to_json(options_.recipe)},
                  {"activation", options_.activation},
                  {"upkeep", fields_to_json(options_.upkeep)},
                  {"config", to_json(trainer_->model().config)},
                  {"inputs",
                   {{"train_tokens", inputs_.data.train_tokens},
                    {"train_hash", fmt::format("{:016x}", state_.data_hash)},
                    {"valid_tokens", inputs_.data.held_out_tokens},
                    {"valid_hash", fmt::format("{:016x}", state_.valid_hash)},
                    {"tokenizer_hash", fmt::format("{:016x}", hash_text(inputs_.tokenizer.to_json()))}}},
                  {"peak_gflops", peak_flops_ / 1e9},
                  {"result", to_json(result)}};
    write_text(options_.out / "run.json", format_json(manifest, "run.json", 2) + "\n");
  }

  RunOptions options_;
  const RunEvents& events_;
  std::unique_ptr<Backend> backend_;
  Inputs inputs_;
  std::optional<Teacher> teacher_;
  std::optional<Trainer> trainer_;
  RunState state_;
  std::optional<MetricsFile> metrics_;
  std::optional<Evaluation> evaluation_;
  std::optional<fs::path> checkpoint_;
  double peak_flops_ = 0, seconds_before_ = 0, timed_seconds_ = 0;
  i64 first_step_ = 0, timed_tokens_ = 0;
  Stopwatch clock_;
};

bool holds_run(const fs::path& out) {
  return fs::exists(out / "config.json") || fs::exists(out / "model.safetensors") || newest_checkpoint(out);
}

}  // namespace

Json to_json(const RunResult& r) {
  Json json{{"step", r.step},
            {"steps", r.steps},
            {"tokens", r.tokens},
            {"loss", r.loss},
            {"seconds", r.seconds},
            {"tokens_per_second", r.tokens_per_second},
            {"fraction_of_peak", r.fraction_of_peak},
            {"parameters", r.parameters},
            {"peak_bytes", r.peak_bytes},
            {"stopped", r.stopped}};
  if (r.checkpoint) json["checkpoint"] = r.checkpoint->string();
  if (r.initial_loss != 0) {
    json["initial_validation"] = {{"loss", r.initial_loss}};
    if (r.task != Task::classify) json["initial_validation"]["perplexity"] = std::exp(r.initial_loss);
  }
  if (r.evaluation) {
    json["validation"] = {{"loss", r.evaluation->loss},
                          {r.task == Task::classify ? "texts" : "tokens", r.evaluation->tokens}};
    add_quality(json["validation"], *r.evaluation);
    add_activity(json["validation"], r.evaluation->activity);
  }
  return json;
}

RunResult start_run(const RunOptions& options, const RunEvents& events) {
  validate(options);
  const fs::path& out = options.out;
  if (fs::exists(out) && !fs::is_directory(out)) fail("{}: expected a directory or nothing", out.string());
  if (!options.overwrite && holds_run(out))
    fail_usage("{}: holds a model already; go on with --resume, or replace it with --overwrite", out.string());
  std::error_code error;
  if (!options.sources.from.empty() && fs::equivalent(options.sources.from, out, error))
    fail_usage("train: --from and --out are the same directory {}", out.string());
  fs::create_directories(out, error);
  if (error) fail("{}: cannot create directory: {}", out.string(), error.message());
  const DirectoryLock lock(out);
  Origin origin;
  if (!options.sources.from.empty()) {
    const bool keep = options.recipe.optimizer == OptimizerStart::keep;
    const fs::path from = keep ? directory_with_optimizer(options.sources.from) : fs::path(options.sources.from);
    origin.model = load_model(from, {.activation = options.activation});
    if (options.sources.tokenizer.empty()) origin.tokenizer = Tokenizer::load(from);
    if (keep) origin.optimizer = load_optimizer(from, origin.model->config);
  }
  if (origin.model && leaves_out(origin.model->config))
    fail_usage(
        "train: --from {} leaves neurons, keys or inputs out, by thresholds or blocks, which would not be trained; "
        "train the model before it",
        options.sources.from);
  Run run(options, events, std::move(origin));
  run.begin();
  return run.go();
}

namespace {

fs::path checkpoint_in(const fs::path& out) {
  const auto checkpoint = newest_checkpoint(out);
  if (!checkpoint) fail("{}: no checkpoint to resume from", out.string());
  return *checkpoint;
}

// Reads of a checkpoint. What is wrong with it is said together with the way out.
template <class F>
auto reading(const fs::path& checkpoint, F&& read) {
  try {
    return read();
  } catch (const Error& error) {
    fail("{}; the newest checkpoint {} is damaged: remove it to go on from the one before", error.what(),
         checkpoint.string());
  }
}

}  // namespace

RunOptions stored_options(const fs::path& out) {
  const fs::path checkpoint = checkpoint_in(out);
  const RunState state = reading(checkpoint, [&] { return read_state(checkpoint); });
  RunOptions options;
  options.sources = state.sources, options.architecture = state.architecture, options.recipe = state.recipe;
  options.activation = state.activation;
  options.out = out;
  return options;
}

void refuse_differences(const RunOptions& asked, const RunOptions& stored) {
  std::vector<std::string> differences;
  list_differences(asked.architecture, stored.architecture, differences);
  list_differences(asked.recipe, stored.recipe, differences);
  if (asked.sources.preset != stored.sources.preset)
    differences.push_back(fmt::format("--preset {} (the run has {})", asked.sources.preset, stored.sources.preset));
  if (!differences.empty())
    fail_usage("{}: --resume goes on with the run's own options, but was given {}", stored.out.string(),
               fmt::join(differences, ", "));
}

RunResult resume_run(const RunOptions& options, const RunEvents& events) {
  validate(options);
  const fs::path checkpoint = checkpoint_in(options.out);
  const DirectoryLock lock(options.out);
  const RunState state = reading(checkpoint, [&] { return read_state(checkpoint); });
  Origin origin = reading(checkpoint, [&] { return Origin{load_model(checkpoint), Tokenizer::load(checkpoint)}; });
  Run run(options, events, std::move(origin));
  run.require_inputs_of(checkpoint, state);
  reading(checkpoint, [&] { run.go_on_from(checkpoint, state); });
  return run.go();
}

}  // namespace sparsam
