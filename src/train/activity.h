// How active the neurons of the MLPs are over the tokens of a training step or of an evaluation. A neuron is inactive
// where h is exactly 0: relu and its kin do that; smooth functions do not, and count as active though much of h is
// small (measure/activation_sparsity.h judges those by what they contribute).
#pragma once

#include <vector>

#include "model/transformer.h"

namespace sparsam {

struct LayerActivity {
  i64 layer = 0;
  double activation_ratio = 0;  // share of h that is not 0
  double dead_neurons = 0;      // share of neurons that none of the tokens activates
  double mean_abs = 0;          // mean over tokens and neurons of |h|

  static void fields(auto&& f, auto&... a) {
    f("layer", "index of the layer", a.layer...);
    f("activation_ratio", "share of the MLP's hidden activations that is not exactly 0", a.activation_ratio...);
    f("dead_neurons", "share of the MLP's neurons that no token activates", a.dead_neurons...);
    f("mean_abs", "mean over tokens and neurons of the absolute hidden activation", a.mean_abs...);
  }
};
double mean_over(const std::vector<LayerActivity>& layers, double LayerActivity::*part);  // 0 for no layers
// What the weight of the L1 penalty multiplies: sum over layers of mean_abs.
double l1_penalty(const std::vector<LayerActivity>& layers);

class ActivityCounter {
 public:
  explicit ActivityCounter(const Config& config);
  void add(const Activations& kept, Backend& backend, Arena& arena);  // the tokens of one forward pass
  void clear();
  std::vector<LayerActivity> layers() const;  // those that have an MLP

 private:
  struct Counts {
    i64 layer = 0, tokens = 0;
    double norm = 0;
    std::vector<double> active;  // (F) tokens that activate each neuron
  };
  std::vector<Counts> counts_;
};

}  // namespace sparsam
