// A recurrence of each channel in log space: vectors of channels, position by position.
#include "ops/log_recurrence.h"

#include <algorithm>

#include "base/threads.h"
#include "ops/cpu/cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/log_recurrence.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

#include "hwy/contrib/math/math-inl.h"
#include "ops/cpu/loops-inl.h"
#include "ops/cpu/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {

// log(1 + exp(-|x|))
template <class D, class V = hn::Vec<D>>
HWY_INLINE V log_tail(D d, V x) {
  return hn::Log1p(d, exp(d, hn::Neg(hn::Abs(x))));
}
template <class D, class V = hn::Vec<D>>
HWY_INLINE V log_sigmoid(D d, V x) {
  return hn::Sub(hn::Min(x, hn::Zero(d)), log_tail(d, x));
}

// Channels [begin, end) of sequence b.
void log_recurrence(const LogRecurrence& op, i64 b, i64 begin, i64 end) {
  const i64 time = op.y.shape(1), stride = op.y.shape(2);
  const float *coefficient = op.coefficient.data() + b * time * stride, *x = op.x.data() + b * time * stride;
  float *y = op.y.data() + b * time * stride, *state = op.state.empty() ? nullptr : &op.state(b, 0);
  for_vectors(end - begin, [&](auto d, i64 i) HWY_ATTR {
    auto sum = state ? hn::LoadU(d, state + begin + i) : hn::Zero(d);
    for (i64 t = 0, at = begin + i; t < time; ++t, at += stride) {
      const auto past = hn::Add(sum, log_sigmoid(d, hn::LoadU(d, coefficient + at))), in = hn::LoadU(d, x + at);
      sum = hn::Add(hn::Max(past, in), log_tail(d, hn::Sub(past, in)));
      hn::StoreU(sum, d, y + at);
    }
    if (state) hn::StoreU(sum, d, state + begin + i);
  });
}

void log_recurrence_backward(const LogRecurrenceBackward& op, i64 b, i64 begin, i64 end) {
  const i64 time = op.y.shape(1), stride = op.y.shape(2), from = b * time * stride + begin;
  for_vectors(end - begin, [&](auto d, i64 i) HWY_ATTR {
    auto later = hn::Zero(d);
    for (i64 t = time; t-- > 0;) {
      const i64 at = from + t * stride + i;
      const auto logit = hn::LoadU(d, op.coefficient.data() + at), y = hn::LoadU(d, op.y.data() + at);
      const auto before = t == 0 ? hn::Zero(d) : hn::LoadU(d, op.y.data() + at - stride);
      const auto sum = hn::Add(hn::LoadU(d, op.dy.data() + at), later);
      auto rest = hn::Zero(d);
      sigmoid(d, logit, rest);
      later = hn::Mul(sum, exp(d, hn::Sub(hn::Add(log_sigmoid(d, logit), before), y)));
      hn::StoreU(hn::Mul(sum, exp(d, hn::Sub(hn::LoadU(d, op.x.data() + at), y))), d, op.dx.data() + at);
      hn::StoreU(hn::Mul(later, rest), d, op.dcoefficient.data() + at);
    }
  });
}

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sparsam::cpu {
HWY_EXPORT(log_recurrence);
HWY_EXPORT(log_recurrence_backward);

namespace {

// One task: so many channels of one sequence.
template <class O, class Kernel>
void run_channels(const O& op, Kernel kernel) {
  constexpr i64 channels = 64;
  const i64 C = op.y.shape(2), parts = (C + channels - 1) / channels;
  const i64 grain = std::max<i64>(1, 64 / std::max<i64>(op.y.shape(1), 1));
  parallel_ranges(op.y.shape(0) * parts, grain, [&](int, i64 begin, i64 end) {
    for (i64 i = begin; i < end; ++i)
      kernel(op, i / parts, i % parts * channels, std::min((i % parts + 1) * channels, C));
  });
}

}  // namespace

void run(const LogRecurrence& op, Workspace&) { run_channels(op, HWY_DYNAMIC_DISPATCH(log_recurrence)); }
void run(const LogRecurrenceBackward& op, Workspace&) {
  run_channels(op, HWY_DYNAMIC_DISPATCH(log_recurrence_backward));
}
}  // namespace sparsam::cpu
#endif
