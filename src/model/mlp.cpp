#include "model/mlp.h"

#include <utility>

namespace sparsam {

namespace {

Out<float, 2> activated(const Execution& e, In<float, 2> x, const auto& mlp) {
  const auto y = e.arena.allocate<float>(x.shape(0), x.shape(1));
  e.backend.run(Activation{.y = y, .x = x, .function = mlp.activation, .threshold = mlp.threshold});
  return y;
}

// The norm of x, of which small inputs are left out.
Out<float, 2> input_norm(const Execution& e, const NormParams<Matrix>& w, In<float, 2> x, MlpActivations& kept,
                         const SparseLayer* sparse) {
  kept.norm = norm_forward(e, w, x);
  if (sparse) leave_out_small(e, kept.norm.y, sparse->inputs.up, sparse->dense_positions);
  return kept.norm.y;
}

Out<float, 2> project(const Execution& e, const LinearParams<Matrix>& w, In<float, 2> x, const SparseLayer* sparse,
                      InputMajor SparseLayer::*by_input) {
  return sparse ? sparse_forward(e, w, sparse->*by_input, x) : linear_forward(e, w, x);
}

Out<float, 2> down_forward(const Execution& e, const LinearParams<Matrix>& down, Out<float, 2> h,
                           const SparseLayer* sparse) {
  if (sparse) leave_out_small(e, h, sparse->inputs.down, sparse->dense_positions);
  return project(e, down, h, sparse, &SparseLayer::down);
}

// in the loss: l1 sum_n mean_i |h_ni|
void l1_backward(const Execution& e, float l1, In<float, 2> h, Out<float, 2> dh) {
  if (l1 == 0) return;
  for_each_run(e.sequences, e.length, e.lengths, [&](const SequenceRun& run) {
    const i64 rows = run.sequences * run.length;
    e.backend.run(L1NormBackward{
        .dh = run.rows(dh), .h = h.slice(run.first, rows), .scale = l1 / static_cast<float>(h.shape(1))});
  });
}

}  // namespace

Out<float, 2> mlp_forward(const Execution& e, const Mlp& mlp, const MlpParams<Matrix>& w, In<float, 2> x,
                          MlpActivations& kept, const SparseLayer* sparse) {
  kept.up = project(e, w.up, input_norm(e, w.norm, x, kept, sparse), sparse, &SparseLayer::up);
  kept.h = activated(e, kept.up, mlp);
  if (sparse && sparse->truncation.active())
    leave_out_weak(e.backend, e.arena, sparse->truncation, sparse->norms, kept.h, kept.h);
  const auto branch = down_forward(e, w.down, kept.h, sparse);
  scale_branch(e, branch);
  return branch;
}

void mlp_backward(const Execution& e, const Mlp& mlp, const MlpParams<Matrix>& w, const MlpParams<Out<float, 2>>& dw,
                  const MlpActivations& kept, In<float, 2> x, In<float, 2> dbranch, Sum<float, 2> dx, float l1) {
  const i64 N = x.shape(0);
  // in the forward pass this was: branch = scale linear(down, h)
  const auto dh = e.arena.zeros<float>(N, mlp.hidden);
  linear_backward(e, w.down, dw.down, kept.h, scaled_gradient(e, dbranch), dh);
  l1_backward(e, l1, kept.h, dh);
  // h = f(up)
  const auto dup = e.arena.allocate<float>(N, mlp.hidden);
  e.backend.run(
      ActivationBackward{.dx = dup, .dy = dh, .x = kept.up, .function = mlp.activation, .threshold = mlp.threshold});
  // up = linear(up, n)
  const auto dn = e.arena.zeros<float>(N, x.shape(1));
  linear_backward(e, w.up, dw.up, kept.norm.y, dup, dn);
  // n = norm(x)
  norm_backward(e, w.norm, dw.norm, kept.norm, x, dn, dx);
}

Out<float, 2> mlp_forward(const Execution& e, const GatedMlp& mlp, const MlpParams<Matrix>& w, In<float, 2> x,
                          MlpActivations& kept, const SparseLayer* sparse) {
  kept.gate = project(e, w.gate, input_norm(e, w.norm, x, kept, sparse), sparse, &SparseLayer::gate);
  const bool truncated = sparse && sparse->truncation.active();
  const bool by_gate = truncated && sparse->truncation.measure == Truncation::Measure::gate;
  const bool skip = sparse && sparse->selects_up && are_few(x.shape(0));
  Out<float, 2> s;
  if (by_gate || skip) s = activated(e, kept.gate, mlp);
  if (skip) {
    if (by_gate) leave_out_weak(e.backend, e.arena, sparse->truncation, sparse->norms, s, s);
    kept.up = e.arena.allocate<float>(x.shape(0), mlp.hidden);
    e.backend.run(SelectedMatmul{.y = kept.up,
                                 .x = kept.norm.y,
                                 .w = w.up.weight,
                                 .bias = as_vector(w.up.bias),
                                 .s = s,
                                 .crossover = sparse->up_crossover[x.shape(0) > 1]});
  } else {
    kept.up = project(e, w.up, kept.norm.y, sparse, &SparseLayer::up);
  }
  kept.h = e.arena.allocate<float>(x.shape(0), mlp.hidden);
  e.backend.run(GatedProduct{.h = kept.h,
                             .gate = kept.gate,
                             .up = kept.up,
                             .function = mlp.activation,
                             .threshold = mlp.threshold,
                             .activate_up = mlp.activate_up});
  // Where the gate left a neuron out before its up projection, that is 0, and so is h.
  if (truncated && !(by_gate && skip)) leave_out_weak(e.backend, e.arena, sparse->truncation, sparse->norms, kept.h, s);
  if (mlp.inner_norm) kept.inner = norm_forward(e, w.inner_norm, kept.h);
  const auto branch = down_forward(e, w.down, mlp.inner_norm ? kept.inner.y : kept.h, sparse);
  scale_branch(e, branch);
  return branch;
}

void mlp_backward(const Execution& e, const GatedMlp& mlp, const MlpParams<Matrix>& w,
                  const MlpParams<Out<float, 2>>& dw, const MlpActivations& kept, In<float, 2> x, In<float, 2> dbranch,
                  Sum<float, 2> dx, float l1) {
  const i64 N = x.shape(0);
  // in the forward pass this was: branch = scale linear(down, h)
  auto dh = e.arena.zeros<float>(N, mlp.hidden);
  linear_backward(e, w.down, dw.down, mlp.inner_norm ? kept.inner.y : kept.h, scaled_gradient(e, dbranch), dh);
  // h = norm(h)
  if (mlp.inner_norm) {
    const auto dinner = std::exchange(dh, e.arena.zeros<float>(N, mlp.hidden));
    norm_backward(e, w.inner_norm, dw.inner_norm, kept.inner, kept.h, dinner, dh);
  }
  l1_backward(e, l1, kept.h, dh);
  // h = f(gate) g(up)
  const auto dgate = e.arena.allocate<float>(N, mlp.hidden), dup = e.arena.allocate<float>(N, mlp.hidden);
  e.backend.run(GatedProductBackward{.dgate = dgate,
                                     .dup = dup,
                                     .dh = dh,
                                     .gate = kept.gate,
                                     .up = kept.up,
                                     .function = mlp.activation,
                                     .threshold = mlp.threshold,
                                     .activate_up = mlp.activate_up});
  // gate, up = linear(gate, n), linear(up, n)
  const auto dn = e.arena.zeros<float>(N, x.shape(1));
  linear_backward(e, w.gate, dw.gate, kept.norm.y, dgate, dn);
  linear_backward(e, w.up, dw.up, kept.norm.y, dup, dn);
  // n = norm(x)
  norm_backward(e, w.norm, dw.norm, kept.norm, x, dn, dx);
}

Out<float, 2> mlp_forward(const Execution& e, const ParameterTokens& tokens, const MlpParams<Matrix>& w, In<float, 2> x,
                          MlpActivations& kept, const SparseLayer* sparse) {
  const SparseTokens* own = sparse ? &sparse->tokens[static_cast<size_t>(SitePlace::mlp)] : nullptr;
  const auto branch = tokens_forward(e, tokens, w.tokens, input_norm(e, w.norm, x, kept, sparse), kept.tokens, own);
  scale_branch(e, branch);
  return branch;
}

void mlp_backward(const Execution& e, const ParameterTokens& tokens, const MlpParams<Matrix>& w,
                  const MlpParams<Out<float, 2>>& dw, const MlpActivations& kept, In<float, 2> x, In<float, 2> dbranch,
                  Sum<float, 2> dx, float) {
  // in the forward pass this was: branch = scale tokens(n)
  const auto dn = e.arena.zeros<float>(x.shape(0), x.shape(1));
  tokens_backward(e, tokens, w.tokens, dw.tokens, kept.tokens, kept.norm.y, scaled_gradient(e, dbranch), dn);
  // n = norm(x)
  norm_backward(e, w.norm, dw.norm, kept.norm, x, dn, dx);
}

}  // namespace sparsam
