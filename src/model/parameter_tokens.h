// Projections, and the parameter tokens that may stand in place of a matrix or of a whole MLP:
//   a = x K^T   s = Theta(a)   y = s V        (ops/token_scores.h; V lies transposed, as the weight of a Linear does)
#pragma once

#include "model/sparse_layers.h"

namespace sparsam {

struct TokenActivations {
  Out<float, 2> a;     // (N, P)
  Out<float, 1> norm;  // (N)
};

// With `sparse`, tokens and inputs are left out as in an MLP (model/mlp.h), and blocks of keys; the norm is that of all
// scores.
Out<float, 2> tokens_forward(const Execution& e, const ParameterTokens& tokens, const TokenParams<Matrix>& w,
                             In<float, 2> x, TokenActivations& kept, const SparseTokens* sparse = nullptr);
// S again, from what the forward kept; with `root` as in ops/token_scores.h.
void token_scores(Backend& backend, const ParameterTokens& tokens, const TokenActivations& kept, Out<float, 2> s,
                  In<float, 2> root = {});
void tokens_backward(const Execution& e, const ParameterTokens& tokens, const TokenParams<Matrix>& w,
                     const TokenParams<Out<float, 2>>& dw, const TokenActivations& kept, In<float, 2> x,
                     In<float, 2> dy, Sum<float, 2> dx);

// Parameter tokens, or without them a matrix, of which nothing is kept.
Out<float, 2> projection_forward(const Execution& e, const ParameterTokens& tokens, const ProjectionParams<Matrix>& w,
                                 In<float, 2> x, TokenActivations& kept, const SparseTokens* sparse = nullptr);
void projection_backward(const Execution& e, const ParameterTokens& tokens, const ProjectionParams<Matrix>& w,
                         const ProjectionParams<Out<float, 2>>& dw, const TokenActivations& kept, In<float, 2> x,
                         In<float, 2> dy, Sum<float, 2> dx);

}  // namespace sparsam
