// Rope on all threads.
#include "ops/rope.h"

#include <algorithm>

#include "base/threads.h"
#include "ops/cpu/cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/rope.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

#include "ops/cpu/loops-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {

// One head: `pairs` pairs of channels; `sign` is 1, or -1 for the inverse. Both channels are read before either is
// written, so y may be x.
void rope_head(Pairing pairing, const float* x, const float* cosine, const float* sine, float sign, float* y,
               i64 pairs) {
  for_vectors(pairs, [&](auto d, i64 i) HWY_ATTR {
    const auto c = hn::LoadU(d, cosine + i), s = hn::Mul(hn::LoadU(d, sine + i), hn::Set(d, sign));
    auto a = hn::Zero(d), b = a;
    if (pairing == Pairing::halves)
      a = hn::LoadU(d, x + i), b = hn::LoadU(d, x + pairs + i);
    else
      hn::LoadInterleaved2(d, x + 2 * i, a, b);
    const auto turned_a = hn::NegMulAdd(b, s, hn::Mul(a, c)), turned_b = hn::MulAdd(a, s, hn::Mul(b, c));
    if (pairing == Pairing::halves)
      hn::StoreU(turned_a, d, y + i), hn::StoreU(turned_b, d, y + pairs + i);
    else
      hn::StoreInterleaved2(turned_a, turned_b, d, y + 2 * i);
  });
}

void rope(const Rope& op, i64 begin, i64 end) {
  const i64 pairs = op.cosine.shape(1), channels = op.x.shape(2);
  for (i64 n = begin; n < end; ++n) {
    const i64 position = op.positions[n];
    const float *cosine = op.cosine[position].data(), *sine = op.sine[position].data();
    for (i64 h = 0; h < op.x.shape(1); ++h) {
      const float* x = op.x[n][h].data();
      float* y = op.y[n][h].data();
      rope_head(op.pairing, x, cosine, sine, op.inverse ? -1.0f : 1.0f, y, pairs);
      if (x != y) std::copy(x + 2 * pairs, x + channels, y + 2 * pairs);
    }
  }
}

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sparsam::cpu {
HWY_EXPORT(rope);

void run(const Rope& op, Workspace&) {
  const auto kernel = HWY_DYNAMIC_DISPATCH(rope);
  const i64 row = op.x.shape(1) * op.x.shape(2);
  parallel_ranges(op.x.shape(0), std::max<i64>(1, 2048 / std::max<i64>(row, 1)),
                  [&](int, i64 begin, i64 end) { kernel(op, begin, end); });
}
}  // namespace sparsam::cpu
#endif
