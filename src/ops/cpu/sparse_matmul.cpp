// Products that read only the rows of a weight that count: a matter of memory bandwidth.
#include "ops/sparse_matmul.h"

#include <algorithm>
#include <numeric>

#include "base/threads.h"
#include "ops/cpu/cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/sparse_matmul.cpp"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

#include "ops/cpu/blocks-inl.h"
#include "ops/cpu/convert-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {

// x . w for a row w; `next` is the row that will be read after it, which need not lie behind it.
template <class Element>
HWY_INLINE float dot_row(const float* x, const Element* w, const Element* next, i64 cols) {
  const hn::ScalableTag<float> d;
  const i64 lanes = static_cast<i64>(hn::Lanes(d));
  constexpr i64 ahead = 2048 / static_cast<i64>(sizeof(Element)), line = 64 / static_cast<i64>(sizeof(Element));
  auto a = hn::Zero(d), b = a, c = a, e = a;
  i64 i = 0;
  for (; i + 4 * lanes <= cols; i += 4 * lanes) {
    const Element* later = i + ahead < cols ? w + i + ahead : next + (i + ahead - cols);
    for (i64 p = 0; p < 4 * lanes; p += line) hwy::Prefetch(later + p);
    a = hn::MulAdd(load(d, w + i), hn::LoadU(d, x + i), a);
    b = hn::MulAdd(load(d, w + i + lanes), hn::LoadU(d, x + i + lanes), b);
    c = hn::MulAdd(load(d, w + i + 2 * lanes), hn::LoadU(d, x + i + 2 * lanes), c);
    e = hn::MulAdd(load(d, w + i + 3 * lanes), hn::LoadU(d, x + i + 3 * lanes), e);
  }
  for (; i + lanes <= cols; i += lanes) a = hn::MulAdd(load(d, w + i), hn::LoadU(d, x + i), a);
  float sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(a, b), hn::Add(c, e))));
  for (; i < cols; ++i) sum += x[i] * load_one(w + i);
  return sum;
}

// Rows live[begin, end) of the weight; y is zero where nothing is selected. `sums` as dot_blocks() wants them, (N,
// ...).
void selected_rows(const SelectedMatmul& op, const i32* live, i64 begin, i64 end, float* sums) {
  const i64 cols = op.w.cols, N = op.x.shape(0);
  const auto store_all = [&](i64 row, auto&& dot) HWY_ATTR {
    for (i64 n = 0; n < N; ++n)
      if (op.s(n, row) != 0) op.y(n, row) = dot(n) + (op.bias.empty() ? 0.0f : op.bias[row]);
  };
  if (is_quantised(op.w.dtype))
    return with_block(op.w.dtype, [&]<class Block>(Block) HWY_ATTR {
      const i64 blocks = cols / block_size(Block::dtype);
      for (i64 n = 0; n < N; ++n) group_sums<Block>(op.x[n].data(), blocks, sums + n * cols);
      for (i64 i = begin; i < end; ++i)
        store_all(live[i], [&](i64 n) HWY_ATTR {
          return dot_blocks(reinterpret_cast<const Block*>(op.w.row(live[i])), blocks, op.x[n].data(), sums + n * cols);
        });
    });
  with_elements(op.w.bytes.data(), op.w.dtype, [&](const auto* w) HWY_ATTR {
    for (i64 i = begin; i < end; ++i) {
      const auto* row = w + live[i] * cols;
      const auto* next = w + live[std::min(i + 1, end - 1)] * cols;
      store_all(live[i], [&](i64 n) HWY_ATTR { return dot_row(op.x[n].data(), row, next, cols); });
    }
  });
}

// y += f_0 rows_0 + ... + f_3 rows_3 over [0, n), while the rows of the next four come nearer.
template <class Element>
HWY_INLINE void add_four(const Element* const* rows, const Element* const* later, const float* f, i64 n, float* y) {
  const hn::ScalableTag<float> d;
  const i64 lanes = static_cast<i64>(hn::Lanes(d));
  constexpr i64 line = 64 / static_cast<i64>(sizeof(Element));
  const auto f0 = hn::Set(d, f[0]), f1 = hn::Set(d, f[1]), f2 = hn::Set(d, f[2]), f3 = hn::Set(d, f[3]);
  i64 j = 0;
  for (; j + lanes <= n; j += lanes) {
    if (j % line == 0)
      for (int r = 0; r < 4; ++r) hwy::Prefetch(later[r] + j);
    auto sum = hn::MulAdd(f0, load(d, rows[0] + j), hn::LoadU(d, y + j));
    sum = hn::MulAdd(f1, load(d, rows[1] + j), sum);
    sum = hn::MulAdd(f2, load(d, rows[2] + j), sum);
    hn::StoreU(hn::MulAdd(f3, load(d, rows[3] + j), sum), d, y + j);
  }
  for (; j < n; ++j)
    for (int r = 0; r < 4; ++r) y[j] += f[r] * load_one(rows[r] + j);
}

template <class Element>
void add_rows(const SkippingMatmul& op, const Element* t, const i32* live, i64 count, i64 begin, i64 end) {
  const i64 cols = op.t.cols, N = op.x.shape(0);
  const auto row = [&](i64 i) { return t + live[std::min(i, count - 1)] * cols + begin; };
  for (i64 i = 0; i < count; i += 4) {
    const Element* rows[4] = {row(i), row(i + 1), row(i + 2), row(i + 3)};
    const Element* later[4] = {row(i + 4), row(i + 5), row(i + 6), row(i + 7)};
    for (i64 n = 0; n < N; ++n) {
      float f[4];
      for (i64 r = 0; r < 4; ++r) f[r] = i + r < count ? op.x(n, live[i + r]) : 0.0f;
      add_four(rows, later, f, end - begin, op.y[n].data() + begin);
    }
  }
}

#if HWY_TARGET != HWY_SCALAR
// y += factor w for a part of a row of blocks.
template <class Block>
HWY_INLINE void add_blocks(const Block* w, const Block* later, i64 blocks, float factor, float* y) {
  using U = Unpacked<Block>;
  const BlockLanes d;
  U u;
  for (i64 b = 0; b < blocks; ++b, y += U::size) {
    for (i64 byte = 0; byte < static_cast<i64>(sizeof(Block)); byte += 64)
      hwy::Prefetch(reinterpret_cast<const u8*>(later + b) + byte);
    unpack(w[b], u);
    for (i64 g = 0; g < U::groups; ++g) {
      const auto scale = hn::Set(d, factor * u.scale[g]);
      for (i64 i = g * U::group_size; i < (g + 1) * U::group_size; i += static_cast<i64>(hn::Lanes(d))) {
        auto sum = hn::MulAdd(scale, integers(d, u.q + i), hn::LoadU(d, y + i));
        if constexpr (U::has_bases) sum = hn::Add(sum, hn::Set(d, factor * u.base[g]));
        hn::StoreU(sum, d, y + i);
      }
    }
  }
}
#else
template <class Block>
void add_blocks(const Block* w, const Block*, i64 blocks, float factor, float* y) {
  std::array<float, static_cast<size_t>(block_size(Block::dtype))> values;
  for (i64 b = 0; b < blocks; ++b) {
    blocks_to_float(w + b, 1, values.data());
    for (const float value : values) *y++ += factor * value;
  }
}
#endif

// Columns [begin, end) of y, which holds the bias: whole blocks of a quantised weight.
void add_live_rows(const SkippingMatmul& op, const i32* live, i64 count, i64 begin, i64 end) {
  if (!is_quantised(op.t.dtype))
    return with_elements(op.t.bytes.data(), op.t.dtype,
                         [&](const auto* t) HWY_ATTR { add_rows(op, t, live, count, begin, end); });
  with_block(op.t.dtype, [&]<class Block>(Block) HWY_ATTR {
    constexpr i64 size = block_size(Block::dtype);
    const auto part = [&](i64 i) {
      return reinterpret_cast<const Block*>(op.t.row(live[std::min(i, count - 1)])) + begin / size;
    };
    for (i64 i = 0; i < count; ++i)
      for (i64 n = 0; n < op.x.shape(0); ++n)
        if (const float f = op.x(n, live[i]); f != 0)
          add_blocks(part(i), part(i + 2), (end - begin) / size, f, op.y[n].data() + begin);
  });
}

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sparsam::cpu {
HWY_EXPORT(selected_rows);
HWY_EXPORT(add_live_rows);

namespace {

// The columns in which a row of `values` (N, F) has something other than 0, ascending.
View<i32, 1> live_columns(In<float, 2> values, Arena& arena) {
  const i64 N = values.shape(0), F = values.shape(1);
  const auto live = arena.allocate<i32>(F);
  i64 count = 0;
  for (i64 i = 0; i < F; ++i) {
    bool any = false;
    for (i64 n = 0; n < N; ++n) any |= values(n, i) != 0;
    live[count] = static_cast<i32>(i);
    count += any;
  }
  return live.slice(0, count);
}

// Beyond this fraction all rows in their order come faster than those that count (bench --sparse: 0.40 gains 20 %, 0.55
// loses 1 %). Fixed, so that what is computed does not hang on a stopwatch.
constexpr double crossover = 0.5;

bool is_dense(i64 live, i64 rows) { return static_cast<double>(live) > crossover * static_cast<double>(rows); }

}  // namespace

void run(const SelectedMatmul& op, Workspace& workspace) {
  const Arena::Mark mark = workspace.arena.mark();
  const auto live = live_columns(op.s, workspace.arena);
  if (is_dense(live.shape(0), op.w.rows)) {
    run(Matmul{.y = op.y, .x = op.x, .w = op.w, .bias = op.bias, .compute = Compute::f32}, workspace);
    for (i64 i = 0; i < op.y.size(); ++i)
      if (op.s.data()[i] == 0) op.y.data()[i] = 0;
    return workspace.arena.release(mark);
  }
  const i64 cols = op.w.cols;
  const auto sums = workspace.arena.allocate<float>(threads(), is_quantised(op.w.dtype) ? op.x.size() : 0);
  std::fill(op.y.begin(), op.y.end(), 0.0f);
  const auto kernel = HWY_DYNAMIC_DISPATCH(selected_rows);
  parallel_ranges(live.shape(0), std::max<i64>(1, 16384 / cols),
                  [&](int thread, i64 begin, i64 end) { kernel(op, live.data(), begin, end, sums[thread].data()); });
  workspace.arena.release(mark);
}

void run(const SkippingMatmul& op, Workspace& workspace) {
  const Arena::Mark mark = workspace.arena.mark();
  const auto live = live_columns(op.x, workspace.arena);
  if (!op.w.empty() && is_dense(live.shape(0), op.t.rows)) {
    workspace.arena.release(mark);
    return run(Matmul{.y = op.y, .x = op.x, .w = op.w, .bias = op.bias, .compute = Compute::f32}, workspace);
  }
  const i64 cols = op.t.cols, N = op.x.shape(0);
  const auto kernel = HWY_DYNAMIC_DISPATCH(add_live_rows);
  // Each thread has columns of its own: nothing is added up between threads.
  const i64 grain = std::lcm(i64{64}, block_size(op.t.dtype));
  parallel_ranges(cols, grain, [&](int, i64 begin, i64 end) {
    for (i64 n = 0; n < N; ++n)
      for (i64 j = begin; j < end; ++j) op.y(n, j) = op.bias.empty() ? 0.0f : op.bias[j];
    if (live.shape(0) > 0) kernel(op, live.data(), live.shape(0), begin, end);
  });
  workspace.arena.release(mark);
}

}  // namespace sparsam::cpu
#endif
