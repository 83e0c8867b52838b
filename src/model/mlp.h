// The MLP sublayer, plain or gated, or parameter tokens in its place: branch = Theta(n K^T) V.
//   n = norm(x)   plain: h = f(n Wup^T)   gated: h = f(n Wgate^T) * g(n Wup^T)   [h = norm(h)]   branch = h Wdown^T
#pragma once

#include "model/parameter_tokens.h"
#include "model/sparse_layers.h"

namespace sparsam {

struct MlpActivations {
  NormActivations norm;
  Out<float, 2> gate, up, h;  // (N, F)  gate: gated only
  NormActivations inner;      // (N, F)  of h, where there is an inner norm
  TokenActivations tokens;    // where these are the whole feed-forward
};

// Return the branch (N, C), to be added to x. `sparse` may be null; with it neurons and small inputs are left out, and
// where it holds transposed weights, what belongs to zeros is not read for few rows (decoding).
Out<float, 2> mlp_forward(const Execution& e, const Mlp& mlp, const MlpParams<Matrix>& w, In<float, 2> x,
                          MlpActivations& kept, const SparseLayer* sparse);
Out<float, 2> mlp_forward(const Execution& e, const GatedMlp& mlp, const MlpParams<Matrix>& w, In<float, 2> x,
                          MlpActivations& kept, const SparseLayer* sparse);
Out<float, 2> mlp_forward(const Execution& e, const ParameterTokens& tokens, const MlpParams<Matrix>& w, In<float, 2> x,
                          MlpActivations& kept, const SparseLayer* sparse);
// dx += the gradient through the branch, given dbranch (N, C); weight gradients are summed into dw. The loss has the
// summand l1 sum_n mean_i |h_ni| beside what dbranch comes from (ops/l1_norm.h); parameter tokens have no h.
void mlp_backward(const Execution& e, const Mlp& mlp, const MlpParams<Matrix>& w, const MlpParams<Out<float, 2>>& dw,
                  const MlpActivations& kept, In<float, 2> x, In<float, 2> dbranch, Sum<float, 2> dx, float l1);
void mlp_backward(const Execution& e, const GatedMlp& mlp, const MlpParams<Matrix>& w,
                  const MlpParams<Out<float, 2>>& dw, const MlpActivations& kept, In<float, 2> x, In<float, 2> dbranch,
                  Sum<float, 2> dx, float l1);
void mlp_backward(const Execution& e, const ParameterTokens& tokens, const MlpParams<Matrix>& w,
                  const MlpParams<Out<float, 2>>& dw, const MlpActivations& kept, In<float, 2> x, In<float, 2> dbranch,
                  Sum<float, 2> dx, float l1);

}  // namespace sparsam
