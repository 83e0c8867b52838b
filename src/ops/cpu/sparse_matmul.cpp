// Products that read only the rows of a weight that count: a matter of memory bandwidth.
#include "ops/sparse_matmul.h"

#include <algorithm>
#include <type_traits>

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

// Two integers of q4_0, less 8: those of outputs e (the low half) and e + 16.
struct Nibbles {
  u8 pair;
};
using Lanes = hn::CappedTag<float, 16>;
constexpr i64 group = InputMajor::block;  // outputs whose integers lie together
constexpr size_t vectors_of_group = static_cast<size_t>(group) / hn::MaxLanes(Lanes());

// The integers of a group of outputs as float32.
HWY_INLINE void load_group(const i8* q, hn::Vec<Lanes>* values) {
  const Lanes d;
  const hn::Rebind<i32, Lanes> di;
  for (size_t v = 0; v < vectors_of_group; ++v)
    values[v] = hn::ConvertTo(d, hn::PromoteTo(di, hn::LoadU(hn::Rebind<i8, Lanes>(), q + v * hn::Lanes(d))));
}
HWY_INLINE void load_group(const Nibbles* q, hn::Vec<Lanes>* values) {
  const Lanes d;
  const hn::Rebind<i32, Lanes> di;
  constexpr size_t half = vectors_of_group / 2;
  const auto eight = hn::Set(di, 8);
  for (size_t v = 0; v < half; ++v) {
    const auto pairs = hn::PromoteTo(di, hn::LoadU(hn::Rebind<u8, Lanes>(), &q[v * hn::Lanes(d)].pair));
    values[v] = hn::ConvertTo(d, hn::Sub(hn::And(pairs, hn::Set(di, 15)), eight));
    values[half + v] = hn::ConvertTo(d, hn::Sub(hn::ShiftRight<4>(pairs), eight));
  }
}

// Up to `most` live rows of a quantised weight, of one block of inputs.
template <class Integer>
struct LiveRows {
  static constexpr i64 most = 8;
  static constexpr i64 numbers = std::is_same_v<Integer, Nibbles> ? 2 : 1;  // of a byte
  const F16* scales = nullptr;
  const Integer* rows[most];
  i64 count = 0;
  bool first = false, last = false;  // of their block

  // Those from live[i] on, if any.
  LiveRows(const InputMajor& t, const i32* live, i64 i, i64 total) {
    if (i == total) return;
    constexpr i32 size = static_cast<i32>(InputMajor::block);
    const i32 begin = live[i] / size * size, end = begin + size;
    scales = reinterpret_cast<const F16*>(t.scales(begin / size));
    first = i == 0 || live[i - 1] < begin;
    const auto* integers = reinterpret_cast<const Integer*>(t.row(begin));
    const i64 distance = t.row_bytes(), most_here = std::min(most, total - i);
    for (; count < most_here && live[i + count] < end; ++count)
      rows[count] = integers + (live[i + count] - begin) * distance;
    last = i + count == total || live[i + count] >= end;
  }
};

// For `Groups` groups of outputs from column c on, and N vectors: sums_n = sum_r f_rn q_r, to which those of the
// block's rows before are added; then, of the block's last rows, y_n += scales sums_n.
template <int N, int Groups, class Integer>
HWY_INLINE void add_groups(const LiveRows<Integer>& live, i64 c, const float* f, float* sums, i64 width, float* y,
                           i64 stride) {
  const Lanes d;
  constexpr size_t size = Groups * vectors_of_group;
  hn::Vec<Lanes> total[N][size], q[vectors_of_group];
  for (int n = 0; n < N; ++n)
    for (size_t v = 0; v < size; ++v)
      total[n][v] = live.first ? hn::Zero(d) : hn::LoadU(d, sums + n * width + v * hn::Lanes(d));
  for (i64 r = 0; r < live.count; ++r)
    for (i64 g = 0; g < Groups; ++g) {
      load_group(live.rows[r] + (c + g * group) / live.numbers, q);
      for (int n = 0; n < N; ++n) {
        const auto factor = hn::Set(d, f[r * N + n]);
        for (size_t v = 0; v < vectors_of_group; ++v) {
          auto& sum = total[n][static_cast<size_t>(g) * vectors_of_group + v];
          sum = hn::MulAdd(factor, q[v], sum);
        }
      }
    }
  for (size_t v = 0; v < size; ++v) {
    const i64 at = static_cast<i64>(v * hn::Lanes(d));
    if (live.last) {
      const auto scale = load(d, live.scales + c + at);
      for (int n = 0; n < N; ++n)
        hn::StoreU(hn::MulAdd(scale, total[n][v], hn::LoadU(d, y + n * stride + at)), d, y + n * stride + at);
    } else {
      for (int n = 0; n < N; ++n) hn::StoreU(total[n][v], d, sums + n * width + at);
    }
  }
}

// Columns [begin, end) of y += the live rows of a quantised weight, a few at a time, while the next come nearer.
template <int N, class Integer>
void add_live_integers(const SkippingMatmul& op, const i32* live, i64 count, i64 begin, i64 end) {
  constexpr i64 line = 64, width = 4096 / N / 128 * 128;
  constexpr int Groups = N <= 2 ? 2 : 1;
  using Rows = LiveRows<Integer>;
  const i64 stride = op.y.shape(1);
  alignas(64) float sums[N * width];
  for (; end - begin > width; begin += width) add_live_integers<N, Integer>(op, live, count, begin, begin + width);
  Rows now(op.t, live, 0, count);
  for (i64 i = 0; i < count;) {
    const Rows later(op.t, live, i + now.count, count);
    float f[Rows::most * N];
    for (i64 r = 0; r < now.count; ++r)
      for (int n = 0; n < N; ++n) f[r * N + n] = op.x(n, live[i + r]);
    i64 c = begin;
    for (; c + Groups * group <= end; c += Groups * group) {
      if ((c - begin) % (line * Rows::numbers) == 0)
        for (i64 r = 0; r < later.count; ++r) hwy::Prefetch(later.rows[r] + c / Rows::numbers);
      if (later.last) hwy::Prefetch(later.scales + c), hwy::Prefetch(later.scales + c + group);
      add_groups<N, Groups>(now, c, f, sums + c - begin, width, op.y.data() + c, stride);
    }
    for (; c < end; c += group) {  // the last ones, of which y may not have a whole group
      float part[N * group];
      const i64 rest = std::min(group, end - c);
      for (i64 n = 0; n < N; ++n) std::copy_n(op.y.data() + n * stride + c, rest, part + n * group);
      add_groups<N, 1>(now, c, f, sums + c - begin, width, part, group);
      for (i64 n = 0; n < N; ++n) std::copy_n(part + n * group, rest, op.y.data() + n * stride + c);
    }
    i += now.count, now = later;
  }
}

// Columns [begin, end) of y += the live rows of a plain weight, R at a time from the `i`-th on while there are R, as
// those after them come nearer; returns where it ended.
template <int R, class Element>
HWY_INLINE i64 add_live_elements(const SkippingMatmul& op, const Element* t, const i32* live, i64 count, i64 i,
                                 i64 begin, i64 end) {
  const i64 N = op.x.shape(0);
  const auto part = [&](i64 r) { return t + live[std::min(r, count - 1)] * op.t.cols + begin; };
  float f[few * R];
  const Element *rows[R], *later[R];
  for (; i + R <= count; i += R) {
    for (int r = 0; r < R; ++r) {
      rows[r] = part(i + r), later[r] = part(i + R + r);
      for (i64 n = 0; n < N; ++n) f[n * R + r] = op.x(n, live[i + r]);
    }
    add_together<R>(rows, later, f, N, end - begin, op.y.data() + begin, op.y.shape(1));
  }
  return i;
}

// Columns [begin, end) of y, which holds the bias.
void add_live_rows(const SkippingMatmul& op, const i32* live, i64 count, i64 begin, i64 end) {
  if (is_quantised(op.t.dtype))
    return with_rows(op.x.shape(0), [&](auto rows) HWY_ATTR {
      constexpr int N = decltype(rows)::value;
      if (op.t.dtype == DType::q8_0)
        add_live_integers<N, i8>(op, live, count, begin, end);
      else
        add_live_integers<N, Nibbles>(op, live, count, begin, end);
    });
  with_elements(op.t.bytes.data(), op.t.dtype, [&]<class Element>(const Element* t) HWY_ATTR {
    const i64 done = add_live_elements<8>(op, t, live, count, 0, begin, end);
    add_live_elements<1>(op, t, live, count, done, begin, end);
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
  if (is_above(op.crossover, live.shape(0), op.t.rows)) {
    run(Matmul{.y = op.y, .x = op.x, .w = op.w, .bias = op.bias, .compute = Compute::f32}, workspace);
    return workspace.arena.release(mark);
  }
  const i64 cols = op.t.cols, N = op.x.shape(0);
  const auto kernel = HWY_DYNAMIC_DISPATCH(add_live_rows);
  // Each thread has columns of its own: nothing is added up between threads.
  parallel_ranges(cols, 64, [&](int, i64 begin, i64 end) {
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
    skip_few({.y = op.y.slice(n, rows),
              .x = op.x.slice(n, rows),
              .t = op.t,
              .bias = op.bias,
              .w = op.w,
              .crossover = op.crossover},
             workspace);
  }
}

}  // namespace sparsam::cpu
#endif
