// Short causal convolution: rows of all channels at a time, over a copy of the weight that lies tap by tap.
#include "ops/causal_convolution.h"

#include <algorithm>

#include "base/threads.h"
#include "ops/cpu/cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/causal_convolution.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

#include "ops/cpu/loops-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {

// to (C) += w x
HWY_INLINE void add_product(const float* w, const float* x, i64 channels, float* to) {
  for_vectors(channels, [&](auto d, i64 c) HWY_ATTR {
    hn::StoreU(hn::MulAdd(hn::LoadU(d, w + c), hn::LoadU(d, x + c), hn::LoadU(d, to + c)), d, to + c);
  });
}

// Rows [begin, end) of y; taps (K, C).
void convolve(const CausalConvolution& op, const float* taps, i64 begin, i64 end) {
  const i64 time = op.x.shape(1), channels = op.x.shape(2), K = op.w.shape(1);
  for (i64 row = begin; row < end; ++row) {
    const i64 b = row / time, t = row % time;
    std::copy_n(&op.x(b, t, 0), channels, &op.y(b, t, 0));
    for (i64 i = 0; i < K; ++i) {
      const i64 from = t - K + 1 + i;
      if (from < 0 && op.state.empty()) continue;
      const float* x = from < 0 ? &op.state(b, from + K - 1, 0) : &op.x(b, from, 0);
      add_product(taps + i * channels, x, channels, &op.y(b, t, 0));
    }
  }
}

// dx of rows [begin, end), and their share of dw in `dtaps` (K, C).
void convolve_backward(const CausalConvolutionBackward& op, const float* taps, i64 begin, i64 end, float* dtaps) {
  const i64 time = op.x.shape(1), channels = op.x.shape(2), K = op.w.shape(1);
  for (i64 row = begin; row < end; ++row) {
    const i64 b = row / time, t = row % time;
    std::copy_n(&op.dy(b, t, 0), channels, &op.dx(b, t, 0));
    for (i64 i = K; i-- > 0;) {
      const i64 later = t + K - 1 - i, earlier = t - K + 1 + i;
      if (later < time) add_product(taps + i * channels, &op.dy(b, later, 0), channels, &op.dx(b, t, 0));
      if (earlier >= 0) add_product(&op.dy(b, t, 0), &op.x(b, earlier, 0), channels, dtaps + i * channels);
    }
  }
}

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sparsam::cpu {
HWY_EXPORT(convolve);
HWY_EXPORT(convolve_backward);

namespace {

const float* tap_by_tap(const In<float, 2>& w, Arena& arena) {
  const auto taps = arena.allocate<float>(w.shape(1), w.shape(0));
  for (i64 c = 0; c < w.shape(0); ++c)
    for (i64 i = 0; i < w.shape(1); ++i) taps(i, c) = w(c, i);
  return taps.data();
}
i64 rows_for_a_thread(i64 channels) { return std::max<i64>(1, 8192 / std::max<i64>(channels, 1)); }

}  // namespace

void run(const CausalConvolution& op, Workspace& workspace) {
  const i64 batch = op.x.shape(0), time = op.x.shape(1), channels = op.x.shape(2), past = op.w.shape(1) - 1;
  const Arena::Mark mark = workspace.arena.mark();
  const float* taps = tap_by_tap(op.w, workspace.arena);
  const auto kernel = HWY_DYNAMIC_DISPATCH(convolve);
  parallel_ranges(batch * time, rows_for_a_thread(channels),
                  [&](int, i64 begin, i64 end) { kernel(op, taps, begin, end); });
  for (i64 b = 0; !op.state.empty() && b < batch; ++b)
    for (i64 i = 0; i < past; ++i) {  // in order: a row of the state is read before it is written
      const i64 from = time - past + i;
      std::copy_n(from < 0 ? &op.state(b, i + time, 0) : &op.x(b, from, 0), channels, &op.state(b, i, 0));
    }
  workspace.arena.release(mark);
}

void run(const Delay& op, Workspace&) {
  const i64 time = op.x.shape(1), channels = op.x.shape(2);
  for (i64 b = 0; b < op.x.shape(0); ++b)
    for (i64 t = 0; t < time; ++t) {
      float* y = &op.y(b, t, 0);
      if (!op.state.empty()) {
        float* oldest = &op.state(b, (op.start + t) % op.delay, 0);
        std::copy_n(oldest, channels, y);
        std::copy_n(&op.x(b, t, 0), channels, oldest);
      } else if (t < op.delay) {
        std::fill_n(y, channels, op.fill);
      } else {
        std::copy_n(&op.x(b, t - op.delay, 0), channels, y);
      }
    }
}

void run(const DelayBackward& op, Workspace&) {
  const i64 batch = op.dy.shape(0), size = op.dy.shape(1) * op.dy.shape(2);
  const i64 lost = std::min(op.delay, op.dy.shape(1)) * op.dy.shape(2);
  for (i64 b = 0; b < batch; ++b) {
    float* dx = op.dx.data() + b * size;
    std::copy_n(op.dy.data() + b * size + lost, size - lost, dx);
    std::fill_n(dx + size - lost, lost, 0.0f);
  }
}

void run(const CausalConvolutionBackward& op, Workspace& workspace) {
  const i64 channels = op.x.shape(2), K = op.w.shape(1);
  const Arena::Mark mark = workspace.arena.mark();
  const float* taps = tap_by_tap(op.w, workspace.arena);
  const auto sums = workspace.arena.zeros<float>(threads(), K, channels);
  const auto kernel = HWY_DYNAMIC_DISPATCH(convolve_backward);
  parallel_ranges(op.x.shape(0) * op.x.shape(1), rows_for_a_thread(channels),
                  [&](int thread, i64 begin, i64 end) { kernel(op, taps, begin, end, sums[thread].data()); });
  for (i64 t = 0; t < sums.shape(0); ++t)
    for (i64 c = 0; c < channels; ++c)
      for (i64 i = 0; i < K; ++i) op.dw(c, i) += sums(t, i, c);
  workspace.arena.release(mark);
}
}  // namespace sparsam::cpu
#endif
