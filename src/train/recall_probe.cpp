#include "train/recall_probe.h"

#include "base/clock.h"
#include "text/recall.h"

namespace sparsam {

RecallResult probe_recall(const RecallProbe& probe, Backend& backend,
                          const std::function<void(const StepMetrics&, i64 steps)>& progress) {
  const Stopwatch clock;
  if (probe.pairs < least_recall_pairs || probe.pairs > most_recall_pairs)
    fail_usage("--pairs is {}, expected {} to {}", probe.pairs, least_recall_pairs, most_recall_pairs);
  Recipe recipe = probe.recipe;
  const i64 least = recall_length(probe.pairs);
  if (recipe.sequence == 0) recipe.sequence = least;
  if (recipe.sequence < least)
    fail_usage("--sequence is {}, expected at least {}: {} pairs and their questions", recipe.sequence, least,
               probe.pairs);
  Architecture architecture = probe.architecture;
  architecture.vocab = recall_vocab, architecture.context = recipe.sequence;
  const Config config = make_config(architecture);
  const auto specs = parameter_specs(config);
  auto weights = std::make_shared<FlatParams>(specs);
  initialize(specs, weights->views, static_cast<u64>(recipe.seed));
  Trainer trainer(config, weights, recipe, backend);
  const i64 steps = recipe.steps > 0 ? recipe.steps : std::max<i64>(1, recipe.tokens / trainer.step_tokens());
  const Schedule schedule = schedule_of(recipe, steps);
  const std::vector<i64> mixture = recall_mixture(probe.pairs);
  const u64 seed = static_cast<u64>(recipe.seed);
  const SampleSource samples = recall_samples(2 * seed, mixture, recipe.sequence, 0).read;
  RecallResult result{.parameters = parameter_count(config), .steps = steps, .length = recipe.sequence};
  for (i64 step = 1; step <= steps; ++step) {
    const StepMetrics metrics = trainer.step(samples, schedule.learning_rate(step));
    result.loss = metrics.loss, result.tokens = metrics.tokens;
    if (progress) progress(metrics, steps);
  }
  const Transformer model(trainer.model(), backend, Compute::f32, recipe.sequence);
  for (const i64 pairs : mixture)
    result.accuracies.push_back(measure_recall(model, 2 * seed + 1, pairs, recipe.sequence, probe.sequences));
  result.seconds = clock.seconds();
  return result;
}

}  // namespace sparsam
