// sparsam recall: what a shape can recall.
#include "base/progress.h"
#include "cli/field_flags.h"
#include "train/recall_probe.h"

namespace sparsam {

namespace {

struct RecallFlags {
  std::string preset = "nano";
  std::function<void(Architecture&)> architecture;
  std::function<void(Recipe&)> recipe;
  i64 pairs = RecallProbe().pairs, sequences = RecallProbe().sequences;
  bool curriculum = false;
};

Exit run_recall(const RecallFlags& flags, const Common& common) {
  const RunOptions options = RunOptions::of_preset(flags.preset);
  RecallProbe probe{options.architecture, options.recipe, flags.pairs, flags.sequences, flags.curriculum};
  flags.architecture(probe.architecture), flags.recipe(probe.recipe);
  probe.recipe.seed = static_cast<i64>(common.seed);
  const Recipe& recipe = probe.recipe;
  if ((recipe.steps == 0 && recipe.tokens == 0) || recipe.minutes > 0 || recipe.epochs > 0)
    fail_usage("recall: give --steps or --tokens: its sequences never come again");
  RunOptions checked = options;
  checked.recipe = probe.recipe, checked.out = "none";
  validate(checked);
  if (probe.recipe.task != Task::language) fail_usage("recall is a task of its own: give it without --task");
  const auto backend = make_backend("cpu");
  Progress progress("recall", common.quiet);
  const RecallResult result = probe_recall(probe, *backend, [&](const StepMetrics& metrics, i64 steps) {
    progress.update(static_cast<double>(metrics.step) / static_cast<double>(steps),
                    fmt::format("step {}  loss {:.3f}", metrics.step, metrics.loss));
  });
  if (common.json) {
    Json accuracies = Json::array();
    for (const RecallAccuracy& a : result.accuracies)
      accuracies.push_back({{"pairs", a.pairs}, {"asked", a.asked}, {"right", a.right}, {"accuracy", a.accuracy()}});
    print_json({{"parameters", result.parameters},
                {"steps", result.steps},
                {"tokens", result.tokens},
                {"sequence", result.length},
                {"loss", result.loss},
                {"recall", accuracies},
                {"seconds", result.seconds}});
    return Exit::done;
  }
  progress.finish();
  fmt::print("{} parameters, {} steps of sequences of {} tokens, loss {:.4f}\n",
             format_count(static_cast<double>(result.parameters)), result.steps, result.length, result.loss);
  for (const RecallAccuracy& a : result.accuracies)
    fmt::print("{:>4} pairs  {:>6.1f} % right\n", a.pairs, 100 * a.accuracy());
  return Exit::done;
}

}  // namespace

void add_recall(CLI::App& program, Command& command) {
  const auto flags = std::make_shared<RecallFlags>();
  CLI::App* verb =
      add_verb(program, command, "recall", "what a shape can recall: trains it on associative recall and asks");
  verb->add_option("--preset", flags->preset, "shape to begin with, as of train")->capture_default_str();
  verb->add_option("--pairs", flags->pairs, "pairs of a sequence at most: 4, 8, ... and so many are mixed")
      ->capture_default_str();
  verb->add_option("--sequences", flags->sequences, "sequences of each number of pairs to judge by")
      ->check(in_range(1, i64{1} << 20))
      ->capture_default_str();
  verb->add_flag("--curriculum", flags->curriculum, "begin with the fewest pairs in the shortest sequences");
  flags->recipe = add_fields<Recipe>(*verb, "Training");
  flags->architecture = add_fields<Architecture>(*verb, "Shape (over the preset's)");
  add_example(verb, "sparsam recall --layers 2 --dim 64 --heads 2 --mixer lse --decay --steps 2000");
  on_chosen(verb, command, [flags, &command] { return run_recall(*flags, command.common); });
}

}  // namespace sparsam
