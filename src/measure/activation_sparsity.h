// How few neurons of the MLPs, and how few parameter tokens, a text needs (the sparsing law, Luo et al. 2024, arXiv
// 2411.02335, section 3). For tokens read: h = s, the scores, and Wdown = V; each projection is a layer of its own.
//   neuron i of a layer contributes n_i = h_i Wdown[:, i]; it is left out when |n_i| < threshold
//   CETT(threshold) = mean over tokens of |sum of what is left out| / |sum of all|  (cumulative errors of tail
//   truncation) sparsity(threshold) = mean over tokens of the fraction left out
// One global CETT decides the threshold of every layer. The published procedure repeats the dense pass for each
// threshold; here neurons are sorted into the intervals of an ascending list of thresholds, so that one dense pass
// gives the whole curve of every layer.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "model/neuron_sites.h"
#include "model/transformer.h"

namespace sparsam {

// What one layer's MLP, or one projection's parameter tokens, do as a function of their threshold.
struct LayerCurve {
  i64 layer = 0;
  double exact_zeros = 0;  // fraction of neurons with h_i = 0
  double gate_zeros = 0;   // fraction that the gate alone decides: f(gate_i) = 0; 0 in a plain MLP, which has no gate
  std::vector<float> thresholds;       // (K)  ascending, the first just above 0
  std::vector<double> cett, sparsity;  // (K)
  SitePlace place = SitePlace::mlp;

  // The greatest threshold whose CETT is at most `cett`, between the K by interpolation on logarithmic axes.
  float threshold_at(double cett) const;
};

struct ActivationProfile {
  std::vector<LayerCurve> layers;  // one a site, in the order of neuron_sites()
  i64 tokens = 0;
  double seconds = 0;
  double exact_zeros() const;  // mean over sites
  double gate_zeros() const;
};

struct ProfileOptions {
  i64 context = 0;                          // tokens of a window; 0: the model's, at most 2048
  i64 tokens = 16384;                       // at most; 0: all of the text
  i64 thresholds = 4096;                    // on a logarithmic axis, for each site its own
  std::vector<std::vector<float>> at = {};  // of each site; or these, ascending
};
// One dense pass over windows side by side. Errors: no tokens, no neurons in the model, an activation that is not
// finite.
ActivationProfile profile_activations(const Transformer& model, std::span<const i32> tokens,
                                      const ProfileOptions& options, const std::function<void(double)>& progress = {});

}  // namespace sparsam
