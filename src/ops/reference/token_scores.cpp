#include "ops/token_scores.h"

#include <numbers>

#include "ops/reference/arithmetic.h"
#include "ops/reference/reference.h"

namespace sparsam::reference {

namespace {

template <class W>
W normal_cdf(W x) {
  return 0.5 * (1.0 + erf(std::sqrt(0.5) * x));
}
template <class W>
W gelu(W x) {
  return x * normal_cdf(x);
}
template <class W>
W gelu_slope(W x) {
  return normal_cdf(x) + x * (std::sqrt(0.5) * std::numbers::inv_sqrtpi) * exp(-0.5 * x * x);
}
template <class W>
W length(const std::vector<W>& x) {
  W squares = 0;
  for (const W& value : x) squares += value * value;
  return sqrt(squares);
}
// The mask of token p.
template <class W>
W mask_of(const auto& op, i64 p) {
  return p < op.old ? W(1) : wide(op.mask);
}
// y = tau x / (N + eps), N = |x|  ->  dx = tau / (N + eps) (dy - x <x, dy> / (N (N + eps)))
template <class W>
std::vector<W> scaled_to_length_backward(const std::vector<W>& x, const std::vector<W>& dy, W norm, W tau, W eps) {
  W dot = 0, pull = 0;
  for (size_t i = 0; i < x.size(); ++i) dot += x[i] * dy[i];
  if (0.0 < norm) pull = dot / (norm * (norm + eps));  // where N = 0, x is 0
  std::vector<W> dx;
  for (size_t i = 0; i < x.size(); ++i) dx.push_back(tau / (norm + eps) * (dy[i] - x[i] * pull));
  return dx;
}

}  // namespace

template <class Real>
void run(const generic::TokenScores<Real>& op) {
  using W = Wide<Real>;
  const W tau = wide(op.tau), eps = wide(op.eps);
  const i64 rows = op.a.shape(0), P = op.a.shape(1);
  for (i64 n = 0; n < rows; ++n) {
    std::vector<W> a;
    for (i64 p = 0; p < P; ++p) a.push_back(wide(op.a(n, p)));
    if (op.theta == Theta::gelu_l2)
      for (W& value : a) value = gelu(value);
    std::vector<W> masked;
    for (i64 p = 0; p < P; ++p) masked.push_back(mask_of<W>(op, p) * a[static_cast<size_t>(p)]);
    if (!op.root.empty()) {
      masked.clear();
      for (i64 r = 0; r < op.root.shape(1); ++r) masked.push_back(wide(op.root(n, r)));
    }
    const W norm = op.theta == Theta::softmax ? log_sum_exp(a) : length(masked);
    if (!op.norm.empty()) op.norm[n] = static_cast<Real>(norm);
    for (i64 p = 0; p < P; ++p) {
      const W value = a[static_cast<size_t>(p)], z = tau * value / (norm + eps);
      op.s(n, p) = static_cast<Real>(op.theta == Theta::softmax   ? tau * tau * exp(value - norm)
                                     : op.theta == Theta::gelu_l2 ? z
                                                                  : mask_of<W>(op, p) * gelu(z));
    }
  }
}

template <class Real>
void run(const generic::TokenScoresBackward<Real>& op) {
  using W = Wide<Real>;
  const W tau = wide(op.tau), eps = wide(op.eps);
  const i64 rows = op.a.shape(0), P = op.a.shape(1);
  for (i64 n = 0; n < rows; ++n) {
    const W norm = wide(op.norm[n]);
    std::vector<W> a, ds, s, da;
    for (i64 p = 0; p < P; ++p) a.push_back(wide(op.a(n, p))), ds.push_back(wide(op.ds(n, p)));
    if (op.theta == Theta::l2_gelu) {
      // s = c gelu(z)  ->  dz = c ds gelu'(z)
      std::vector<W> dz;
      W dot = 0, pull = 0;
      for (i64 p = 0; p < P; ++p) {
        const size_t i = static_cast<size_t>(p);
        const W z = tau * a[i] / (norm + eps), c = mask_of<W>(op, p);
        s.push_back(c * gelu(z)), dz.push_back(c * (ds[i] * gelu_slope(z)));
        dot += a[i] * dz[i];
      }
      // z = tau a / (N + eps), N = |c a|
      if (0.0 < norm) pull = dot / (norm * (norm + eps));  // where N = 0, c a is 0
      for (i64 p = 0; p < P; ++p) {
        const size_t i = static_cast<size_t>(p);
        const W c = mask_of<W>(op, p);
        da.push_back(tau / (norm + eps) * (dz[i] - c * c * (a[i] * pull)));
      }
    } else if (op.theta == Theta::gelu_l2) {
      // s = tau g / (N + eps)
      std::vector<W> g;
      for (const W& value : a) g.push_back(gelu(value)), s.push_back(tau * g.back() / (norm + eps));
      da = scaled_to_length_backward(g, ds, norm, tau, eps);
      // g = gelu(a)  ->  da = dg gelu'(a)
      for (size_t p = 0; p < a.size(); ++p) da[p] = da[p] * gelu_slope(a[p]);
    } else {
      // s = tau^2 exp(a - N), N = log sum exp(a)  ->  da = s (ds - <s, ds> / tau^2)
      W dot = 0;
      for (size_t p = 0; p < a.size(); ++p) s.push_back(tau * tau * exp(a[p] - norm)), dot += s[p] * ds[p];
      for (size_t p = 0; p < a.size(); ++p) da.push_back(s[p] * (ds[p] - dot / (tau * tau)));
    }
    store<Real>(da, op.da[n].data());
    if (!op.s.empty()) store<Real>(s, op.s[n].data());
  }
}

template void run(const generic::TokenScores<float>&);
template void run(const generic::TokenScores<double>&);
template void run(const generic::TokenScores<Bounded>&);
template void run(const generic::TokenScoresBackward<float>&);
template void run(const generic::TokenScoresBackward<double>&);
template void run(const generic::TokenScoresBackward<Bounded>&);

}  // namespace sparsam::reference
