#include "base/threads.h"
#include "ops/reference/factors.h"
#include "ops/reference/reference.h"

namespace sparsam::reference {

template <class Real>
void run(const generic::Matmul<Real>& op) {
  const Factors<Real, 2> x(op.x, op.compute), w(op.w, op.compute);
  parallel_ranges(op.y.shape(0), 1, [&](int, i64 begin, i64 end) {
    for (i64 n = begin; n < end; ++n) {
      // y = x w^T + b
      for (i64 o = 0; o < op.w.rows; ++o) {
        const double bias = op.bias.empty() ? 0 : static_cast<double>(op.bias[o]);
        op.y(n, o) = static_cast<Real>(dot(x[n].data(), w[o].data(), op.w.cols) + bias);
      }
    }
  });
}

template <class Real>
void run(const generic::MatmulBackwardInput<Real>& op) {
  const Factors<Real, 2> dy(op.dy, op.compute), w(op.w, op.compute);
  parallel_ranges(op.dx.shape(0), 1, [&](int, i64 begin, i64 end) {
    for (i64 n = begin; n < end; ++n) {
      // y = x w^T  ->  dx += dy w
      std::vector<double> dx(static_cast<size_t>(op.w.cols));
      for (i64 o = 0; o < op.w.rows; ++o) add_scaled(dx, static_cast<double>(dy(n, o)), w[o].data());
      for (i64 i = 0; i < op.w.cols; ++i) op.dx(n, i) += static_cast<Real>(dx[static_cast<size_t>(i)]);
    }
  });
}

template <class Real>
void run(const generic::MatmulBackwardWeight<Real>& op) {
  const Factors<Real, 2> dy(op.dy, op.compute), x(op.x, op.compute);
  const i64 rows = op.x.shape(0), inputs = op.x.shape(1);
  parallel_ranges(op.dw.shape(0), 1, [&](int, i64 begin, i64 end) {
    for (i64 o = begin; o < end; ++o) {
      // y = x w^T  ->  dw += dy^T x
      std::vector<double> dw(static_cast<size_t>(inputs));
      for (i64 n = 0; n < rows; ++n) add_scaled(dw, static_cast<double>(dy(n, o)), x[n].data());
      for (i64 i = 0; i < inputs; ++i) op.dw(o, i) += static_cast<Real>(dw[static_cast<size_t>(i)]);
      // y = ... + b  ->  db += sum_rows dy, no product: dy as it is
      double dbias = 0;
      for (i64 n = 0; n < rows; ++n) dbias += static_cast<double>(op.dy(n, o));
      if (!op.dbias.empty()) op.dbias[o] += static_cast<Real>(dbias);
    }
  });
}

template void run(const generic::Matmul<float>&);
template void run(const generic::Matmul<double>&);
template void run(const generic::MatmulBackwardInput<float>&);
template void run(const generic::MatmulBackwardInput<double>&);
template void run(const generic::MatmulBackwardWeight<float>&);
template void run(const generic::MatmulBackwardWeight<double>&);

}  // namespace sparsam::reference
