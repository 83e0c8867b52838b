// The loss of distillation and its gradient, a row of logits at a time: the largest logits, the sums of exponentials,
// then, where the gradient is wanted, the exponentials again.
#include "ops/distillation.h"

#include <algorithm>
#include <cmath>

#include "base/threads.h"
#include "ops/cpu/cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/distillation.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

#include "ops/cpu/loops-inl.h"
#include "ops/cpu/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {

// sum_v exp((x_v - most) / tau)
float sum_exponentials(const float* x, i64 n, float most, float inverse_tau) {
  return sum_vectors(n, [&](auto d, i64 i) HWY_ATTR {
    return exp(d, hn::Mul(hn::Sub(hn::LoadU(d, x + i), hn::Set(d, most)), hn::Set(d, inverse_tau)));
  });
}

void distillation_row(const Distillation& op, i64 n) {
  const i64 V = op.z.shape(1), target = op.targets[n];
  const float *z = op.z[n].data(), *t = op.t[n].data();
  float* dz = op.dz.empty() ? nullptr : op.dz[n].data();
  op.loss[n] = 0;
  if (target < 0) {
    if (dz) std::fill_n(dz, V, 0.0f);
    return;
  }
  const float w = op.weight, tau = op.temperature, inverse = 1 / tau, z_target = z[target];
  const float z_most = *std::max_element(z, z + V), t_most = *std::max_element(t, t + V);
  const float sum = sum_exponentials(z, V, z_most, 1), t_sum = sum_exponentials(t, V, t_most, inverse);
  const float z_sum = tau == 1 ? sum : sum_exponentials(z, V, z_most, inverse);
  // sum_v p_v log(p_v / q_v), where log(p_v / q_v) = ((t_v - most) - (z_v - most)) / tau - log_ratio: each term is
  // small where the two agree
  const float log_ratio = std::log(t_sum) - std::log(z_sum);
  const float divergence = sum_vectors(V, [&](auto d, i64 i) HWY_ATTR {
    const auto at = hn::Mul(hn::Sub(hn::LoadU(d, t + i), hn::Set(d, t_most)), hn::Set(d, inverse));
    const auto az = hn::Mul(hn::Sub(hn::LoadU(d, z + i), hn::Set(d, z_most)), hn::Set(d, inverse));
    return hn::Mul(exp(d, at), hn::Sub(hn::Sub(at, az), hn::Set(d, log_ratio)));
  });
  op.loss[n] = (1 - w) * (std::log(sum) - (z_target - z_most)) + w * tau * tau * (divergence / t_sum);
  if (!dz) return;
  const float hard = op.scale * (1 - w) / sum, z_soft = op.scale * w * tau / z_sum, t_soft = op.scale * w * tau / t_sum;
  for_vectors(V, [&](auto d, i64 i) HWY_ATTR {
    const auto az = hn::Sub(hn::LoadU(d, z + i), hn::Set(d, z_most));
    const auto at = hn::Mul(hn::Sub(hn::LoadU(d, t + i), hn::Set(d, t_most)), hn::Set(d, inverse));
    const auto e = exp(d, az);
    const auto student = tau == 1 ? e : exp(d, hn::Mul(az, hn::Set(d, inverse)));
    const auto soft = hn::Sub(hn::Mul(student, hn::Set(d, z_soft)), hn::Mul(exp(d, at), hn::Set(d, t_soft)));
    hn::StoreU(hn::MulAdd(e, hn::Set(d, hard), soft), d, dz + i);
  });
  dz[target] -= op.scale * (1 - w);
}

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sparsam::cpu {
HWY_EXPORT(distillation_row);

void run(const Distillation& op, Workspace&) {
  const auto kernel = HWY_DYNAMIC_DISPATCH(distillation_row);
  parallel_ranges(op.z.shape(0), 1, [&](int, i64 begin, i64 end) {
    for (i64 n = begin; n < end; ++n) kernel(op, n);
  });
}

}  // namespace sparsam::cpu
#endif
