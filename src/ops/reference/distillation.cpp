#include "ops/distillation.h"

#include "ops/reference/arithmetic.h"
#include "ops/reference/reference.h"

namespace sparsam::reference {

template <class Real>
void run(const generic::Distillation<Real>& op) {
  const i64 V = op.z.shape(1);
  const Wide<Real> w = wide(op.weight), tau = wide(op.temperature), scale = wide(op.scale);
  Sums<Real> z(static_cast<size_t>(V)), z_tau = z, t_tau = z;
  for (i64 n = 0; n < op.z.shape(0); ++n) {
    const i32 target = op.targets[n];
    for (i64 v = 0; v < V; ++v) {
      const size_t i = static_cast<size_t>(v);
      z[i] = wide(op.z(n, v)), z_tau[i] = z[i] / tau, t_tau[i] = wide(op.t(n, v)) / tau;
      if (target < 0 && !op.dz.empty()) op.dz(n, v) = Real(0);
    }
    op.loss[n] = Real(0);
    if (target < 0) continue;
    const Wide<Real> lse = log_sum_exp(z), lse_z = log_sum_exp(z_tau), lse_t = log_sum_exp(t_tau);
    // loss_n = (1 - w)(log sum exp(z) - z_target) + w tau^2 sum p log(p / q)
    Wide<Real> divergence = 0;
    for (size_t v = 0; v < z.size(); ++v)
      divergence += exp(t_tau[v] - lse_t) * ((t_tau[v] - lse_t) - (z_tau[v] - lse_z));
    op.loss[n] = static_cast<Real>((1.0 - w) * (lse - z[static_cast<size_t>(target)]) + w * (tau * (tau * divergence)));
    // dz_v = scale ((1 - w)(softmax(z)_v - [v = target]) + w tau (q_v - p_v))
    for (i64 v = 0; v < op.dz.size() / op.z.shape(0); ++v) {
      const size_t i = static_cast<size_t>(v);
      const Wide<Real> hard = exp(z[i] - lse) - (v == target ? 1.0 : 0.0);
      const Wide<Real> soft = exp(z_tau[i] - lse_z) - exp(t_tau[i] - lse_t);
      op.dz(n, v) = static_cast<Real>(scale * ((1.0 - w) * hard + w * (tau * soft)));
    }
  }
}

template void run(const generic::Distillation<float>&);
template void run(const generic::Distillation<double>&);
template void run(const generic::Distillation<Bounded>&);

}  // namespace sparsam::reference
