// The cpu backend's kernels. Its overloads of run() are the list of what was worth speeding up: an operation without
// one runs in the reference. oneDNN does the matrix products (gemm.cpp alone), Highway the rest, on all threads.
#pragma once

#include "ops/cpu/workspace.h"
#include "ops/ops.h"

namespace sparsam::cpu {

void run(const Embedding& op, Workspace& workspace);
void run(const EmbeddingBackward& op, Workspace& workspace);
void run(const Distillation& op, Workspace& workspace);
void run(const LinearCrossEntropy& op, Workspace& workspace);
void run(const LinearCrossEntropyBackward& op, Workspace& workspace);
void run(const Matmul& op, Workspace& workspace);
void run(const MatmulBackwardInput& op, Workspace& workspace);
void run(const MatmulBackwardWeight& op, Workspace& workspace);
void run(const Add& op, Workspace& workspace);
void run(const Scale& op, Workspace& workspace);
void run(const Activation& op, Workspace& workspace);
void run(const ActivationBackward& op, Workspace& workspace);
void run(const AdamW& op, Workspace& workspace);
void run(const Attention& op, Workspace& workspace);
void run(const AttentionBackward& op, Workspace& workspace);
void run(const CacheAppend& op, Workspace& workspace);
void run(const CachedAttention& op, Workspace& workspace);
void run(const CausalConvolution& op, Workspace& workspace);
void run(const CausalConvolutionBackward& op, Workspace& workspace);
void run(const ChooseBlocks& op, Workspace& workspace);
void run(const Delay& op, Workspace& workspace);
void run(const DelayBackward& op, Workspace& workspace);
void run(const GatedProduct& op, Workspace& workspace);
void run(const GatedProductBackward& op, Workspace& workspace);
void run(const HeadLinear& op, Workspace& workspace);
void run(const HeadLinearBackward& op, Workspace& workspace);
void run(const HeadMix& op, Workspace& workspace);
void run(const HeadMixBackward& op, Workspace& workspace);
void run(const HeadScale& op, Workspace& workspace);
void run(const HeadScaleBackward& op, Workspace& workspace);
void run(const L1Norm& op, Workspace& workspace);
void run(const L1NormBackward& op, Workspace& workspace);
void run(const LayerNorm& op, Workspace& workspace);
void run(const LayerNormBackward& op, Workspace& workspace);
void run(const LogDecay& op, Workspace& workspace);
void run(const LogDecayBackward& op, Workspace& workspace);
void run(const LogAttention& op, Workspace& workspace);
void run(const LogAttentionBackward& op, Workspace& workspace);
void run(const LogAttentionStep& op, Workspace& workspace);
void run(const LogRecurrence& op, Workspace& workspace);
void run(const LogRecurrenceBackward& op, Workspace& workspace);
void run(const RmsNorm& op, Workspace& workspace);
void run(const RmsNormBackward& op, Workspace& workspace);
void run(const Rope& op, Workspace& workspace);
void run(const SelectedMatmul& op, Workspace& workspace);
void run(const SkippingMatmul& op, Workspace& workspace);
void run(const SquaredNorm& op, Workspace& workspace);
void run(const TokenScores& op, Workspace& workspace);
void run(const TokenScoresBackward& op, Workspace& workspace);
void run(const Truncate& op, Workspace& workspace);

}  // namespace sparsam::cpu
