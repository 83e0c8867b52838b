// LayerNorm on all threads: three passes over a row that the cache holds (the variance around the mean, not from
// squares, so that a large mean costs no digits).
#include "ops/layer_norm.h"

#include <cmath>

#include "base/threads.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/partial_sums.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/layer_norm.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

#include "ops/cpu/loops-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {

void layer_norm(const LayerNorm& op, i64 begin, i64 end) {
  const i64 n = op.x.shape(1);
  const float *g = op.gain.data(), *b = op.bias.data();
  for (i64 row = begin; row < end; ++row) {
    const float* x = op.x[row].data();
    float* y = op.y[row].data();
    const float mean =
        sum_vectors(n, [&](auto d, i64 i) HWY_ATTR { return hn::LoadU(d, x + i); }) / static_cast<float>(n);
    const float squares = sum_vectors(n, [&](auto d, i64 i) HWY_ATTR {
      const auto v = hn::Sub(hn::LoadU(d, x + i), hn::Set(d, mean));
      return hn::Mul(v, v);
    });
    const float r = 1.0f / std::sqrt(squares / static_cast<float>(n) + op.eps);
    for_vectors(n, [&](auto d, i64 i) HWY_ATTR {
      auto v = hn::Mul(hn::Sub(hn::LoadU(d, x + i), hn::Set(d, mean)), hn::Set(d, r));
      if (g) v = hn::Mul(v, hn::LoadU(d, g + i));
      if (b) v = hn::Add(v, hn::LoadU(d, b + i));
      hn::StoreU(v, d, y + i);
    });
    if (!op.mean.empty()) op.mean[row] = mean;
    if (!op.r.empty()) op.r[row] = r;
  }
}

// dg, db: this thread's sums.
void layer_norm_backward(const LayerNormBackward& op, i64 begin, i64 end, float* dg, float* db) {
  const i64 n = op.x.shape(1);
  const float* g = op.gain.data();
  for (i64 row = begin; row < end; ++row) {
    const float *x = op.x[row].data(), *dy = op.dy[row].data();
    float* dx = op.dx[row].data();
    const float mean = op.mean[row], r = op.r[row], scale = 1.0f / static_cast<float>(n);
    const auto gained = [&](auto d, i64 i) HWY_ATTR {
      const auto v = hn::LoadU(d, dy + i);
      return g ? hn::Mul(v, hn::LoadU(d, g + i)) : v;
    };
    const auto normal = [&](auto d, i64 i)
                            HWY_ATTR { return hn::Mul(hn::Sub(hn::LoadU(d, x + i), hn::Set(d, mean)), hn::Set(d, r)); };
    const float push = scale * sum_vectors(n, gained);
    const float pull =
        scale * sum_vectors(n, [&](auto d, i64 i) HWY_ATTR { return hn::Mul(gained(d, i), normal(d, i)); });
    for_vectors(n, [&](auto d, i64 i) HWY_ATTR {
      const auto v = normal(d, i), vdy = hn::LoadU(d, dy + i);
      const auto slope = hn::NegMulAdd(v, hn::Set(d, pull), hn::Sub(gained(d, i), hn::Set(d, push)));
      hn::StoreU(hn::MulAdd(hn::Set(d, r), slope, hn::LoadU(d, dx + i)), d, dx + i);
      if (dg) hn::StoreU(hn::MulAdd(vdy, v, hn::LoadU(d, dg + i)), d, dg + i);
      if (db) hn::StoreU(hn::Add(vdy, hn::LoadU(d, db + i)), d, db + i);
    });
  }
}

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sparsam::cpu {
HWY_EXPORT(layer_norm);
HWY_EXPORT(layer_norm_backward);

void run(const LayerNorm& op, Workspace&) {
  const auto kernel = HWY_DYNAMIC_DISPATCH(layer_norm);
  parallel_ranges(op.x.shape(0), rows_per_task(op.x.shape(1)),
                  [&](int, i64 begin, i64 end) { kernel(op, begin, end); });
}

void run(const LayerNormBackward& op, Workspace& workspace) {
  const auto kernel = HWY_DYNAMIC_DISPATCH(layer_norm_backward);
  const PartialSums dgain(op.dgain, workspace), dbias(op.dbias, workspace);
  parallel_ranges(op.x.shape(0), rows_per_task(op.x.shape(1)),
                  [&](int thread, i64 begin, i64 end) { kernel(op, begin, end, dgain.of(thread), dbias.of(thread)); });
  dgain.add_to(op.dgain), dbias.add_to(op.dbias);
}
}  // namespace sparsam::cpu
#endif
