#include <cmath>
#include <vector>

#include "ops/reference/reference.h"

namespace sparsam::reference {

template <class Real>
void run(const generic::LayerNorm<Real>& op) {
  const i64 rows = op.x.shape(0), channels = op.x.shape(1);
  for (i64 n = 0; n < rows; ++n) {
    // m = mean(x)
    double mean = 0, variance = 0;
    for (Real x : op.x[n]) mean += static_cast<double>(x) / static_cast<double>(channels);
    // r = 1 / sqrt(mean((x - m)^2) + eps)
    for (Real x : op.x[n]) {
      const double deviation = static_cast<double>(x) - mean;
      variance += deviation * deviation / static_cast<double>(channels);
    }
    const double r = 1 / std::sqrt(variance + static_cast<double>(op.eps));
    if (!op.mean.empty()) op.mean[n] = static_cast<Real>(mean);
    if (!op.r.empty()) op.r[n] = static_cast<Real>(r);
    // n = (x - m) r, y = n g + b
    for (i64 c = 0; c < channels; ++c) {
      const double gain = op.gain.empty() ? 1 : static_cast<double>(op.gain[c]);
      const double bias = op.bias.empty() ? 0 : static_cast<double>(op.bias[c]);
      op.y(n, c) = static_cast<Real>((static_cast<double>(op.x(n, c)) - mean) * r * gain + bias);
    }
  }
}

template <class Real>
void run(const generic::LayerNormBackward<Real>& op) {
  const i64 rows = op.x.shape(0), channels = op.x.shape(1);
  std::vector<double> dgain(static_cast<size_t>(channels)), dbias(dgain.size()), dn(dgain.size()), normed(dgain.size());
  for (i64 n = 0; n < rows; ++n) {
    const double mean = static_cast<double>(op.mean[n]), r = static_cast<double>(op.r[n]);
    // y = n g + b  ->  dg += sum_rows dy n          db += sum_rows dy          dn = dy g
    double mean_dn = 0, mean_dn_n = 0;
    for (i64 c = 0; c < channels; ++c) {
      const size_t i = static_cast<size_t>(c);
      const double dy = static_cast<double>(op.dy(n, c));
      normed[i] = (static_cast<double>(op.x(n, c)) - mean) * r;
      dgain[i] += dy * normed[i];
      dbias[i] += dy;
      dn[i] = dy * (op.gain.empty() ? 1 : static_cast<double>(op.gain[c]));
      mean_dn += dn[i] / static_cast<double>(channels);
      mean_dn_n += dn[i] * normed[i] / static_cast<double>(channels);
    }
    // n = (x - m) r, with m and r functions of x  ->  dx += r (dn - mean(dn) - n mean(dn n))
    for (i64 c = 0; c < channels; ++c) {
      const size_t i = static_cast<size_t>(c);
      op.dx(n, c) += static_cast<Real>(r * (dn[i] - mean_dn - normed[i] * mean_dn_n));
    }
  }
  for (i64 c = 0; c < op.dgain.size(); ++c) op.dgain[c] += static_cast<Real>(dgain[static_cast<size_t>(c)]);
  for (i64 c = 0; c < op.dbias.size(); ++c) op.dbias[c] += static_cast<Real>(dbias[static_cast<size_t>(c)]);
}

template void run(const generic::LayerNorm<float>&);
template void run(const generic::LayerNorm<double>&);
template void run(const generic::LayerNormBackward<float>&);
template void run(const generic::LayerNormBackward<double>&);

}  // namespace sparsam::reference
