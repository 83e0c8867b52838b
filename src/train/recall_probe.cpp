#include "train/recall_probe.h"

#include "base/clock.h"
#include "text/recall.h"

namespace sparsam {

namespace {

// The samples of S parts of the training, one for each number of pairs: part i mixes the i + 1 least, in sequences as
// short as they allow, the last part in those of full length.
std::vector<SampleSource> parts_of(u64 seed, const std::vector<i64>& pairs, i64 length) {
  std::vector<SampleSource> parts;
  for (auto end = pairs.begin() + 1; end <= pairs.end(); ++end)
    parts.push_back(
        recall_samples(seed, {pairs.begin(), end}, end == pairs.end() ? length : recall_length(*(end - 1)), 0).read);
  return parts;
}

}  // namespace

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
  const std::vector<SampleSource> parts = parts_of(2 * seed, mixture, recipe.sequence);
  const auto part_of = [&](i64 step) {
    return probe.curriculum ? static_cast<size_t>((step - 1) * static_cast<i64>(parts.size()) / steps)
                            : parts.size() - 1;
  };
  RecallResult result{.parameters = parameter_count(config), .steps = steps, .length = recipe.sequence};
  for (i64 step = 1; step <= steps; ++step) {
    const StepMetrics metrics = trainer.step(parts[part_of(step)], schedule.learning_rate(step));
    result.loss = metrics.loss, result.tokens += metrics.step_tokens;
    if (progress) progress(metrics, steps);
  }
  const Transformer model(trainer.model(), backend, Compute::f32, recipe.sequence);
  for (const i64 pairs : mixture)
    result.accuracies.push_back(measure_recall(model, 2 * seed + 1, pairs, recipe.sequence, probe.sequences));
  result.seconds = clock.seconds();
  return result;
}

}  // namespace sparsam
