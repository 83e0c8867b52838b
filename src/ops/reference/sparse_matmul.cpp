#include "ops/sparse_matmul.h"

#include "ops/reference/arithmetic.h"
#include "ops/reference/reference.h"

namespace sparsam::reference {

namespace {
template <class Real>
bool is_zero(const Real& x) {
  return static_cast<double>(x) == 0;
}
}  // namespace

template <class Real>
void run(const generic::SelectedMatmul<Real>& op) {
  const Factors<Real, 2> w(op.w, Compute::f32);
  for (i64 n = 0; n < op.y.shape(0); ++n)
    for (i64 o = 0; o < op.w.rows; ++o) {
      // y = x w^T + b where s is not 0
      const Wide<Real> bias = op.bias.empty() ? 0.0 : wide(op.bias[o]);
      op.y(n, o) =
          is_zero(op.s(n, o)) ? Real(0) : static_cast<Real>(dot(op.x[n].data(), w[o].data(), op.w.cols) + bias);
    }
}

template <class Real>
void run(const generic::SkippingMatmul<Real>& op) {
  std::vector<Real> t(static_cast<size_t>(op.t.rows * op.t.cols));
  for (i64 i = 0; i < op.t.rows; ++i)
    for (i64 o = 0; o < op.t.cols; ++o) t[static_cast<size_t>(i * op.t.cols + o)] = static_cast<Real>(op.t.at(i, o));
  for (i64 n = 0; n < op.y.shape(0); ++n) {
    // y = sum_i x_i t_i + b
    Sums<Real> y(static_cast<size_t>(op.t.cols));
    if (!op.bias.empty())
      for (size_t o = 0; o < y.size(); ++o) y[o] = wide(op.bias[static_cast<i64>(o)]);
    for (i64 i = 0; i < op.t.rows; ++i)
      if (!is_zero(op.x(n, i))) add_scaled(y, wide(op.x(n, i)), t.data() + i * op.t.cols);
    store(y, op.y[n].data());
  }
}

template void run(const generic::SelectedMatmul<float>&);
template void run(const generic::SelectedMatmul<double>&);
template void run(const generic::SelectedMatmul<Bounded>&);
template void run(const generic::SkippingMatmul<float>&);
template void run(const generic::SkippingMatmul<double>&);
template void run(const generic::SkippingMatmul<Bounded>&);

}  // namespace sparsam::reference
