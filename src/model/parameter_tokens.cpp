#include "model/parameter_tokens.h"

#include "model/crossover.h"

namespace sparsam {

namespace {
constexpr float eps = 1e-8f;  // against rows of zeros alone: the published code has none

void product(const Execution& e, Out<float, 2> y, In<float, 2> x, const Matrix& w, const InputMajor* by_input) {
  if (by_input && !by_input->empty() && are_few(x.shape(0)))
    e.backend.run(SkippingMatmul{
        .y = y, .x = x, .t = *by_input, .w = w, .crossover = skipping_crossover(e.config, *by_input, x.shape(0))});
  else
    e.backend.run(Matmul{.y = y, .x = x, .w = w, .compute = e.compute});
}

// s = Theta(a), but 0 where a block is not chosen. Few rows do not read the keys of other blocks.
void block_scores(const Execution& e, const ParameterTokens& tokens, const Matrix& keys, const KeyBlocks& blocks,
                  In<float, 2> x, const TokenActivations& kept, Out<float, 2> s) {
  const auto means = e.arena.allocate<float>(x.shape(0), blocks.means.rows);
  // In float32 both ways, which then choose alike.
  e.backend.run(Matmul{.y = means, .x = x, .w = blocks.means, .compute = Compute::f32});
  ChooseBlocks choice{.y = s, .c = means, .size = blocks.blocks.size, .keep = blocks.blocks.read};
  if (!blocks.root.empty() && are_few(x.shape(0))) {
    e.backend.run(choice);
    e.backend.run(SelectedMatmul{.y = kept.a, .x = x, .w = keys, .s = s});
    token_scores(e.backend, tokens, kept, s, root_product(e, blocks, x));
  } else {
    e.backend.run(Matmul{.y = kept.a, .x = x, .w = keys, .compute = e.compute});
    token_scores(e.backend, tokens, kept, s);
    choice.h = s;
    e.backend.run(choice);
  }
}

}  // namespace

void token_scores(Backend& backend, const ParameterTokens& tokens, const TokenActivations& kept, Out<float, 2> s,
                  In<float, 2> root) {
  backend.run(TokenScores{.s = s,
                          .norm = kept.norm,
                          .a = kept.a,
                          .tau = tokens.effective_tau(),
                          .eps = eps,
                          .theta = tokens.theta,
                          .old = tokens.old,
                          .mask = tokens.mask,
                          .root = root});
}

Out<float, 2> tokens_forward(const Execution& e, const ParameterTokens& tokens, const TokenParams<Matrix>& w,
                             In<float, 2> x, TokenActivations& kept, const SparseTokens* sparse) {
  const i64 N = x.shape(0);
  const auto y = e.arena.allocate<float>(N, w.values.rows);
  kept.a = e.arena.allocate<float>(N, tokens.tokens);
  kept.norm = e.arena.allocate<float>(N);
  const Arena::Mark mark = e.arena.mark();
  const auto s = e.arena.allocate<float>(N, tokens.tokens);
  if (sparse && sparse->blocks.active()) {
    block_scores(e, tokens, w.keys, sparse->blocks, x, kept, s);
  } else {
    product(e, kept.a, x, w.keys, sparse ? &sparse->keys : nullptr);
    token_scores(e.backend, tokens, kept, s);
  }
  if (sparse && sparse->truncation.active())
    leave_out_weak(e.backend, e.arena, sparse->truncation, sparse->norms, s, s);
  product(e, y, s, w.values, sparse ? &sparse->values : nullptr);
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
                                    .tau = tokens.effective_tau(),
                                    .eps = eps,
                                    .theta = tokens.theta,
                                    .old = tokens.old,
                                    .mask = tokens.mask});
  e.backend.run(MatmulBackwardWeight{.dw = dw.values, .dy = dy, .x = s, .compute = e.compute});
  // a = x K^T
  e.backend.run(MatmulBackwardInput{.dx = dx, .dy = da, .w = w.keys, .compute = e.compute});
  e.backend.run(MatmulBackwardWeight{.dw = dw.keys, .dy = da, .x = x, .compute = e.compute});
  e.arena.release(mark);
}

Out<float, 2> projection_forward(const Execution& e, const ParameterTokens& tokens, const ProjectionParams<Matrix>& w,
                                 In<float, 2> x, TokenActivations& kept, const SparseTokens* sparse) {
  if (tokens.present()) return tokens_forward(e, tokens, w.tokens, x, kept, sparse);
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
