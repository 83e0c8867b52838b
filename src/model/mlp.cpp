#include "model/mlp.h"

#include <cmath>
#include <utility>
#include <vector>

namespace sparsam {

void column_norms(const Matrix& down, Out<float, 1> norms) {
  std::vector<double> squares(static_cast<size_t>(down.cols));
  std::vector<float> row(squares.size());
  for (i64 c = 0; c < down.rows; ++c) {
    read_row(down, c, row);
    for (size_t i = 0; i < row.size(); ++i) squares[i] += static_cast<double>(row[i]) * row[i];
  }
  for (i64 i = 0; i < down.cols; ++i) norms[i] = static_cast<float>(std::sqrt(squares[static_cast<size_t>(i)]));
}

namespace {

// h keeps its neurons that pass; `activated` is f(gate) of a gated MLP, or h.
void truncate_neurons(const Execution& e, const NeuronTruncation* truncate, Out<float, 2> h, In<float, 2> activated) {
  const Truncation& t = truncate->truncation;
  const bool by_output = t.measure == Truncation::Measure::output;
  e.backend.run(Truncate{.y = h,
                         .active = e.arena.allocate<float>(h.shape(0)),
                         .h = h,
                         .s = by_output ? In<float, 2>(h) : activated,
                         .w = by_output ? truncate->norms : In<float, 1>{},
                         .threshold = t.threshold,
                         .keep = t.keep});
}

}  // namespace

Out<float, 2> mlp_forward(const Execution& e, const Mlp& mlp, const MlpParams<Matrix>& w, In<float, 2> x,
                          MlpActivations& kept, const NeuronTruncation* truncate) {
  kept.norm = norm_forward(e, w.norm, x);
  kept.up = linear_forward(e, w.up, kept.norm.y);
  kept.h = e.arena.allocate<float>(x.shape(0), mlp.hidden);
  e.backend.run(Activation{.y = kept.h, .x = kept.up, .function = mlp.activation, .threshold = mlp.threshold});
  if (truncate) truncate_neurons(e, truncate, kept.h, kept.h);
  const auto branch = linear_forward(e, w.down, kept.h);
  scale_branch(e, branch);
  return branch;
}

void mlp_backward(const Execution& e, const Mlp& mlp, const MlpParams<Matrix>& w, const MlpParams<Out<float, 2>>& dw,
                  const MlpActivations& kept, In<float, 2> x, In<float, 2> dbranch, Sum<float, 2> dx) {
  const i64 N = x.shape(0);
  // in the forward pass this was: branch = scale linear(down, h)
  const auto dh = e.arena.zeros<float>(N, mlp.hidden);
  linear_backward(e, w.down, dw.down, kept.h, scaled_gradient(e, dbranch), dh);
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
                          MlpActivations& kept, const NeuronTruncation* truncate) {
  kept.norm = norm_forward(e, w.norm, x);
  kept.gate = linear_forward(e, w.gate, kept.norm.y);
  kept.up = linear_forward(e, w.up, kept.norm.y);
  kept.h = e.arena.allocate<float>(x.shape(0), mlp.hidden);
  e.backend.run(GatedProduct{.h = kept.h,
                             .gate = kept.gate,
                             .up = kept.up,
                             .function = mlp.activation,
                             .threshold = mlp.threshold,
                             .activate_up = mlp.activate_up});
  if (truncate) {
    In<float, 2> activated = kept.h;
    if (truncate->truncation.measure == Truncation::Measure::gate) {
      const auto y = e.arena.allocate<float>(x.shape(0), mlp.hidden);
      e.backend.run(Activation{.y = y, .x = kept.gate, .function = mlp.activation, .threshold = mlp.threshold});
      activated = y;
    }
    truncate_neurons(e, truncate, kept.h, activated);
  }
  if (mlp.inner_norm) kept.inner = norm_forward(e, w.inner_norm, kept.h);
  const auto branch = linear_forward(e, w.down, mlp.inner_norm ? kept.inner.y : kept.h);
  scale_branch(e, branch);
  return branch;
}

void mlp_backward(const Execution& e, const GatedMlp& mlp, const MlpParams<Matrix>& w,
                  const MlpParams<Out<float, 2>>& dw, const MlpActivations& kept, In<float, 2> x, In<float, 2> dbranch,
                  Sum<float, 2> dx) {
  const i64 N = x.shape(0);
  // in the forward pass this was: branch = scale linear(down, h)
  auto dh = e.arena.zeros<float>(N, mlp.hidden);
  linear_backward(e, w.down, dw.down, mlp.inner_norm ? kept.inner.y : kept.h, scaled_gradient(e, dbranch), dh);
  // h = norm(h)
  if (mlp.inner_norm) {
    const auto dinner = std::exchange(dh, e.arena.zeros<float>(N, mlp.hidden));
    norm_backward(e, w.inner_norm, dw.inner_norm, kept.inner, kept.h, dinner, dh);
  }
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

}  // namespace sparsam
