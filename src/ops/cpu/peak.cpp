#include "ops/cpu/peak.h"

#include <algorithm>

#include "base/clock.h"
#include "base/random.h"
#include "base/threads.h"
#include "ops/cpu/convert.h"
#include "ops/cpu/gemm.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/peak.cpp"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

float read_kernel(const float* x, i64 n) {
  const hn::ScalableTag<float> d;
  const i64 lanes = static_cast<i64>(hn::Lanes(d));
  constexpr i64 ahead = 512, line = 16;  // floats
  auto a = hn::Zero(d), b = a, c = a, e = a;
  for (i64 i = 0; i + 4 * lanes <= n; i += 4 * lanes) {
    for (i64 p = 0; p < 4 * lanes; p += line) hwy::Prefetch(x + i + ahead + p);
    a = hn::Add(a, hn::LoadU(d, x + i)), b = hn::Add(b, hn::LoadU(d, x + i + lanes));
    c = hn::Add(c, hn::LoadU(d, x + i + 2 * lanes)), e = hn::Add(e, hn::LoadU(d, x + i + 3 * lanes));
  }
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(a, b), hn::Add(c, e))));
}

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sparsam::cpu {
HWY_EXPORT(read_kernel);

namespace {

// The shortest time of a call, of those that fit into `seconds`.
template <class Call>
double shortest(double seconds, Call&& call) {
  call();  // compiles, and touches the memory
  double best = 0.0;
  const Stopwatch all;
  do {
    const Stopwatch one;
    call();
    const double time = one.seconds();
    if (best == 0.0 || time < best) best = time;
  } while (all.seconds() < seconds);
  return best;
}

void fill_random(std::span<float> values) {
  Random random(1);
  for (float& value : values) value = static_cast<float>(random.uniform()) - 0.5f;
}

}  // namespace

double measure_gemm_peak(Compute compute, double seconds) {
  struct Size {
    i64 m, n, k;
  };
  double peak = 0.0;
  Arena arena;
  GemmCache cache;
  // The shape that suits the processor best differs; zeros would be multiplied faster than numbers.
  for (const Size& s : {Size{4096, 768, 768}, Size{2048, 2048, 1024}}) {
    arena.reset();
    const auto a = arena.allocate<float>(s.m, s.k), b = arena.allocate<float>(s.k, s.n);
    const auto c = arena.allocate<float>(s.m, s.n);
    fill_random(a.span()), fill_random(b.span());
    GemmOperand left = operand(a.data(), s.k);
    if (compute == Compute::bf16) {
      u16* rounded = arena.allocate<u16>(s.m, s.k).data();
      to_bf16(a.data(), rounded, a.size());
      left = bf16_operand(rounded, s.k);
    }
    const GemmOperand packed = pack(operand(b.data(), s.n), s.k, s.n, left.dtype, arena, cache);
    const double time = shortest(seconds / 2, [&] {
      gemm({.m = s.m, .n = s.n, .k = s.k, .a = left, .b = packed, .c = c.data(), .c_stride = s.n}, cache);
    });
    peak = std::max(peak, 2e-9 * static_cast<double>(s.m * s.n * s.k) / time);
  }
  return peak;
}

double measure_bandwidth(double seconds) {
  constexpr i64 bytes = i64{1} << 29;
  const Buffer buffer(bytes);
  const std::span<float> x = buffer.as<float>();
  const i64 n = static_cast<i64>(x.size()), chunk = 1 << 16;
  const auto kernel = HWY_DYNAMIC_DISPATCH(read_kernel);
  parallel_ranges(n, chunk, [&](int, i64 begin, i64 end) { std::fill(&x[0] + begin, &x[0] + end, 1.0f); });
  std::vector<float> sums(static_cast<size_t>(threads()));
  const double time = shortest(seconds, [&] {
    parallel_ranges(n, chunk, [&](int thread, i64 begin, i64 end) {
      sums[static_cast<size_t>(thread)] += kernel(&x[begin], end - begin);
    });
  });
  check(sums[0] > 0.0f, "bandwidth: read a sum of {}", sums[0]);
  return 1e-9 * static_cast<double>(bytes) / time;
}

}  // namespace sparsam::cpu
#endif
