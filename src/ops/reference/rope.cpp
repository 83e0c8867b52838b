#include "ops/reference/bounded.h"
#include "ops/reference/reference.h"

namespace sparsam::reference {

template <class Real>
void run(const generic::Rope<Real>& op) {
  const i64 pairs = op.cosine.shape(1), head_size = op.x.shape(2);
  const bool halves = op.pairing == Pairing::halves;
  for (i64 n = 0; n < op.x.shape(0); ++n)
    for (i64 h = 0; h < op.x.shape(1); ++h) {
      const In<Real, 1> x = op.x[n][h];
      const Out<Real, 1> y = op.y[n][h];
      // (y_a, y_b) = (x_a cos - x_b sin, x_a sin + x_b cos); backward: the inverse, which is the transpose
      for (i64 i = 0; i < pairs; ++i) {
        const i64 a = halves ? i : 2 * i, b = halves ? i + pairs : 2 * i + 1;
        const Real cosine = op.cosine(op.positions[n], i);
        const Real sine = op.inverse ? -op.sine(op.positions[n], i) : op.sine(op.positions[n], i);
        const Real x_a = x[a], x_b = x[b];
        y[a] = x_a * cosine - x_b * sine;
        y[b] = x_a * sine + x_b * cosine;
      }
      for (i64 d = 2 * pairs; d < head_size; ++d) y[d] = x[d];
    }
}

template void run(const generic::Rope<float>&);
template void run(const generic::Rope<double>&);
template void run(const generic::Rope<Bounded>&);

}  // namespace sparsam::reference
