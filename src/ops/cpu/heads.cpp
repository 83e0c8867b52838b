// Factors, mixtures and decays of heads: one pass over the operands.
#include "ops/heads.h"

#include <cmath>

#include "base/threads.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/partial_sums.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/heads.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

#include "hwy/contrib/math/math-inl.h"
#include "ops/cpu/loops-inl.h"
#include "ops/cpu/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {

// Where masses (B, H, T) have row n H + h of (B T, H).
HWY_INLINE i64 mass_index(const In<float, 3>& masses, i64 row, i64 heads) {
  const i64 time = masses.shape(2), n = row / heads, h = row % heads;
  return (n / time * heads + h) * time + n % time;
}

// tanh x = sign(x) (1 - e) / (1 + e), e = exp(-2 |x|)
template <class D, class V = hn::Vec<D>>
HWY_INLINE V tanh(D d, V x) {
  const V one = hn::Set(d, 1.0f), e = exp(d, hn::Mul(hn::Set(d, -2.0f), hn::Abs(x)));
  return hn::CopySign(hn::Div(hn::Sub(one, e), hn::Add(one, e)), x);
}

void head_scale(const HeadScale& op, i64 begin, i64 end) {
  const i64 heads = op.x.shape(1), size = op.x.shape(2);
  for (i64 row = begin; row < end; ++row)  // of one head
    for_vectors(size, [&](auto d, i64 i) HWY_ATTR {
      const auto factor = hn::Set(d, op.scale.empty() ? 1.0f : op.scale[row % heads]);
      auto y = hn::Mul(factor, hn::LoadU(d, op.x.data() + row * size + i));
      if (op.cap != 0) y = hn::Mul(hn::Set(d, op.cap), tanh(d, hn::Div(y, hn::Set(d, op.cap))));
      hn::StoreU(y, d, op.y.data() + row * size + i);
    });
}

void head_scale_backward(const HeadScaleBackward& op, i64 begin, i64 end, float* dscale) {
  const i64 heads = op.x.shape(1), size = op.x.shape(2);
  for (i64 row = begin; row < end; ++row) {
    const float *dy = op.dy.data() + row * size, *x = op.x.data() + row * size;
    const float* y = op.y.empty() ? nullptr : op.y.data() + row * size;
    float* dx = op.dx.data() + row * size;
    const float factor = op.scale.empty() ? 1.0f : op.scale[row % heads];
    const float sum = sum_vectors(size, [&](auto d, i64 i) HWY_ATTR {
      auto slope = hn::LoadU(d, dy + i);
      if (op.cap != 0) {
        const auto share = hn::Div(hn::LoadU(d, y + i), hn::Set(d, op.cap));
        slope = hn::Mul(slope, hn::NegMulAdd(share, share, hn::Set(d, 1.0f)));
      }
      const auto term = hn::Mul(slope, hn::LoadU(d, x + i));
      hn::StoreU(hn::Mul(slope, hn::Set(d, factor)), d, dx + i);
      return term;
    });
    if (dscale) dscale[row % heads] += sum;
  }
}

// The share of a in row n H + h, and b's.
struct Shares {
  float m, rest;
};
template <class O>
HWY_INLINE Shares shares(const O& op, i64 row) {
  const i64 heads = op.a.shape(1);
  float logit = op.logit[row % heads];
  if (!op.a_lse.empty()) {
    const i64 at = mass_index(op.a_lse, row, heads);
    const float a = op.a_lse.data()[at], b = op.b_lse.data()[at];
    logit = std::isinf(b) ? -b : logit + a - b;  // where b sees nothing, all is a
  }
  return {1 / (1 + std::exp(-logit)), 1 / (1 + std::exp(logit))};
}

void head_mix(const HeadMix& op, i64 begin, i64 end) {
  const i64 heads = op.a.shape(1), size = op.a.shape(2);
  for (i64 row = begin; row < end; ++row) {
    const Shares share = shares(op, row);
    const float m = share.m, rest = share.rest;  // a lambda captures no structured bindings
    if (!op.a_joint.empty()) {
      const i64 at = mass_index(op.a_lse, row, heads);
      const float logit = op.logit[row % heads], a = logit + op.a_lse.data()[at], b = op.b_lse.data()[at];
      const float high = std::max(a, b),
                  joint = std::isinf(high) ? high : high + std::log1p(std::exp(-std::abs(a - b)));
      op.a_joint.data()[at] = joint - logit, op.b_joint.data()[at] = joint;
    }
    for_vectors(size, [&](auto d, i64 i) HWY_ATTR {
      const auto b = hn::Mul(hn::Set(d, rest), hn::LoadU(d, op.b.data() + row * size + i));
      hn::StoreU(hn::MulAdd(hn::Set(d, m), hn::LoadU(d, op.a.data() + row * size + i), b), d,
                 op.y.data() + row * size + i);
    });
  }
}

void head_mix_backward(const HeadMixBackward& op, i64 begin, i64 end, float* dlogit) {
  const i64 heads = op.a.shape(1), size = op.a.shape(2);
  for (i64 row = begin; row < end; ++row) {
    const Shares share = shares(op, row);
    const float m = share.m, rest = share.rest;
    dlogit[row % heads] += m * rest * sum_vectors(size, [&](auto d, i64 i) HWY_ATTR {
                             const i64 at = row * size + i;
                             const auto dy = hn::LoadU(d, op.dy.data() + at);
                             const auto gap = hn::Sub(hn::LoadU(d, op.a.data() + at), hn::LoadU(d, op.b.data() + at));
                             if (!op.da.empty()) hn::StoreU(hn::Mul(hn::Set(d, m), dy), d, op.da.data() + at);
                             if (!op.db.empty()) hn::StoreU(hn::Mul(hn::Set(d, rest), dy), d, op.db.data() + at);
                             return hn::Mul(dy, gap);
                           });
  }
}

void log_decay(const LogDecay& op, i64 begin, i64 end) {
  const float inverse = 1 / op.divisor;
  for_vectors(end - begin, [&](auto d, i64 i) HWY_ATTR {
    const auto x = hn::LoadU(d, op.x.data() + begin + i);
    const auto tail = hn::Log1p(d, exp(d, hn::Neg(hn::Abs(x))));
    hn::StoreU(hn::Mul(hn::Sub(hn::Min(x, hn::Zero(d)), tail), hn::Set(d, inverse)), d, op.y.data() + begin + i);
  });
}

void log_decay_backward(const LogDecayBackward& op, i64 begin, i64 end) {
  const float inverse = 1 / op.divisor;
  for_vectors(end - begin, [&](auto d, i64 i) HWY_ATTR {
    auto rest = hn::Zero(d);
    sigmoid(d, hn::LoadU(d, op.x.data() + begin + i), rest);
    const auto dy = hn::Mul(hn::LoadU(d, op.dy.data() + begin + i), hn::Set(d, inverse));
    hn::StoreU(hn::Mul(dy, rest), d, op.dx.data() + begin + i);
  });
}

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sparsam::cpu {
HWY_EXPORT(head_scale);
HWY_EXPORT(head_scale_backward);
HWY_EXPORT(head_mix);
HWY_EXPORT(head_mix_backward);
HWY_EXPORT(log_decay);
HWY_EXPORT(log_decay_backward);

void run(const HeadScale& op, Workspace&) {
  const auto kernel = HWY_DYNAMIC_DISPATCH(head_scale);
  parallel_ranges(op.x.shape(0) * op.x.shape(1), rows_per_task(op.x.shape(2)),
                  [&](int, i64 begin, i64 end) { kernel(op, begin, end); });
}
void run(const HeadScaleBackward& op, Workspace& workspace) {
  const auto kernel = HWY_DYNAMIC_DISPATCH(head_scale_backward);
  const PartialSums dscale(op.dscale, workspace);
  parallel_ranges(op.x.shape(0) * op.x.shape(1), rows_per_task(op.x.shape(2)),
                  [&](int thread, i64 begin, i64 end) { kernel(op, begin, end, dscale.of(thread)); });
  dscale.add_to(op.dscale);
}
void run(const HeadMix& op, Workspace&) {
  const auto kernel = HWY_DYNAMIC_DISPATCH(head_mix);
  parallel_ranges(op.a.shape(0) * op.a.shape(1), rows_per_task(op.a.shape(2)),
                  [&](int, i64 begin, i64 end) { kernel(op, begin, end); });
}
void run(const HeadMixBackward& op, Workspace& workspace) {
  const auto kernel = HWY_DYNAMIC_DISPATCH(head_mix_backward);
  const PartialSums dlogit(op.dlogit, workspace);
  parallel_ranges(op.a.shape(0) * op.a.shape(1), rows_per_task(op.a.shape(2)),
                  [&](int thread, i64 begin, i64 end) { kernel(op, begin, end, dlogit.of(thread)); });
  dlogit.add_to(op.dlogit);
}
void run(const LogDecay& op, Workspace&) {
  const auto kernel = HWY_DYNAMIC_DISPATCH(log_decay);
  parallel_ranges(op.x.size(), rows_per_task(1), [&](int, i64 begin, i64 end) { kernel(op, begin, end); });
}
void run(const LogDecayBackward& op, Workspace&) {
  const auto kernel = HWY_DYNAMIC_DISPATCH(log_decay_backward);
  parallel_ranges(op.x.size(), rows_per_task(1), [&](int, i64 begin, i64 end) { kernel(op, begin, end); });
}
}  // namespace sparsam::cpu
#endif
