// Scale on all threads.
#include "ops/scale.h"

#include "base/threads.h"
#include "ops/cpu/cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/scale.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

#include "ops/cpu/loops-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {

void scale(const float* x, float factor, float* y, i64 n) {
  for_vectors(n,
              [&](auto d, i64 i) HWY_ATTR { hn::StoreU(hn::Mul(hn::Set(d, factor), hn::LoadU(d, x + i)), d, y + i); });
}

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sparsam::cpu {
HWY_EXPORT(scale);

void run(const Scale& op, Workspace&) {
  const auto kernel = HWY_DYNAMIC_DISPATCH(scale);
  parallel_ranges(op.x.size(), 4096, [&](int, i64 begin, i64 end) {
    kernel(op.x.data() + begin, op.factor, op.y.data() + begin, end - begin);
  });
}
}  // namespace sparsam::cpu
#endif
