// The reference backend: each operation in plain loops beside its formula, sums in double. Real is float, double (which
// proves the gradients by central differences) or Bounded (which gives the tolerance of a fast kernel: bounded.h).
#pragma once

#include "ops/ops.h"

namespace sparsam::reference {

// clang-format off
template <class Real> void run(const generic::Embedding<Real>& op);
template <class Real> void run(const generic::EmbeddingBackward<Real>& op);
template <class Real> void run(const generic::RmsNorm<Real>& op);
template <class Real> void run(const generic::RmsNormBackward<Real>& op);
template <class Real> void run(const generic::LayerNorm<Real>& op);
template <class Real> void run(const generic::LayerNormBackward<Real>& op);
template <class Real> void run(const generic::Matmul<Real>& op);
template <class Real> void run(const generic::MatmulBackwardInput<Real>& op);
template <class Real> void run(const generic::MatmulBackwardWeight<Real>& op);
template <class Real> void run(const generic::Rope<Real>& op);
template <class Real> void run(const generic::Attention<Real>& op);
template <class Real> void run(const generic::AttentionBackward<Real>& op);
template <class Real> void run(const generic::CacheAppend<Real>& op);
template <class Real> void run(const generic::CachedAttention<Real>& op);
template <class Real> void run(const generic::Activation<Real>& op);
template <class Real> void run(const generic::ActivationBackward<Real>& op);
template <class Real> void run(const generic::GatedProduct<Real>& op);
template <class Real> void run(const generic::GatedProductBackward<Real>& op);
template <class Real> void run(const generic::Add<Real>& op);
template <class Real> void run(const generic::Scale<Real>& op);
template <class Real> void run(const generic::LinearCrossEntropy<Real>& op);
template <class Real> void run(const generic::LinearCrossEntropyBackward<Real>& op);
template <class Real> void run(const generic::Distillation<Real>& op);
template <class Real> void run(const generic::SquaredNorm<Real>& op);
template <class Real> void run(const generic::AdamW<Real>& op);
template <class Real> void run(const generic::Truncate<Real>& op);
template <class Real> void run(const generic::ChooseBlocks<Real>& op);
template <class Real> void run(const generic::SelectedMatmul<Real>& op);
template <class Real> void run(const generic::SkippingMatmul<Real>& op);
template <class Real> void run(const generic::TokenScores<Real>& op);
template <class Real> void run(const generic::TokenScoresBackward<Real>& op);
template <class Real> void run(const generic::L1Norm<Real>& op);
template <class Real> void run(const generic::L1NormBackward<Real>& op);
template <class Real> void run(const generic::SequenceMean<Real>& op);
template <class Real> void run(const generic::SequenceMeanBackward<Real>& op);
template <class Real> void run(const generic::LogAttention<Real>& op);
template <class Real> void run(const generic::LogAttentionBackward<Real>& op);
template <class Real> void run(const generic::LogAttentionStep<Real>& op);
template <class Real> void run(const generic::CausalConvolution<Real>& op);
template <class Real> void run(const generic::CausalConvolutionBackward<Real>& op);
template <class Real> void run(const generic::HeadScale<Real>& op);
template <class Real> void run(const generic::HeadScaleBackward<Real>& op);
template <class Real> void run(const generic::HeadMix<Real>& op);
template <class Real> void run(const generic::HeadMixBackward<Real>& op);
template <class Real> void run(const generic::LogDecay<Real>& op);
template <class Real> void run(const generic::LogDecayBackward<Real>& op);
template <class Real> void run(const generic::HeadLinear<Real>& op);
template <class Real> void run(const generic::HeadLinearBackward<Real>& op);
template <class Real> void run(const generic::Delay<Real>& op);
template <class Real> void run(const generic::DelayBackward<Real>& op);
template <class Real> void run(const generic::LogRecurrence<Real>& op);
template <class Real> void run(const generic::LogRecurrenceBackward<Real>& op);
// clang-format on

}  // namespace sparsam::reference
