// Truncate on all threads, row by row.
#include "ops/truncate.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "base/threads.h"
#include "ops/cpu/cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/truncate.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

#include "ops/cpu/loops-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {

// m = |s| w
void neuron_sizes(const float* s, const float* w, float* m, i64 n) {
  for_vectors(n, [&](auto d, i64 i) HWY_ATTR {
    const auto size = hn::Abs(hn::LoadU(d, s + i));
    hn::StoreU(w ? hn::Mul(size, hn::LoadU(d, w + i)) : size, d, m + i);
  });
}

// y = h where m is not below `least`; returns how many.
i64 keep_from(const float* m, float least, const float* h, float* y, i64 n) {
  i64 active = 0;
  for_vectors(n, [&](auto d, i64 i) HWY_ATTR {
    const auto below = hn::Lt(hn::LoadU(d, m + i), hn::Set(d, least));
    active += static_cast<i64>(hn::Lanes(d) - hn::CountTrue(d, below));
    hn::StoreU(hn::IfThenZeroElse(below, hn::LoadU(d, h + i)), d, y + i);
  });
  return active;
}

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sparsam::cpu {
HWY_EXPORT(neuron_sizes);
HWY_EXPORT(keep_from);

void run(const Truncate& op, Workspace& workspace) {
  const i64 N = op.h.shape(0), F = op.h.shape(1);
  const auto sizes = HWY_DYNAMIC_DISPATCH(neuron_sizes);
  const auto keep = HWY_DYNAMIC_DISPATCH(keep_from);
  const Arena::Mark mark = workspace.arena.mark();
  const auto scratch = workspace.arena.allocate<float>(threads(), 2 * F);
  parallel_ranges(N, std::max<i64>(1, 4096 / F), [&](int thread, i64 begin, i64 end) {
    float *m = scratch[thread].data(), *sorted = m + F;
    for (i64 n = begin; n < end; ++n) {
      sizes(op.s[n].data(), op.w.data(), m, F);
      float least = op.threshold;
      if (op.keep > 0 && op.keep < F) {
        // NaN has no place in an order: it counts as the greatest, since it passes.
        std::transform(m, m + F, sorted, [](float x) { return std::isnan(x) ? INFINITY : x; });
        std::nth_element(sorted, sorted + op.keep - 1, sorted + F, std::greater<>());
        least = std::max(least, sorted[op.keep - 1]);
      }
      op.active[n] = static_cast<float>(keep(m, least, op.h[n].data(), op.y[n].data(), F));
    }
  });
  workspace.arena.release(mark);
}

}  // namespace sparsam::cpu
#endif
