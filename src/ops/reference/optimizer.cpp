#include <cmath>

#include "ops/reference/factors.h"
#include "ops/reference/reference.h"

namespace sparsam::reference {

template <class Real>
void run(const generic::SquaredNorm<Real>& op) {
  op.sum[0] = dot(op.x.data(), op.x.data(), op.x.size());
}

template <class Real>
void run(const generic::AdamW<Real>& op) {
  const double b1 = static_cast<double>(op.beta1), b2 = static_cast<double>(op.beta2);
  const double lr = static_cast<double>(op.learning_rate), eps = static_cast<double>(op.eps);
  const double weight_decay = static_cast<double>(op.weight_decay);
  const double step = static_cast<double>(op.step);
  for (i64 i = 0; i < op.w.size(); ++i) {
    const double g = static_cast<double>(op.gradient_scale) * static_cast<double>(op.dw[i]);
    const double m = b1 * static_cast<double>(op.m[i]) + (1 - b1) * g;
    const double v = b2 * static_cast<double>(op.v[i]) + (1 - b2) * g * g;
    const double w = static_cast<double>(op.w[i]);
    const double update = m / (1 - std::pow(b1, step)) / (std::sqrt(v / (1 - std::pow(b2, step))) + eps);
    op.m[i] = static_cast<Real>(m);
    op.v[i] = static_cast<Real>(v);
    op.w[i] = static_cast<Real>(w - lr * (update + weight_decay * w));
  }
}

template void run(const generic::SquaredNorm<float>&);
template void run(const generic::SquaredNorm<double>&);
template void run(const generic::AdamW<float>&);
template void run(const generic::AdamW<double>&);

}  // namespace sparsam::reference
