#include "base/threads.h"
#include "ops/reference/arithmetic.h"
#include "ops/reference/reference.h"

namespace sparsam::reference {

template <class Real>
void run(const generic::Matmul<Real>& op) {
  const Factors<Real, 2> x(op.x, op.compute), w(op.w, op.compute);
  parallel_ranges(op.y.shape(0), 1, [&](int, i64 begin, i64 end) {
    for (i64 n = begin; n < end; ++n)
      for (i64 o = 0; o < op.w.rows; ++o) {
        // y = x w^T + b
        const Wide<Real> bias = op.bias.empty() ? 0.0 : wide(op.bias[o]);
        op.y(n, o) = static_cast<Real>(dot(x[n].data(), w[o].data(), op.w.cols) + bias);
      }
  });
}

template <class Real>
void run(const generic::MatmulBackwardInput<Real>& op) {
  const Factors<Real, 2> dy(op.dy, op.compute), w(op.w, op.compute);
  parallel_ranges(op.dx.shape(0), 1, [&](int, i64 begin, i64 end) {
    for (i64 n = begin; n < end; ++n) {
      // y = x w^T  ->  dx += dy w
      Sums<Real> dx(static_cast<size_t>(op.w.cols));
      for (i64 o = 0; o < op.w.rows; ++o) add_scaled(dx, wide(dy(n, o)), w[o].data());
      accumulate(dx, op.dx[n].data());
    }
  });
}

template <class Real>
void run(const generic::MatmulBackwardWeight<Real>& op) {
  const Factors<Real, 2> dy(op.dy, op.compute), x(op.x, op.compute);
  const i64 rows = op.x.shape(0);
  parallel_ranges(op.dw.shape(0), 1, [&](int, i64 begin, i64 end) {
    for (i64 o = begin; o < end; ++o) {
      // y = x w^T + b  ->  dw += dy^T x          db += sum_rows dy (no product: dy as it is)
      Sums<Real> dw(static_cast<size_t>(op.x.shape(1))), dbias(1);
      for (i64 n = 0; n < rows; ++n) {
        add_scaled(dw, wide(dy(n, o)), x[n].data());
        dbias[0] += wide(op.dy(n, o));
      }
      accumulate(dw, op.dw[o].data());
      if (!op.dbias.empty()) accumulate(dbias, &op.dbias[o]);
    }
  });
}

template void run(const generic::Matmul<float>&);
template void run(const generic::Matmul<double>&);
template void run(const generic::Matmul<Bounded>&);
template void run(const generic::MatmulBackwardInput<float>&);
template void run(const generic::MatmulBackwardInput<double>&);
template void run(const generic::MatmulBackwardInput<Bounded>&);
template void run(const generic::MatmulBackwardWeight<float>&);
template void run(const generic::MatmulBackwardWeight<double>&);
template void run(const generic::MatmulBackwardWeight<Bounded>&);

}  // namespace sparsam::reference
