#include "ops/reference/arithmetic.h"
#include "ops/reference/reference.h"

namespace sparsam::reference {

template <class Real>
void run(const generic::SquaredNorm<Real>& op) {
  op.sum[0] = static_cast<double>(dot(op.x.data(), op.x.data(), op.x.size()));
}

template <class Real>
void run(const generic::AdamW<Real>& op) {
  const Wide<Real> b1 = wide(op.beta1), b2 = wide(op.beta2), lr = wide(op.learning_rate), eps = wide(op.eps);
  const Wide<Real> weight_decay = wide(op.weight_decay);
  const double t = static_cast<double>(op.step);
  for (i64 i = 0; i < op.w.size(); ++i) {
    const Wide<Real> g = wide(op.gradient_scale) * wide(op.dw[i]);
    // m = b1 m + (1 - b1) g      v = b2 v + (1 - b2) g^2
    const Wide<Real> m = b1 * wide(op.m[i]) + (1.0 - b1) * g;
    const Wide<Real> v = b2 * wide(op.v[i]) + (1.0 - b2) * g * g;
    op.m[i] = static_cast<Real>(m);
    op.v[i] = static_cast<Real>(v);
    // w = w - lr (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + weight_decay w)
    const Wide<Real> w = wide(op.w[i]), step = m / (1.0 - pow(b1, t)) / (sqrt(v / (1.0 - pow(b2, t))) + eps);
    op.w[i] = static_cast<Real>(w - lr * (step + weight_decay * w));
  }
}

template void run(const generic::SquaredNorm<float>&);
template void run(const generic::SquaredNorm<double>&);
template void run(const generic::SquaredNorm<Bounded>&);
template void run(const generic::AdamW<float>&);
template void run(const generic::AdamW<double>&);
template void run(const generic::AdamW<Bounded>&);

}  // namespace sparsam::reference
