// sparsam train
#include <fmt/format.h>

#include <cmath>
#include <cstdio>
#include <memory>

#include "base/interrupt.h"
#include "base/progress.h"
#include "cli/field_flags.h"
#include "train/run.h"

namespace sparsam {

namespace {

std::string activity_text(const std::vector<LayerActivity>& layers) {
  if (layers.empty()) return "no MLP";
  return fmt::format("{:.1f} % active, {:.1f} % dead", 100 * mean_over(layers, &LayerActivity::activation_ratio),
                     100 * mean_over(layers, &LayerActivity::dead_neurons));
}

std::string quality_text(const Evaluation& e) {
  std::string quality = fmt::format("perplexity {:.2f}", e.perplexity());
  if (e.bytes > 0) quality += fmt::format(", {:.4f} bits per byte", e.bits_per_byte());
  if (e.confusion)
    quality = fmt::format("accuracy {:.2f} %, macro F1 {:.4f}", 100 * e.confusion->accuracy(), e.confusion->macro_f1());
  return fmt::format("loss {:.4f}, {}; {}", e.loss, quality, activity_text(e.activity));
}

// What is reported while the run goes.
class Reporter {
 public:
  explicit Reporter(bool quiet) : quiet_(quiet), progress_("train", quiet) {}

  RunEvents events() {
    RunEvents e;
    e.on_stage = [this](std::string_view stage) { line("{} ...", stage); };
    e.on_note = [this](std::string_view note) { line("note: {}", note); };
    e.on_start = [this](const RunInfo& info) { start(info); };
    e.on_step = [this](const StepMetrics& metrics) { step(metrics); };
    e.on_evaluation = [this](i64 step, const Evaluation& evaluation) {
      line("step {}: held-out {}", step, quality_text(evaluation));
    };
    e.on_checkpoint = [this](const fs::path& path) { line("saved {}", path.string()); };
    e.stop = [] { return interrupted(); };
    return e;
  }
  template <class... A>
  void line(fmt::format_string<A...> text, A&&... arguments) {
    if (quiet_) return;
    progress_.finish();
    fmt::print(stderr, "{}\n", fmt::format(text, std::forward<A>(arguments)...));
  }

 private:
  void start(const RunInfo& info) {
    info_ = info;
    line("{} parameters, vocabulary {}, {} training and {} held-out tokens",
         format_count(static_cast<double>(info.parameters)), info.vocab,
         format_count(static_cast<double>(info.train_tokens)), format_count(static_cast<double>(info.valid_tokens)));
    line("steps {} to {} of {} tokens{}", info.first_step + 1, info.steps,
         format_count(static_cast<double>(info.step_tokens)),
         info.peak_flops > 0 ? fmt::format("; this machine's matrix products: {:.0f} GFLOP/s", info.peak_flops / 1e9)
                             : std::string());
    progress_ = Progress("train", quiet_);
  }

  void step(const StepMetrics& metrics) {
    const double speed = static_cast<double>(metrics.step_tokens) / metrics.seconds;
    speed_ = speed_ == 0 ? speed : 0.9 * speed_ + 0.1 * speed;
    std::string text = fmt::format("step {}  loss {:.3f}", metrics.step, metrics.loss);
    if (!metrics.activity.empty())
      text += fmt::format("  {:.1f} % active", 100 * mean_over(metrics.activity, &LayerActivity::activation_ratio));
    text += fmt::format("  {} tokens/s", format_count(speed_));
    if (info_.peak_flops > 0)
      text += fmt::format("  {:.0f} % of peak", 100 * speed_ * info_.flops_per_token / info_.peak_flops);
    const double done = static_cast<double>(metrics.step - info_.first_step);
    progress_.update(done / static_cast<double>(info_.steps - info_.first_step), text);
  }

  bool quiet_;
  Progress progress_;
  RunInfo info_;
  double speed_ = 0;
};

void print_result(const RunResult& r, const fs::path& out) {
  fmt::print("model             {}\n", out.string());
  fmt::print("parameters        {}\n", format_count(static_cast<double>(r.parameters)));
  fmt::print("steps             {} ({} tokens, {})\n", r.step, format_count(static_cast<double>(r.tokens)),
             format_duration(r.seconds));
  fmt::print("training loss     {:.4f}\n", r.loss);
  if (r.initial_loss != 0)
    fmt::print("held-out at first loss {:.4f}{}\n", r.initial_loss,
               r.task == Task::classify ? "" : fmt::format(", perplexity {:.2f}", std::exp(r.initial_loss)));
  if (r.evaluation) fmt::print("held-out          {}\n", quality_text(*r.evaluation));
  if (r.tokens_per_second > 0)
    fmt::print("speed             {} tokens/s, {:.1f} % of the matrix-product peak\n",
               format_count(r.tokens_per_second), 100 * r.fraction_of_peak);
  fmt::print("memory            {}\n", format_bytes(static_cast<double>(r.peak_bytes)));
}

// As a shell reads it.
std::string quoted(const std::string& text) {
  if (!text.empty() &&
      text.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-+=:,@") ==
          std::string::npos)
    return text;
  std::string result = "'";
  for (const char c : text) result += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return result + "'";
}

struct TrainFlags {
  std::function<void(Sources&)> sources;
  std::function<void(Architecture&)> architecture;
  std::function<void(Recipe&)> recipe;
  std::function<void(Upkeep&)> upkeep;
  std::string out;
  bool resume = false, overwrite = false;
  CLI::Option *seed = nullptr, *threads = nullptr, *vocab = nullptr;
  CLI::Option *activation = nullptr, *activation_threshold = nullptr, *activate_up = nullptr;

  void apply(RunOptions& options, const Common& common) const {
    sources(options.sources), architecture(options.architecture), recipe(options.recipe), upkeep(options.upkeep);
    if (seed->count() > 0) options.recipe.seed = static_cast<i64>(common.seed);
  }
  // What the flags make of the activation of --from, as LoadOptions names it; empty: they do not change it.
  std::string substitution(const Architecture& given) const {
    const bool threshold = activation_threshold->count() > 0, up = activate_up->count() > 0 && given.activate_up;
    if (activation->count() == 0) {
      if (threshold || up)
        fail_usage("train: --from with {} needs --activation {}",
                   threshold ? "--activation-threshold" : "--activate-up", threshold ? "fatrelu" : "relu");
      return {};
    }
    if (up && given.activation != Function::relu)
      fail_usage("train: --from with --activate-up needs --activation relu, was given {}", name_of(given.activation));
    if (threshold != (given.activation == Function::fatrelu))
      fail_usage("train: --activation {} {} --activation-threshold", name_of(given.activation),
                 threshold ? "has no" : "needs its");
    if (up) return "drelu";
    return threshold ? fmt::format("fatrelu:{}", given.activation_threshold) : std::string(name_of(given.activation));
  }
};

RunOptions options_of(const TrainFlags& flags, const Common& common) {
  if (flags.out.empty()) fail_usage("train: give --out, the directory for the model");
  if (flags.resume) {
    const RunOptions stored = stored_options(flags.out);
    RunOptions options = stored;
    flags.apply(options, common);
    refuse_differences(options, stored);
    return options;
  }
  Sources sources;
  flags.sources(sources);
  if (sources.preset.empty() && sources.from.empty())
    fail_usage("train: give --preset ({}), --from MODEL or --resume", fmt::join(preset_names(), ", "));
  RunOptions options =
      sources.from.empty() ? RunOptions::of_preset(sources.preset) : RunOptions::of_model(sources.from);
  flags.apply(options, common);
  if (options.recipe.tokens == 0 && options.recipe.steps == 0 && options.recipe.epochs == 0 &&
      options.recipe.minutes == 0)
    fail_usage("train: give --tokens, --steps, --epochs or --minutes: how long to train");
  Architecture unchanged = RunOptions().architecture, shape = unchanged;
  flags.architecture(shape);
  if (!sources.from.empty()) {
    options.activation = flags.substitution(shape);
    shape.activation = unchanged.activation, shape.activation_threshold = unchanged.activation_threshold;
    shape.activate_up = unchanged.activate_up;
  }
  std::vector<std::string> changes;
  list_differences(shape, unchanged, changes);
  if (!sources.from.empty() && !changes.empty())
    fail_usage("train: --from has a shape already; leave out {}", fmt::join(changes, ", "));
  if (!sources.tokenizer.empty() && flags.vocab->count() > 0)
    fail_usage("train: --tokenizer has a vocabulary already; leave out --vocab");
  options.out = flags.out;
  options.overwrite = flags.overwrite;
  return options;
}

Exit run_train(const TrainFlags& flags, const Common& common) {
  const RunOptions options = options_of(flags, common);
  install_interrupt_handler();
  Reporter reporter(common.quiet);
  const RunEvents events = reporter.events();
  const RunResult result = flags.resume ? resume_run(options, events) : start_run(options, events);
  if (common.json)
    print_json(to_json(result));
  else if (!result.stopped)
    print_result(result, options.out);
  if (!result.stopped) return Exit::done;
  const std::string threads = flags.threads->count() > 0 ? fmt::format(" --threads {}", common.threads) : std::string();
  if (result.checkpoint)
    fmt::print(stderr, "stopped after step {} of {}; to go on: sparsam train --resume --out {}{}\n", result.step,
               result.steps, quoted(options.out.string()), threads);
  else
    fmt::print(stderr, "stopped before the first step; nothing was saved\n");
  return interrupted() ? interrupt_exit_code() : Exit::done;
}

}  // namespace

void add_train(CLI::App& program, Command& command) {
  CLI::App* app = add_verb(program, command, "train", "train a model on text");
  const auto flags = std::make_shared<TrainFlags>();
  flags->seed = app->get_option("--seed"), flags->threads = app->get_option("--threads");
  app->add_option("--out", flags->out, "directory for the model, its checkpoints and metrics");
  app->add_flag("--resume", flags->resume, "go on from the newest checkpoint in --out, with the options of that run");
  app->add_flag("--overwrite", flags->overwrite, "replace the model in --out");
  flags->sources = add_fields<Sources>(*app, "Model and data");
  flags->recipe = add_fields<Recipe>(*app, "Training");
  flags->upkeep = add_fields<Upkeep>(*app, "Evaluation and checkpoints");
  flags->architecture = add_fields<Architecture>(*app, "Shape of a new model (over the preset's)");
  flags->vocab = app->get_option("--vocab"), flags->activation = app->get_option("--activation");
  flags->activation_threshold = app->get_option("--activation-threshold");
  flags->activate_up = app->get_option("--activate-up");
  add_example(app,
              "sparsam train --preset mini --data text.txt --minutes 10 --out model\n"
              "  sparsam train --resume --out model");
  on_chosen(app, command, [flags, &command] { return run_train(*flags, command.common); });
}

}  // namespace sparsam
