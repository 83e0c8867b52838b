#include "model/mlp.h"

namespace sparsam {

Out<float, 2> mlp_forward(const Execution& e, const Mlp& mlp, const MlpParams<Matrix>& w, In<float, 2> x,
                          MlpActivations& kept) {
  kept.norm = norm_forward(e, w.norm, x);
  kept.up = linear_forward(e, w.up, kept.norm.y);
  kept.h = e.arena.allocate<float>(x.shape(0), mlp.hidden);
  e.backend.run(Activation{.y = kept.h, .x = kept.up, .function = mlp.activation});
  return linear_forward(e, w.down, kept.h);
}

void mlp_backward(const Execution& e, const Mlp& mlp, const MlpParams<Matrix>& w, const MlpParams<Out<float, 2>>& dw,
                  const MlpActivations& kept, In<float, 2> x, In<float, 2> dbranch, Sum<float, 2> dx) {
  const i64 N = x.shape(0);
  // in the forward pass this was: branch = linear(down, h)
  const auto dh = e.arena.zeros<float>(N, mlp.hidden);
  linear_backward(e, w.down, dw.down, kept.h, dbranch, dh);
  // h = f(up)
  const auto dup = e.arena.allocate<float>(N, mlp.hidden);
  e.backend.run(ActivationBackward{.dx = dup, .dy = dh, .x = kept.up, .function = mlp.activation});
  // up = linear(up, n)
  const auto dn = e.arena.zeros<float>(N, x.shape(1));
  linear_backward(e, w.up, dw.up, kept.norm.y, dup, dn);
  // n = norm(x)
  norm_backward(e, w.norm, dw.norm, kept.norm, x, dn, dx);
}

Out<float, 2> mlp_forward(const Execution& e, const GatedMlp& mlp, const MlpParams<Matrix>& w, In<float, 2> x,
                          MlpActivations& kept) {
  kept.norm = norm_forward(e, w.norm, x);
  kept.gate = linear_forward(e, w.gate, kept.norm.y);
  kept.up = linear_forward(e, w.up, kept.norm.y);
  kept.h = e.arena.allocate<float>(x.shape(0), mlp.hidden);
  e.backend.run(GatedProduct{.h = kept.h, .gate = kept.gate, .up = kept.up, .function = mlp.activation});
  return linear_forward(e, w.down, kept.h);
}

void mlp_backward(const Execution& e, const GatedMlp& mlp, const MlpParams<Matrix>& w,
                  const MlpParams<Out<float, 2>>& dw, const MlpActivations& kept, In<float, 2> x, In<float, 2> dbranch,
                  Sum<float, 2> dx) {
  const i64 N = x.shape(0);
  // in the forward pass this was: branch = linear(down, h)
  const auto dh = e.arena.zeros<float>(N, mlp.hidden);
  linear_backward(e, w.down, dw.down, kept.h, dbranch, dh);
  // h = f(gate) up
  const auto dgate = e.arena.allocate<float>(N, mlp.hidden), dup = e.arena.allocate<float>(N, mlp.hidden);
  e.backend.run(GatedProductBackward{
      .dgate = dgate, .dup = dup, .dh = dh, .gate = kept.gate, .up = kept.up, .function = mlp.activation});
  // gate, up = linear(gate, n), linear(up, n)
  const auto dn = e.arena.zeros<float>(N, x.shape(1));
  linear_backward(e, w.gate, dw.gate, kept.norm.y, dgate, dn);
  linear_backward(e, w.up, dw.up, kept.norm.y, dup, dn);
  // n = norm(x)
  norm_backward(e, w.norm, dw.norm, kept.norm, x, dn, dx);
}

}  // namespace sparsam
