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
void run(const generic::HeadMix<Real>& op) {
  for (i64 n = 0; n < op.a.shape(0); ++n)
    for (i64 h = 0; h < op.a.shape(1); ++h) {
      const Wide<Real> m = sigmoid(wide(op.logit[h])), rest = sigmoid(-wide(op.logit[h]));
      for (i64 d = 0; d < op.a.shape(2); ++d)
        op.y(n, h, d) = static_cast<Real>(m * wide(op.a(n, h, d)) + rest * wide(op.b(n, h, d)));
    }
}

template <class Real>
void run(const generic::HeadMixBackward<Real>& op) {
  for (i64 h = 0; h < op.a.shape(1); ++h) {
    const Wide<Real> m = sigmoid(wide(op.logit[h])), rest = sigmoid(-wide(op.logit[h]));
    Wide<Real> sum = 0;
    for (i64 n = 0; n < op.a.shape(0); ++n)
      for (i64 d = 0; d < op.a.shape(2); ++d) {
        const Wide<Real> dy = wide(op.dy(n, h, d));
        sum += dy * (wide(op.a(n, h, d)) - wide(op.b(n, h, d)));
        op.da(n, h, d) = static_cast<Real>(m * dy);
        op.db(n, h, d) = static_cast<Real>(rest * dy);
      }
    op.dlogit[h] += static_cast<Real>(m * rest * sum);
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
