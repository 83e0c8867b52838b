// The L1 norm of rows on all threads, and its gradient elementwise.
#include "ops/l1_norm.h"

#include "base/threads.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/partial_sums.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/l1_norm.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

#include "ops/cpu/loops-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {

// Of one row: returns sum |h|, adds 1 to active where h is not 0.
float l1_norm(const float* h, float* active, i64 n) {
  return sum_vectors(n, [&](auto d, i64 i) HWY_ATTR {
    const auto x = hn::LoadU(d, h + i), count = hn::LoadU(d, active + i);
    hn::StoreU(hn::Add(count, hn::IfThenZeroElse(hn::Eq(x, hn::Zero(d)), hn::Set(d, 1.0f))), d, active + i);
    return hn::Abs(x);
  });
}

void l1_norm_backward(const L1NormBackward& op, i64 begin, i64 n) {
  const float* h = op.h.data() + begin;
  float* dh = op.dh.data() + begin;
  for_vectors(n, [&](auto d, i64 i) HWY_ATTR {
    const auto x = hn::LoadU(d, h + i), zero = hn::Zero(d), scale = hn::Set(d, op.scale);
    const auto up = hn::IfThenElseZero(hn::Gt(x, zero), scale), down = hn::IfThenElseZero(hn::Lt(x, zero), scale);
    hn::StoreU(hn::Add(hn::LoadU(d, dh + i), hn::Sub(up, down)), d, dh + i);
  });
}

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sparsam::cpu {
HWY_EXPORT(l1_norm);
HWY_EXPORT(l1_norm_backward);

void run(const L1Norm& op, Workspace& workspace) {
  const auto kernel = HWY_DYNAMIC_DISPATCH(l1_norm);
  const PartialSums active(op.active, workspace);
  const Arena::Mark mark = workspace.arena.mark();
  const auto sums = workspace.arena.zeros<double>(threads());
  parallel_ranges(op.h.shape(0), rows_per_task(op.h.shape(1)), [&](int thread, i64 begin, i64 end) {
    for (i64 n = begin; n < end; ++n)
      sums[thread] += static_cast<double>(kernel(op.h[n].data(), active.of(thread), op.h.shape(1)));
  });
  double norm = 0;
  for (const double sum : sums) norm += sum;  // in the order of the threads
  op.norm[0] = static_cast<float>(norm);
  workspace.arena.release(mark);
  active.add_to(op.active);
}

void run(const L1NormBackward& op, Workspace&) {
  const auto kernel = HWY_DYNAMIC_DISPATCH(l1_norm_backward);
  parallel_ranges(op.h.size(), 4096, [&](int, i64 begin, i64 end) { kernel(op, begin, end - begin); });
}
}  // namespace sparsam::cpu
#endif
