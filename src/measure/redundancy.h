// How much each sublayer turns the residual stream: the less, the more redundant (He et al. 2024, arXiv 2406.15786,
// eq. 1-6; for blocks it is ShortGPT's block influence, arXiv 2403.03853).
//   score = 1 - mean_t cos(x_t, y_t)      cos(x, y) = x . y / max(|x| |y|, 1e-8)
// x: the stream before the sublayer, y: after it, norm and residual included; float32, summed in double precision.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "model/transformer.h"

namespace sparsam {

struct SublayerScore {
  i64 layer = 0;
  Sublayer kind = Sublayer::attention;
  double score = 0;
};
std::string_view name_of(Sublayer kind);                                     // "attention", "mlp", "block"
Sublayer sublayer_from_name(std::string_view name, std::string_view where);  // Error

struct RedundancyOptions {
  i64 context = 0;          // tokens of a window; 0: the model's, at most 2048
  i64 tokens = 65536;       // at most; 0: all of the text. Scores settle within a few windows (ibid., fig. 10)
  i64 batch_tokens = 4096;  // about how many go through the model at once
};

struct Redundancy {
  std::vector<SublayerScore> scores;  // by layer: attention, MLP (those that are there), block
  i64 tokens = 0, context = 0;
  double seconds = 0;
};
// One streaming pass over windows side by side, the last one perhaps shorter; every token counts. Nothing is added to
// the text. Errors: no tokens; a score that is not finite.
Redundancy measure_redundancy(const Transformer& model, std::span<const i32> tokens, const RedundancyOptions& options,
                              const std::function<void(double)>& progress = {});

double cosine(In<float, 1> u, In<float, 1> v);

}  // namespace sparsam
