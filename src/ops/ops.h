// The contract between the model and a device: every operation, and the one function a backend has. Letters, for every
// shape in the sources: B batch, T time, N rows (B T), C channels, H heads, G key-value heads, D head size, F hidden,
// V vocabulary, L layers, R rotary channels, P positions. The gradient of x is dx.
// Each operation lists its members once: O::fields(f, op...) calls f(name, member...) for every member, with the same
// member of each op given. What runs for all operations (decorators, tests) is written once through that list.
#pragma once

#include <memory>
#include <string_view>
#include <variant>
#include <vector>

#include "ops/activation.h"
#include "ops/add.h"
#include "ops/attention.h"
#include "ops/causal_convolution.h"
#include "ops/choose_blocks.h"
#include "ops/cross_entropy.h"
#include "ops/distillation.h"
#include "ops/embedding.h"
#include "ops/heads.h"
#include "ops/l1_norm.h"
#include "ops/layer_norm.h"
#include "ops/log_attention.h"
#include "ops/log_recurrence.h"
#include "ops/matmul.h"
#include "ops/optimizer.h"
#include "ops/rms_norm.h"
#include "ops/rope.h"
#include "ops/scale.h"
#include "ops/sequence_mean.h"
#include "ops/sparse_matmul.h"
#include "ops/token_scores.h"
#include "ops/truncate.h"

namespace sparsam {

using Op = std::variant<Embedding, EmbeddingBackward, RmsNorm, RmsNormBackward, LayerNorm, LayerNormBackward, Matmul,
                        MatmulBackwardInput, MatmulBackwardWeight, Rope, Attention, AttentionBackward, CacheAppend,
                        CachedAttention, Activation, ActivationBackward, GatedProduct, GatedProductBackward, Add, Scale,
                        LinearCrossEntropy, LinearCrossEntropyBackward, Distillation, SquaredNorm, AdamW, Truncate,
                        ChooseBlocks, SelectedMatmul, SkippingMatmul, L1Norm, L1NormBackward, SequenceMean,
                        SequenceMeanBackward, TokenScores, TokenScoresBackward, LogAttention, LogAttentionBackward,
                        LogAttentionStep, CausalConvolution, CausalConvolutionBackward, HeadScale, HeadScaleBackward,
                        HeadMix, HeadMixBackward, LogDecay, LogDecayBackward, HeadLinear, HeadLinearBackward, Delay,
                        DelayBackward, LogRecurrence, LogRecurrenceBackward>;

class Backend {
 public:
  virtual ~Backend() = default;
  virtual void run(const Op& op) = 0;  // shapes are checked first: a wrong one aborts (check())
};

inline std::string_view name_of(const Op& op) {
  return std::visit([](const auto& o) -> std::string_view { return o.name; }, op);
}
inline i64 flops(const Op& op) {
  return std::visit([](const auto& o) { return o.flops(); }, op);
}
// Bytes that the operation must at least move: each operand once, accumulated ones twice.
i64 bytes(const Op& op);

// "cpu" (fast; falls back to the reference where it has no kernel) or "reference". An unknown name is an Error.
std::unique_ptr<Backend> make_backend(std::string_view name);
// Operations that the cpu backend has kernels for; the rest run in the reference.
std::vector<std::string_view> accelerated_operations();
// Instruction sets that those kernels are compiled for and this processor has, best first; the first is used.
std::vector<std::string> instruction_sets();

}  // namespace sparsam
