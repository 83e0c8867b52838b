#include "ops/reference/arithmetic.h"
#include "ops/reference/reference.h"

namespace sparsam::reference {

template <class Real>
void run(const generic::RmsNorm<Real>& op) {
  const i64 rows = op.x.shape(0), channels = op.x.shape(1);
  for (i64 n = 0; n < rows; ++n) {
    // r = 1 / sqrt(mean(x^2) + eps)
    const Real* x = op.x[n].data();
    const Wide<Real> r = 1.0 / sqrt(dot(x, x, channels) / static_cast<double>(channels) + wide(op.eps));
    if (!op.r.empty()) op.r[n] = static_cast<Real>(r);
    // y = x r g
    for (i64 c = 0; c < channels; ++c) {
      const Wide<Real> gain = op.gain.empty() ? 1.0 : wide(op.gain[c]);
      op.y(n, c) = static_cast<Real>(wide(x[c]) * r * gain);
    }
  }
}

template <class Real>
void run(const generic::RmsNormBackward<Real>& op) {
  const i64 rows = op.x.shape(0), channels = op.x.shape(1);
  Sums<Real> dgain(static_cast<size_t>(channels)), dn = dgain;
  for (i64 n = 0; n < rows; ++n) {
    const Wide<Real> r = wide(op.r[n]);
    // y = x r g  ->  dg += sum_rows dy x r          dn = dy g: the gradient of x r
    Wide<Real> mean = 0;  // mean(dy g x)
    for (i64 c = 0; c < channels; ++c) {
      const size_t i = static_cast<size_t>(c);
      const Wide<Real> dy = wide(op.dy(n, c)), x = wide(op.x(n, c));
      dgain[i] += dy * x * r;
      dn[i] = dy * (op.gain.empty() ? 1.0 : wide(op.gain[c]));
      mean += dn[i] * x / static_cast<double>(channels);
    }
    // r = 1 / sqrt(mean(x^2) + eps)  ->  dx += r (dn - x r^2 mean(dn x))
    for (i64 c = 0; c < channels; ++c)
      op.dx(n, c) += static_cast<Real>(r * (dn[static_cast<size_t>(c)] - wide(op.x(n, c)) * r * r * mean));
  }
  if (!op.dgain.empty()) accumulate(dgain, op.dgain.data());
}

template void run(const generic::RmsNorm<float>&);
template void run(const generic::RmsNorm<double>&);
template void run(const generic::RmsNorm<Bounded>&);
template void run(const generic::RmsNormBackward<float>&);
template void run(const generic::RmsNormBackward<double>&);
template void run(const generic::RmsNormBackward<Bounded>&);

}  // namespace sparsam::reference
