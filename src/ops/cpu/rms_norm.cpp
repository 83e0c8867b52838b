// RmsNorm on all threads: two passes over a row that the cache holds.
#include "ops/rms_norm.h"

#include <cmath>

#include "base/threads.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/partial_sums.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/rms_norm.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

#include "ops/cpu/loops-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {

void rms_norm(const RmsNorm& op, i64 begin, i64 end) {
  const i64 n = op.x.shape(1);
  const float* g = op.gain.data();
  for (i64 row = begin; row < end; ++row) {
    const float* x = op.x[row].data();
    float* y = op.y[row].data();
    const float squares = sum_vectors(n, [&](auto d, i64 i) HWY_ATTR {
      const auto v = hn::LoadU(d, x + i);
      return hn::Mul(v, v);
    });
    const float r = 1.0f / std::sqrt(squares / static_cast<float>(n) + op.eps);
    for_vectors(n, [&](auto d, i64 i) HWY_ATTR {
      const auto v = hn::Mul(hn::LoadU(d, x + i), hn::Set(d, r));
      hn::StoreU(g ? hn::Mul(v, hn::LoadU(d, g + i)) : v, d, y + i);
    });
    if (!op.r.empty()) op.r[row] = r;
  }
}

// dg: this thread's sums.
void rms_norm_backward(const RmsNormBackward& op, i64 begin, i64 end, float* dg) {
  const i64 n = op.x.shape(1);
  const float* g = op.gain.data();
  for (i64 row = begin; row < end; ++row) {
    const float *x = op.x[row].data(), *dy = op.dy[row].data();
    float* dx = op.dx[row].data();
    const auto gained = [&](auto d, i64 i) HWY_ATTR {
      const auto v = hn::LoadU(d, dy + i);
      return g ? hn::Mul(v, hn::LoadU(d, g + i)) : v;
    };
    const float dot =
        sum_vectors(n, [&](auto d, i64 i) HWY_ATTR { return hn::Mul(gained(d, i), hn::LoadU(d, x + i)); });
    const float r = op.r[row], pull = r * r * dot / static_cast<float>(n);
    for_vectors(n, [&](auto d, i64 i) HWY_ATTR {
      const auto vx = hn::LoadU(d, x + i), vr = hn::Set(d, r);
      const auto slope = hn::NegMulAdd(vx, hn::Set(d, pull), gained(d, i));
      hn::StoreU(hn::MulAdd(vr, slope, hn::LoadU(d, dx + i)), d, dx + i);
      if (dg) hn::StoreU(hn::MulAdd(hn::LoadU(d, dy + i), hn::Mul(vx, vr), hn::LoadU(d, dg + i)), d, dg + i);
    });
  }
}

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sparsam::cpu {
HWY_EXPORT(rms_norm);
HWY_EXPORT(rms_norm_backward);

void run(const RmsNorm& op, Workspace&) {
  const auto kernel = HWY_DYNAMIC_DISPATCH(rms_norm);
  parallel_ranges(op.x.shape(0), rows_per_task(op.x.shape(1)),
                  [&](int, i64 begin, i64 end) { kernel(op, begin, end); });
}

void run(const RmsNormBackward& op, Workspace& workspace) {
  const auto kernel = HWY_DYNAMIC_DISPATCH(rms_norm_backward);
  const PartialSums dgain(op.dgain, workspace);
  parallel_ranges(op.x.shape(0), rows_per_task(op.x.shape(1)),
                  [&](int thread, i64 begin, i64 end) { kernel(op, begin, end, dgain.of(thread)); });
  dgain.add_to(op.dgain);
}
}  // namespace sparsam::cpu
#endif
