#include "model/parameter_tokens.h"

namespace sparsam {

namespace {
constexpr float eps = 1e-8f;  // against rows of zeros alone: the published code has none
}

Out<float, 2> tokens_forward(const Execution& e, const ParameterTokens& tokens, const TokenParams<Matrix>& w,
                             In<float, 2> x, TokenActivations& kept) {
  const i64 N = x.shape(0);
  const auto y = e.arena.allocate<float>(N, w.values.rows);
  kept.a = e.arena.allocate<float>(N, tokens.tokens);
  kept.norm = e.arena.allocate<float>(N);
  const Arena::Mark mark = e.arena.mark();
  const auto s = e.arena.allocate<float>(N, tokens.tokens);
  e.backend.run(Matmul{.y = kept.a, .x = x, .w = w.keys, .compute = e.compute});
  e.backend.run(
      TokenScores{.s = s, .norm = kept.norm, .a = kept.a, .tau = tokens.tau, .eps = eps, .theta = tokens.theta});
  e.backend.run(Matmul{.y = y, .x = s, .w = w.values, .compute = e.compute});
  e.arena.release(mark);  // the backward makes s again
  return y;
}

void tokens_backward(const Execution& e, const ParameterTokens& tokens, const TokenParams<Matrix>& w,
                     const TokenParams<Out<float, 2>>& dw, const TokenActivations& kept, In<float, 2> x,
                     In<float, 2> dy, Sum<float, 2> dx) {
  const i64 N = x.shape(0);
  const Arena::Mark mark = e.arena.mark();
  const auto s = e.arena.allocate<float>(N, tokens.tokens);
  const auto ds = e.arena.zeros<float>(N, tokens.tokens);
  // in the forward pass this was: y = s V
  e.backend.run(MatmulBackwardInput{.dx = ds, .dy = dy, .w = w.values, .compute = e.compute});
  // s = Theta(a)
  const auto da = ds;
  e.backend.run(TokenScoresBackward{.da = da,
                                    .s = s,
                                    .ds = ds,
                                    .a = kept.a,
                                    .norm = kept.norm,
                                    .tau = tokens.tau,
                                    .eps = eps,
                                    .theta = tokens.theta});
  e.backend.run(MatmulBackwardWeight{.dw = dw.values, .dy = dy, .x = s, .compute = e.compute});
  // a = x K^T
  e.backend.run(MatmulBackwardInput{.dx = dx, .dy = da, .w = w.keys, .compute = e.compute});
  e.backend.run(MatmulBackwardWeight{.dw = dw.keys, .dy = da, .x = x, .compute = e.compute});
  e.arena.release(mark);
}

Out<float, 2> projection_forward(const Execution& e, const ParameterTokens& tokens, const ProjectionParams<Matrix>& w,
                                 In<float, 2> x, TokenActivations& kept) {
  if (tokens.present()) return tokens_forward(e, tokens, w.tokens, x, kept);
  return linear_forward(e, w, x);
}

void projection_backward(const Execution& e, const ParameterTokens& tokens, const ProjectionParams<Matrix>& w,
                         const ProjectionParams<Out<float, 2>>& dw, const TokenActivations& kept, In<float, 2> x,
                         In<float, 2> dy, Sum<float, 2> dx) {
  if (tokens.present())
    tokens_backward(e, tokens, w.tokens, dw.tokens, kept, x, dy, dx);
  else
    linear_backward(e, w, dw, x, dy, dx);
}

}  // namespace sparsam
