#include "ops/reference/arithmetic.h"
#include "ops/reference/reference.h"

namespace sparsam::reference {

namespace {

template <class W>
W sigmoid(const W& x) {
  return 1.0 / (1.0 + exp(-x));
}
template <class Real>
Wide<Real> factor(const In<Real, 1>& scale, i64 head) {
  return scale.empty() ? 1.0 : wide(scale[head]);
}

}  // namespace

template <class Real>
void run(const generic::HeadScale<Real>& op) {
  for (i64 n = 0; n < op.x.shape(0); ++n)
    for (i64 h = 0; h < op.x.shape(1); ++h)
      for (i64 d = 0; d < op.x.shape(2); ++d) {
        const Wide<Real> y = factor(op.scale, h) * wide(op.x(n, h, d));
        op.y(n, h, d) = static_cast<Real>(static_cast<double>(op.cap) == 0 ? y : wide(op.cap) * tanh(y / wide(op.cap)));
      }
}

template <class Real>
void run(const generic::HeadScaleBackward<Real>& op) {
  for (i64 h = 0; h < op.x.shape(1); ++h) {
    Wide<Real> dscale = 0;
    for (i64 n = 0; n < op.x.shape(0); ++n)
      for (i64 d = 0; d < op.x.shape(2); ++d) {
        Wide<Real> m = wide(op.dy(n, h, d));
        if (static_cast<double>(op.cap) != 0) {
          const Wide<Real> share = wide(op.y(n, h, d)) / wide(op.cap);
          m = m * (1.0 - share * share);
        }
        dscale += m * wide(op.x(n, h, d));
        op.dx(n, h, d) = static_cast<Real>(factor(op.scale, h) * m);
      }
    if (!op.dscale.empty()) op.dscale[h] += static_cast<Real>(dscale);
  }
}

template <class Real>
void run(const generic::HeadLinear<Real>& op) {
  for (i64 n = 0; n < op.x.shape(0); ++n)
    for (i64 h = 0; h < op.x.shape(1); ++h)
      for (i64 f = 0; f < op.w.shape(1); ++f)
        op.y(n, h, f) = static_cast<Real>(dot(&op.w(h, f, 0), &op.x(n, h, 0), op.x.shape(2)));
}

template <class Real>
void run(const generic::HeadLinearBackward<Real>& op) {
  const i64 rows = op.x.shape(0), E = op.x.shape(2), F = op.w.shape(1);
  for (i64 h = 0; h < op.x.shape(1); ++h) {
    for (i64 n = 0; n < rows; ++n) {  // dx_nhe = sum_f w_hfe dy_nhf
      Sums<Real> dx(static_cast<size_t>(E));
      for (i64 f = 0; f < F; ++f) add_scaled(dx, wide(op.dy(n, h, f)), &op.w(h, f, 0));
      store(dx, &op.dx(n, h, 0));
    }
    for (i64 f = 0; f < F; ++f) {  // dw_hfe += sum_n dy_nhf x_nhe
      Sums<Real> dw(static_cast<size_t>(E));
      for (i64 n = 0; n < rows; ++n) add_scaled(dw, wide(op.dy(n, h, f)), &op.x(n, h, 0));
      accumulate(dw, &op.dw(h, f, 0));
    }
  }
}

namespace {

// The place of row n and head h in masses (B, H, T).
template <class Real>
const Real& mass_of(const View<Real, 3>& masses, i64 n, i64 h) {
  const i64 time = masses.shape(2);
  return masses(n / time, h, n % time);
}
template <class W>
bool absent(const W& lse) {
  return std::isinf(static_cast<double>(lse));
}
// The logit of a's share. Where one of the two sees nothing, the other has all: e^-700 vanishes beside anything.
template <class O>
auto share_logit(const O& op, i64 n, i64 h) {
  auto logit = wide(op.logit[h]);
  if (op.a_lse.empty()) return logit;
  const auto a = wide(mass_of(op.a_lse, n, h)), b = wide(mass_of(op.b_lse, n, h));
  if (absent(b)) return decltype(logit)(700.0);
  return absent(a) ? decltype(logit)(-700.0) : logit + a - b;
}

}  // namespace

template <class Real>
void run(const generic::HeadMix<Real>& op) {
  for (i64 n = 0; n < op.a.shape(0); ++n)
    for (i64 h = 0; h < op.a.shape(1); ++h) {
      const Wide<Real> logit = share_logit(op, n, h), m = sigmoid(logit), rest = sigmoid(-logit);
      for (i64 d = 0; d < op.a.shape(2); ++d)
        op.y(n, h, d) = static_cast<Real>(m * wide(op.a(n, h, d)) + rest * wide(op.b(n, h, d)));
      if (op.a_joint.empty()) continue;
      const i64 time = op.a_lse.shape(2);
      const Wide<Real> a_lse = wide(op.logit[h]) + wide(mass_of(op.a_lse, n, h)), b_lse = wide(mass_of(op.b_lse, n, h));
      const Wide<Real> joint = absent(a_lse) ? b_lse : absent(b_lse) ? a_lse : log_sum_exp<Wide<Real>>({a_lse, b_lse});
      op.a_joint(n / time, h, n % time) = static_cast<Real>(joint - wide(op.logit[h]));
      op.b_joint(n / time, h, n % time) = static_cast<Real>(joint);
    }
}

template <class Real>
void run(const generic::HeadMixBackward<Real>& op) {
  for (i64 h = 0; h < op.a.shape(1); ++h) {
    Wide<Real> sum = 0;
    for (i64 n = 0; n < op.a.shape(0); ++n) {
      const Wide<Real> logit = share_logit(op, n, h), m = sigmoid(logit), rest = sigmoid(-logit);
      for (i64 d = 0; d < op.a.shape(2); ++d) {
        const Wide<Real> dy = wide(op.dy(n, h, d));
        sum += m * rest * dy * (wide(op.a(n, h, d)) - wide(op.b(n, h, d)));
        if (!op.da.empty()) op.da(n, h, d) = static_cast<Real>(m * dy);
        if (!op.db.empty()) op.db(n, h, d) = static_cast<Real>(rest * dy);
      }
    }
    op.dlogit[h] += static_cast<Real>(sum);
  }
}

template <class Real>
void run(const generic::LogDecay<Real>& op) {
  for (i64 i = 0; i < op.x.size(); ++i) {  // log sigmoid(x) = min(x, 0) - log(1 + exp(-|x|))
    const Wide<Real> x = wide(op.x.data()[i]), zero = 0.0;
    const bool negative = x < zero;
    op.y.data()[i] = static_cast<Real>(((negative ? x : zero) - log(1.0 + exp(negative ? x : -x))) / wide(op.divisor));
  }
}

template <class Real>
void run(const generic::LogDecayBackward<Real>& op) {
  for (i64 i = 0; i < op.x.size(); ++i)
    op.dx.data()[i] = static_cast<Real>(wide(op.dy.data()[i]) * sigmoid(-wide(op.x.data()[i])) / wide(op.divisor));
}

template void run(const generic::HeadScale<float>&);
template void run(const generic::HeadScale<double>&);
template void run(const generic::HeadScale<Bounded>&);
template void run(const generic::HeadScaleBackward<float>&);
template void run(const generic::HeadScaleBackward<double>&);
template void run(const generic::HeadScaleBackward<Bounded>&);
template void run(const generic::HeadLinear<float>&);
template void run(const generic::HeadLinear<double>&);
template void run(const generic::HeadLinear<Bounded>&);
template void run(const generic::HeadLinearBackward<float>&);
template void run(const generic::HeadLinearBackward<double>&);
template void run(const generic::HeadLinearBackward<Bounded>&);
template void run(const generic::HeadMix<float>&);
template void run(const generic::HeadMix<double>&);
template void run(const generic::HeadMix<Bounded>&);
template void run(const generic::HeadMixBackward<float>&);
template void run(const generic::HeadMixBackward<double>&);
template void run(const generic::HeadMixBackward<Bounded>&);
template void run(const generic::LogDecay<float>&);
template void run(const generic::LogDecay<double>&);
template void run(const generic::LogDecay<Bounded>&);
template void run(const generic::LogDecayBackward<float>&);
template void run(const generic::LogDecayBackward<double>&);
template void run(const generic::LogDecayBackward<Bounded>&);

}  // namespace sparsam::reference
