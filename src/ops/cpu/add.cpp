// Add on all threads. Highway compiles this file once per target; dispatch is once per operation.
#include "base/threads.h"
#include "ops/cpu/cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/add.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

void add(const float* a, const float* b, float* y, i64 n) {
  const hn::ScalableTag<float> d;
  const i64 lanes = static_cast<i64>(hn::Lanes(d));
  i64 i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(hn::Add(hn::LoadU(d, a + i), hn::LoadU(d, b + i)), d, y + i);
  for (; i < n; ++i) y[i] = a[i] + b[i];
}

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sparsam::cpu {
HWY_EXPORT(add);

void run(const Add& op, Workspace&) {
  const auto kernel = HWY_DYNAMIC_DISPATCH(add);
  parallel_ranges(op.a.size(), 4096, [&](int, i64 begin, i64 end) {
    kernel(op.a.data() + begin, op.b.data() + begin, op.y.data() + begin, end - begin);
  });
}
}  // namespace sparsam::cpu
#endif
