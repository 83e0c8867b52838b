#include "train/activity.h"

#include <algorithm>
#include <numeric>

namespace sparsam {

double mean_over(const std::vector<LayerActivity>& layers, double LayerActivity::*part) {
  double sum = 0;
  for (const LayerActivity& layer : layers) sum += layer.*part;
  return layers.empty() ? 0 : sum / static_cast<double>(layers.size());
}

double l1_penalty(const std::vector<LayerActivity>& layers) {
  return mean_over(layers, &LayerActivity::mean_abs) * static_cast<double>(layers.size());
}

ActivityCounter::ActivityCounter(const Config& config) {
  for (size_t l = 0; l < config.layers.size(); ++l)
    if (has_mlp(config.layers[l]) && !std::holds_alternative<ParameterTokens>(config.layers[l].mlp))
      counts_.push_back({.layer = static_cast<i64>(l), .active = {}});
}

void ActivityCounter::add(const Activations& kept, Backend& backend, Arena& arena) {
  for (Counts& counts : counts_) {
    const In<float, 2> h = kept.layers[static_cast<size_t>(counts.layer)].mlp.h;
    const Arena::Mark mark = arena.mark();
    const auto norm = arena.allocate<float>(1), active = arena.zeros<float>(h.shape(1));
    for_each_run(kept.tokens.sequences, kept.tokens.length(), kept.tokens.lengths, [&](const SequenceRun& run) {
      const In<float, 2> rows = h.slice(run.first, run.sequences * run.length);
      backend.run(L1Norm{.norm = norm, .active = active, .h = rows});
      counts.tokens += rows.shape(0);
      counts.norm += static_cast<double>(norm[0]);
    });
    counts.active.resize(static_cast<size_t>(h.shape(1)));
    for (i64 i = 0; i < h.shape(1); ++i) counts.active[static_cast<size_t>(i)] += static_cast<double>(active[i]);
    arena.release(mark);
  }
}

void ActivityCounter::clear() {
  for (Counts& counts : counts_) counts = {.layer = counts.layer, .active = {}};
}

std::vector<LayerActivity> ActivityCounter::layers() const {
  std::vector<LayerActivity> result;
  for (const Counts& counts : counts_) {
    const double neurons = static_cast<double>(counts.active.size());
    const double all = std::max(neurons * static_cast<double>(counts.tokens), 1.0);
    const double active = std::accumulate(counts.active.begin(), counts.active.end(), 0.0);
    const auto dead = std::count(counts.active.begin(), counts.active.end(), 0.0);
    result.push_back({.layer = counts.layer,
                      .activation_ratio = active / all,
                      .dead_neurons = static_cast<double>(dead) / std::max(neurons, 1.0),
                      .mean_abs = counts.norm / all});
  }
  return result;
}

}  // namespace sparsam
