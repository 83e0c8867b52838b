// Products that read only the rows of a weight that count: a matter of memory bandwidth.
#include "ops/sparse_matmul.h"

#include <algorithm>
#include <numeric>

#include "base/threads.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/few_rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/sparse_matmul.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

#include "ops/cpu/dot-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {

// The columns in which a row of `values` (N, F) has something other than 0, ascending; returns how many. `live` has
// room for a vector more.
i64 live_columns(In<float, 2> values, i32* live) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> di;
  const i64 N = values.shape(0), F = values.shape(1), lanes = static_cast<i64>(hn::Lanes(d));
  i64 count = 0, i = 0;
  for (; i + lanes <= F; i += lanes) {
    auto any = hn::Ne(hn::LoadU(d, values.data() + i), hn::Zero(d));
    for (i64 n = 1; n < N; ++n) any = hn::Or(any, hn::Ne(hn::LoadU(d, values.data() + n * F + i), hn::Zero(d)));
    count += static_cast<i64>(
        hn::CompressStore(hn::Iota(di, static_cast<i32>(i)), hn::RebindMask(di, any), di, live + count));
  }
  for (; i < F; ++i) {
    bool any = false;
    for (i64 n = 0; n < N; ++n) any |= values(n, i) != 0;
    live[count] = static_cast<i32>(i);
    count += any;
  }
  return count;
}

// Rows live[begin, end) of the weight for up to `few` rows of x. `scratch` holds a row of the weight.
void selected_rows(const SelectedMatmul& op, const i32* live, i64 begin, i64 end, float* scratch) {
  dot_weight_rows(op.x, op.w, op.bias, op.y, begin, end, scratch, [live](i64 i) { return i64{live[i]}; });
}

// y_n += sum_r f_nr row_r over [0, cols) for R rows and N vectors y_n of length `stride`, row after row, while those of
// `later` come nearer.
template <int R, class Element>
HWY_INLINE void add_together(const Element* const* rows, const Element* const* later, const float* f, i64 N, i64 cols,
                             float* y, i64 stride) {
  const hn::ScalableTag<float> d;
  const i64 lanes = static_cast<i64>(hn::Lanes(d));
  constexpr i64 line = 64 / static_cast<i64>(sizeof(Element));
  i64 j = 0;
  for (; j + lanes <= cols; j += lanes) {
    if (j % line == 0)
      for (int r = 0; r < R; ++r) hwy::Prefetch(later[r] + j);
    hn::Vec<decltype(d)> values[R];
    for (int r = 0; r < R; ++r) values[r] = load(d, rows[r] + j);
    for (i64 n = 0; n < N; ++n) {
      auto sum = hn::LoadU(d, y + n * stride + j);
      for (int r = 0; r < R; ++r) sum = hn::MulAdd(hn::Set(d, f[n * R + r]), values[r], sum);
      hn::StoreU(sum, d, y + n * stride + j);
    }
  }
  for (; j < cols; ++j)
    for (i64 n = 0; n < N; ++n)
      for (int r = 0; r < R; ++r) y[n * stride + j] += f[n * R + r] * load_one(rows[r] + j);
}

#if HWY_TARGET != HWY_SCALAR
// scales_r = f_r d_r for the blocks `b` of R rows, of formats that have one scale.
template <int R, class Block>
HWY_INLINE void scale_together(const Block* const* rows, i64 b, const float* f, float* scales) {
  const hn::CappedTag<float, R> d;
  const hn::Rebind<hwy::float16_t, decltype(d)> d16;
  alignas(16) u16 bits[8];
  for (int r = 0; r < R; ++r) bits[r] = rows[r][b].d.bits();
  for (i64 r = 0; r < R; r += static_cast<i64>(hn::Lanes(d)))
    hn::StoreU(hn::Mul(hn::LoadU(d, f + r),
                       hn::PromoteTo(d, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(bits + r)))),
               d, scales + r);
}

// y += sum_r f_r row_r over [0, cols), row after row.
template <int R, class Block>
HWY_INLINE void add_blocks_together(const Block* const* rows, const Block* const* later, const float* f, i64 cols,
                                    float* y) {
  using U = Unpacked<Block>;
  const BlockLanes d;
  constexpr i64 size = static_cast<i64>(sizeof(Block)), together = std::max<i64>(64 / size, 1);
  constexpr bool plain = U::groups == 1 && !U::has_bases;
  U u[R];
  alignas(64) float scales[R];
  for (i64 b = 0; b < cols / U::size; ++b, y += U::size) {
    if (b % together == 0)
      for (int r = 0; r < R; ++r)
        for (i64 byte = 0; byte < size; byte += 64) hwy::Prefetch(reinterpret_cast<const u8*>(later[r] + b) + byte);
    for (int r = 0; r < R; ++r) unpack(rows[r][b], u[r]);
    if constexpr (plain) scale_together<R>(rows, b, f, scales);
    for (i64 g = 0; g < U::groups; ++g) {
      if constexpr (!plain)
        for (int r = 0; r < R; ++r) scales[r] = f[r] * u[r].scale[g];
      for (i64 i = g * U::group_size; i < (g + 1) * U::group_size; i += static_cast<i64>(hn::Lanes(d))) {
        auto sum = hn::LoadU(d, y + i);
        for (int r = 0; r < R; ++r) {
          sum = hn::MulAdd(hn::Set(d, scales[r]), integers(d, u[r].q + i), sum);
          if constexpr (U::has_bases) sum = hn::Add(sum, hn::Set(d, f[r] * u[r].base[g]));
        }
        hn::StoreU(sum, d, y + i);
      }
    }
  }
}
#else
template <int R, class Block>
void add_blocks_together(const Block* const* rows, const Block* const*, const float* f, i64 cols, float* y) {
  std::array<float, static_cast<size_t>(block_size(Block::dtype))> values;
  for (int r = 0; r < R; ++r)
    for (i64 j = 0; j < cols; j += block_size(Block::dtype)) {
      blocks_to_float(rows[r] + j / block_size(Block::dtype), 1, values.data());
      for (size_t i = 0; i < values.size(); ++i) y[j + static_cast<i64>(i)] += f[r] * values[i];
    }
}
#endif

// The same for N vectors y_n of length `stride`: the rows become floats once for all of them.
template <int R, class Block>
HWY_INLINE void add_as_floats(const Block* const* rows, const float* f, i64 N, i64 cols, float* y, i64 stride) {
  constexpr i64 size = block_size(Block::dtype), most = std::max<i64>(512, size);
  alignas(64) float values[R * most];
  const float* parts[R];
  for (i64 begin = 0; begin < cols; begin += most) {
    const i64 count = std::min(most, cols - begin);
    for (int r = 0; r < R; ++r) {
      blocks_to_float(rows[r] + begin / size, count / size, values + r * most);
      parts[r] = values + r * most;
    }
    add_together<R>(parts, parts, f, N, count, y + begin, stride);
  }
}

// Formats of few instructions an element, of which several rows at once are worth their code.
template <class Element>
constexpr bool is_read_together = true;
template <class Block>
requires requires { Block::dtype; }
constexpr bool is_read_together<Block> = block_size(Block::dtype) == 32;

// The live rows of a weight as a list of parts of them, R at a time.
template <class Element>
struct LiveRows {
  const Element* t;  // the part of row 0
  i64 distance;      // of rows
  const i32* live;
  i64 count;
  const SkippingMatmul& op;
  i64 begin, cols;  // of y

  const Element* part(i64 i) const { return t + live[std::min(i, count - 1)] * distance; }

  // Adds rows from `i` on while there are R; returns where it ended.
  template <int R>
  HWY_ATTR i64 add(i64 i) const {
    const i64 N = op.x.shape(0), stride = op.y.shape(1);
    float f[few * R];
    const Element *rows[R], *later[R];
    for (; i + R <= count; i += R) {
      for (int r = 0; r < R; ++r) {
        rows[r] = part(i + r), later[r] = part(i + R + r);
        for (i64 n = 0; n < N; ++n) f[n * R + r] = op.x(n, live[i + r]);
      }
      if constexpr (requires { Element::dtype; }) {
        if (N == 1)
          add_blocks_together<R>(rows, later, f, cols, op.y.data() + begin);
        else
          add_as_floats<R>(rows, f, N, cols, op.y.data() + begin, stride);
      } else
        add_together<R>(rows, later, f, N, cols, op.y.data() + begin, stride);
    }
    return i;
  }
};

// Columns [begin, end) of y, which holds the bias: whole blocks of a quantised weight. Rows are added in their order,
// one after the other: zeros left out or not, the bits are the same.
void add_live_rows(const SkippingMatmul& op, const i32* live, i64 count, i64 begin, i64 end) {
  const i64 cols = op.t.cols;
  const auto add_all = [&]<class Element>(const LiveRows<Element>& rows) HWY_ATTR {
    i64 done = 0;
    if constexpr (is_read_together<Element>) done = rows.template add<8>(0);
    rows.template add<1>(done);
  };
  if (!is_quantised(op.t.dtype))
    return with_elements(op.t.bytes.data(), op.t.dtype, [&]<class Element>(const Element* t) HWY_ATTR {
      add_all(LiveRows<Element>{t + begin, cols, live, count, op, begin, end - begin});
    });
  with_block(op.t.dtype, [&]<class Block>(Block) HWY_ATTR {
    constexpr i64 size = block_size(Block::dtype);
    const auto* t = reinterpret_cast<const Block*>(op.t.bytes.data());
    add_all(LiveRows<Block>{t + begin / size, cols / size, live, count, op, begin, end - begin});
  });
}

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sparsam::cpu {
HWY_EXPORT(live_columns);
HWY_EXPORT(selected_rows);
HWY_EXPORT(add_live_rows);

namespace {

View<i32, 1> live_columns_of(In<float, 2> values, Arena& arena) {
  constexpr i64 widest = 64;  // lanes of a vector
  const auto live = arena.allocate<i32>(values.shape(1) + widest);
  return live.slice(0, HWY_DYNAMIC_DISPATCH(live_columns)(values, live.data()));
}

bool is_above(float crossover, i64 live, i64 rows) {
  return static_cast<float>(live) > crossover * static_cast<float>(rows);
}

void zero_unselected(const SelectedMatmul& op) {
  for (i64 i = 0; i < op.y.size(); ++i)
    if (op.s.data()[i] == 0) op.y.data()[i] = 0;
}

void select_few(const SelectedMatmul& op, Workspace& workspace) {
  const Arena::Mark mark = workspace.arena.mark();
  const auto live = live_columns_of(op.s, workspace.arena);
  if (is_above(op.crossover, live.shape(0), op.w.rows)) {
    run(Matmul{.y = op.y, .x = op.x, .w = op.w, .bias = op.bias, .compute = Compute::f32}, workspace);
    zero_unselected(op);
    return workspace.arena.release(mark);
  }
  const auto scratch = workspace.arena.allocate<float>(threads(), is_quantised(op.w.dtype) ? op.w.cols : 0);
  std::fill(op.y.begin(), op.y.end(), 0.0f);
  const auto kernel = HWY_DYNAMIC_DISPATCH(selected_rows);
  parallel_ranges(live.shape(0), std::max<i64>(1, 16384 / op.w.cols),
                  [&](int thread, i64 begin, i64 end) { kernel(op, live.data(), begin, end, scratch[thread].data()); });
  if (op.x.shape(0) > 1) zero_unselected(op);
  workspace.arena.release(mark);
}

void skip_few(const SkippingMatmul& op, Workspace& workspace) {
  const Arena::Mark mark = workspace.arena.mark();
  const auto live = live_columns_of(op.x, workspace.arena);
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

}  // namespace

void run(const SelectedMatmul& op, Workspace& workspace) {
  for (i64 n = 0; n < op.x.shape(0); n += few) {
    const i64 rows = std::min(few, op.x.shape(0) - n);
    select_few({.y = op.y.slice(n, rows),
                .x = op.x.slice(n, rows),
                .w = op.w,
                .bias = op.bias,
                .s = op.s.slice(n, rows),
                .crossover = op.crossover},
               workspace);
  }
}

void run(const SkippingMatmul& op, Workspace& workspace) {
  for (i64 n = 0; n < op.x.shape(0); n += few) {
    const i64 rows = std::min(few, op.x.shape(0) - n);
    skip_few({.y = op.y.slice(n, rows), .x = op.x.slice(n, rows), .t = op.t, .bias = op.bias}, workspace);
  }
}

}  // namespace sparsam::cpu
#endif
