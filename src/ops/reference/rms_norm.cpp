#include <cmath>
#include <vector>

#include "ops/reference/factors.h"
#include "ops/reference/reference.h"

namespace sparsam::reference {

template <class Real>
void run(const generic::RmsNorm<Real>& op) {
  const i64 rows = op.x.shape(0), channels = op.x.shape(1);
  for (i64 n = 0; n < rows; ++n) {
    // r = 1 / sqrt(mean(x^2) + eps)
    const Real* x = op.x[n].data();
    const double r = 1 / std::sqrt(dot(x, x, channels) / static_cast<double>(channels) + static_cast<double>(op.eps));
    if (!op.r.empty()) op.r[n] = static_cast<Real>(r);
    // y = x r g
    for (i64 c = 0; c < channels; ++c) {
      const double gain = op.gain.empty() ? 1 : static_cast<double>(op.gain[c]);
      op.y(n, c) = static_cast<Real>(static_cast<double>(x[c]) * r * gain);
    }
  }
}

template <class Real>
void run(const generic::RmsNormBackward<Real>& op) {
  const i64 rows = op.x.shape(0), channels = op.x.shape(1);
  std::vector<double> dgain(static_cast<size_t>(channels)), dn(dgain.size());
  for (i64 n = 0; n < rows; ++n) {
    const double r = static_cast<double>(op.r[n]);
    // y = x r g  ->  dg += sum_rows dy x r          dn = dy g: the gradient of x r
    double mean = 0;  // mean(dy g x)
    for (i64 c = 0; c < channels; ++c) {
      const size_t i = static_cast<size_t>(c);
      const double dy = static_cast<double>(op.dy(n, c)), x = static_cast<double>(op.x(n, c));
      dgain[i] += dy * x * r;
      dn[i] = dy * (op.gain.empty() ? 1 : static_cast<double>(op.gain[c]));
      mean += dn[i] * x / static_cast<double>(channels);
    }
    // r = 1 / sqrt(mean(x^2) + eps)  ->  dx += r (dn - x r^2 mean(dn x))
    for (i64 c = 0; c < channels; ++c) {
      const double x = static_cast<double>(op.x(n, c));
      op.dx(n, c) += static_cast<Real>(r * (dn[static_cast<size_t>(c)] - x * r * r * mean));
    }
  }
  for (i64 c = 0; c < op.dgain.size(); ++c) op.dgain[c] += static_cast<Real>(dgain[static_cast<size_t>(c)]);
}

template void run(const generic::RmsNorm<float>&);
template void run(const generic::RmsNorm<double>&);
template void run(const generic::RmsNormBackward<float>&);
template void run(const generic::RmsNormBackward<double>&);

}  // namespace sparsam::reference
