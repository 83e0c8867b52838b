#include "ops/reference/arithmetic.h"
#include "ops/reference/reference.h"

namespace sparsam::reference {

template <class Real>
void run(const generic::LayerNorm<Real>& op) {
  const i64 rows = op.x.shape(0), channels = op.x.shape(1);
  const double count = static_cast<double>(channels);
  for (i64 n = 0; n < rows; ++n) {
    // m = mean(x)
    Wide<Real> sum = 0, squares = 0;
    for (const Real& x : op.x[n]) sum += wide(x);
    const Wide<Real> mean = sum / count;
    // r = 1 / sqrt(mean((x - m)^2) + eps)
    for (const Real& x : op.x[n]) squares += (wide(x) - mean) * (wide(x) - mean);
    const Wide<Real> r = 1.0 / sqrt(squares / count + wide(op.eps));
    if (!op.mean.empty()) op.mean[n] = static_cast<Real>(mean);
    if (!op.r.empty()) op.r[n] = static_cast<Real>(r);
    // n = (x - m) r, y = n g + b
    for (i64 c = 0; c < channels; ++c) {
      const Wide<Real> gain = op.gain.empty() ? 1.0 : wide(op.gain[c]), bias = op.bias.empty() ? 0.0 : wide(op.bias[c]);
      op.y(n, c) = static_cast<Real>((wide(op.x(n, c)) - mean) * r * gain + bias);
    }
  }
}

template <class Real>
void run(const generic::LayerNormBackward<Real>& op) {
  const i64 rows = op.x.shape(0), channels = op.x.shape(1);
  const double count = static_cast<double>(channels);
  Sums<Real> dgain(static_cast<size_t>(channels)), dbias = dgain, dn = dgain, normed = dgain;
  for (i64 n = 0; n < rows; ++n) {
    const Wide<Real> mean = wide(op.mean[n]), r = wide(op.r[n]);
    // y = n g + b  ->  dg += sum_rows dy n          db += sum_rows dy          dn = dy g
    Wide<Real> mean_dn = 0, mean_dn_n = 0;
    for (i64 c = 0; c < channels; ++c) {
      const size_t i = static_cast<size_t>(c);
      const Wide<Real> dy = wide(op.dy(n, c));
      normed[i] = (wide(op.x(n, c)) - mean) * r;
      dgain[i] += dy * normed[i];
      dbias[i] += dy;
      dn[i] = dy * (op.gain.empty() ? 1.0 : wide(op.gain[c]));
      mean_dn += dn[i] / count;
      mean_dn_n += dn[i] * normed[i] / count;
    }
    // n = (x - m) r, with m and r functions of x  ->  dx += r (dn - mean(dn) - n mean(dn n))
    for (i64 c = 0; c < channels; ++c) {
      const size_t i = static_cast<size_t>(c);
      op.dx(n, c) += static_cast<Real>(r * (dn[i] - mean_dn - normed[i] * mean_dn_n));
    }
  }
  if (!op.dgain.empty()) accumulate(dgain, op.dgain.data());
  if (!op.dbias.empty()) accumulate(dbias, op.dbias.data());
}

template void run(const generic::LayerNorm<float>&);
template void run(const generic::LayerNorm<double>&);
template void run(const generic::LayerNorm<Bounded>&);
template void run(const generic::LayerNormBackward<float>&);
template void run(const generic::LayerNormBackward<double>&);
template void run(const generic::LayerNormBackward<Bounded>&);

}  // namespace sparsam::reference
