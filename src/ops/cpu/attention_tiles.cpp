// The elementwise half of attention: gathering, softmax and its backward.
#include "ops/cpu/attention_tiles.h"

#include <algorithm>
#include <cmath>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/attention_tiles.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

#include "ops/cpu/convert-inl.h"
#include "ops/cpu/loops-inl.h"
#include "ops/cpu/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {

// Panel elements, written from vectors of float.
template <class D>
HWY_INLINE void put(D d, hn::Vec<D> x, float* y) {
  hn::StoreU(x, d, y);
}
template <class D>
HWY_INLINE void put(D d, hn::Vec<D> x, Bf16* y) {
  store_bf16(d, x, &y->bits);
}
template <class Body>
HWY_INLINE void with_panel(const Panel& panel, Body&& body) {
  if (panel.dtype == DType::bf16)
    body(reinterpret_cast<Bf16*>(panel.data));
  else
    body(reinterpret_cast<float*>(panel.data));
}

void gather(const StridedRows& source, i64 rows, i64 padded, const Panel& panel) {
  const i64 n = panel.cols;
  with_panel(panel, [&](auto* to) HWY_ATTR {
    with_elements(source.data, source.dtype, [&](const auto* from) HWY_ATTR {
      for (i64 r = 0; r < rows; ++r)
        for_vectors(n, [&](auto d, i64 i) HWY_ATTR { put(d, load(d, from + r * source.stride + i), to + r * n + i); });
    });
    std::fill(to + rows * n, to + padded * n, std::remove_pointer_t<decltype(to)>{});
  });
}

void row_dots(const StridedRows& a, const StridedRows& b, i64 rows, i64 cols, float* dots) {
  const float *x = static_cast<const float*>(a.data), *y = static_cast<const float*>(b.data);
  for (i64 r = 0; r < rows; ++r, x += a.stride, y += b.stride)
    dots[r] =
        sum_vectors(cols, [&](auto d, i64 i) HWY_ATTR { return hn::Mul(hn::LoadU(d, x + i), hn::LoadU(d, y + i)); });
}

// Rows are `chunk` wide, a multiple of every vector, so the last vector of a limited row may be read and written whole.
template <class E>
void softmax_row(const float* s, float scale, i64 limit, i64 columns, float before, E* p, float& largest, float& sum) {
  const Lanes d;
  const i64 lanes = static_cast<i64>(hn::Lanes(d)), whole = limit / lanes * lanes;
  const auto inside = hn::FirstN(d, static_cast<size_t>(limit - whole));
  const Vector nothing = hn::Set(d, -std::numeric_limits<float>::infinity()), vscale = hn::Set(d, scale);
  Vector high = nothing, other = nothing;
  i64 i = 0;
  for (; i + 2 * lanes <= whole; i += 2 * lanes) {
    high = hn::Max(high, hn::Mul(hn::LoadU(d, s + i), vscale));
    other = hn::Max(other, hn::Mul(hn::LoadU(d, s + i + lanes), vscale));
  }
  if (i < whole) high = hn::Max(high, hn::Mul(hn::LoadU(d, s + i), vscale));
  if (whole < limit) other = hn::Max(other, hn::IfThenElse(inside, hn::Mul(hn::LoadU(d, s + whole), vscale), nothing));
  largest = std::max(before, hn::GetLane(hn::MaxOfLanes(d, hn::Max(high, other))));
  const Vector shift = hn::Set(d, largest);
  Vector total = hn::Zero(d);
  for (i = 0; i < whole; i += lanes) {
    const Vector e = exp(d, hn::MulSub(hn::LoadU(d, s + i), vscale, shift));
    total = hn::Add(total, e);
    put(d, e, p + i);
  }
  if (whole < limit) {
    const Vector e = hn::IfThenElseZero(inside, exp(d, hn::MulSub(hn::LoadU(d, s + whole), vscale, shift)));
    total = hn::Add(total, e);
    put(d, e, p + whole);
    i += lanes;
  }
  for (; i < columns; i += lanes) put(d, hn::Zero(d), p + i);
  sum = hn::GetLane(hn::SumOfLanes(d, total));
}

void softmax_chunk(float* scores, float scale, i64 rows, i64 columns, Mask mask, bool first, const Panel& p,
                   const RunningSoftmax& state) {
  constexpr float nothing = -std::numeric_limits<float>::infinity();
  const Lanes lanes_tag;
  const i64 lanes = static_cast<i64>(hn::Lanes(lanes_tag));
  with_panel(p, [&](auto* to) HWY_ATTR {
    const std::remove_pointer_t<decltype(to)> zero{};
    for (i64 r = 0; r < rows; ++r) {
      const i64 limit = std::clamp<i64>(mask.limit + r * mask.step, 0, columns);
      const i64 seen = std::clamp<i64>(mask.first + r * mask.step, 0, limit);
      const float before = first ? nothing : state.largest[r];
      if (seen == limit) {  // only after the first chunk
        std::fill(to + r * chunk, to + r * chunk + columns, zero);
        continue;
      }
      // Whole vectors of hidden columns are zero; those that share a vector with seen ones count for nothing.
      const i64 hidden = seen / lanes * lanes;
      float *s = scores + r * chunk, sum;
      std::fill(s + hidden, s + seen, nothing);
      std::fill(to + r * chunk, to + r * chunk + hidden, zero);
      softmax_row(s + hidden, scale, limit - hidden, columns - hidden, before, to + r * chunk + hidden,
                  state.largest[r], sum);
      if (!first && state.largest[r] != before) {
        const float factor = std::exp(before - state.largest[r]);
        state.sum[r] *= factor;
        float* values = state.values + r * state.head_size;
        for_vectors(state.head_size, [&](auto d, i64 i) HWY_ATTR {
          hn::StoreU(hn::Mul(hn::LoadU(d, values + i), hn::Set(d, factor)), d, values + i);
        });
      }
      state.sum[r] = first ? sum : state.sum[r] + sum;
    }
    std::fill(to + rows * chunk, to + tile * chunk, std::remove_pointer_t<decltype(to)>{});
  });
}

void finish_softmax(const RunningSoftmax& state, i64 rows, float* y, i64 y_stride, float* lse) {
  for (i64 r = 0; r < rows; ++r) {
    const float* values = state.values + r * state.head_size;
    const float factor = 1.0f / state.sum[r];
    for_vectors(state.head_size, [&](auto d, i64 i) HWY_ATTR {
      hn::StoreU(hn::Mul(hn::LoadU(d, values + i), hn::Set(d, factor)), d, y + r * y_stride + i);
    });
    if (lse) lse[r] = state.largest[r] + std::log(state.sum[r]);
  }
}

void scores_backward(const ScoresBackward& t, const Panel& p, const Panel& ds) {
  const Lanes d;
  const i64 lanes = static_cast<i64>(hn::Lanes(d));
  const Vector scale = hn::Set(d, t.scale);
  with_panel(p, [&](auto* to_p) HWY_ATTR {
    auto* to_ds = reinterpret_cast<decltype(to_p)>(ds.data);
    const auto one = [&](i64 row, i64 i, auto keep) HWY_ATTR {
      const i64 at = row * chunk + i;
      const Vector e = keep(exp(d, hn::MulSub(hn::LoadU(d, t.scores + at), scale, hn::LoadU(d, t.lse + i))));
      const Vector slope = hn::Sub(hn::LoadU(d, t.dp + at), hn::LoadU(d, t.delta + i));
      put(d, e, to_p + at);
      put(d, keep(hn::Mul(hn::Mul(e, scale), slope)), to_ds + at);
    };
    for (i64 u = 0; u < tile; ++u) {
      const i64 first = u < t.rows ? std::clamp<i64>(t.first + u * t.step, 0, t.columns) : t.columns;
      const i64 last = std::clamp<i64>(t.last + u * t.step, first, t.columns);
      const i64 zeros = first / lanes * lanes;
      i64 i = 0;
      for (; i < zeros; i += lanes)
        put(d, hn::Zero(d), to_p + u * chunk + i), put(d, hn::Zero(d), to_ds + u * chunk + i);
      if (zeros < first) {
        const auto outside = hn::FirstN(d, static_cast<size_t>(first - zeros));
        one(u, i, [&](Vector v) HWY_ATTR { return hn::IfThenZeroElse(outside, v); });
        i += lanes;
      }
      for (; i < last; i += lanes) one(u, i, [](Vector v) HWY_ATTR { return v; });
      for (auto* to : {to_p, to_ds})
        std::fill(to + u * chunk + last, to + u * chunk + t.columns, std::remove_pointer_t<decltype(to)>{});
    }
  });
}

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sparsam::cpu {
HWY_EXPORT(gather);
HWY_EXPORT(row_dots);
HWY_EXPORT(softmax_chunk);
HWY_EXPORT(finish_softmax);
HWY_EXPORT(scores_backward);

void gather(const StridedRows& source, i64 rows, i64 padded, const Panel& panel) {
  HWY_DYNAMIC_DISPATCH(gather)(source, rows, padded, panel);
}
void row_dots(const StridedRows& a, const StridedRows& b, i64 rows, i64 cols, float* dots) {
  HWY_DYNAMIC_DISPATCH(row_dots)(a, b, rows, cols, dots);
}
void softmax_chunk(float* scores, float scale, i64 rows, i64 columns, Mask mask, bool first, const Panel& p,
                   const RunningSoftmax& state) {
  HWY_DYNAMIC_DISPATCH(softmax_chunk)(scores, scale, rows, columns, mask, first, p, state);
}
void finish_softmax(const RunningSoftmax& state, i64 rows, float* y, i64 y_stride, float* lse) {
  HWY_DYNAMIC_DISPATCH(finish_softmax)(state, rows, y, y_stride, lse);
}
void scores_backward(const ScoresBackward& scores, const Panel& p, const Panel& ds) {
  HWY_DYNAMIC_DISPATCH(scores_backward)(scores, p, ds);
}

QueryTileScratch allocate_scratch(i64 head_size, DType dtype, Arena& arena) {
  QueryTileScratch scratch{allocate_panel(tile, head_size, dtype, arena),
                           {},
                           arena.allocate<float>(tile, chunk).data(),
                           {arena.allocate<float>(tile).data(), arena.allocate<float>(tile).data(),
                            arena.allocate<float>(tile, head_size).data(), head_size}};
  scratch.p = dtype == DType::bf16 ? allocate_panel(tile, chunk, dtype, arena)
                                   : Panel{reinterpret_cast<std::byte*>(scratch.scores), dtype, chunk};
  return scratch;
}

void attend(const QueryTile& queries, const QueryTileScratch& scratch, GemmCache& gemms) {
  const i64 head_size = scratch.q.cols;
  gather(queries.q, queries.rows, tile, scratch.q);
  const i64 first_key = queries.window > 0 ? queries.first_keys - queries.window : 0;  // of row 0
  const i64 start = std::max<i64>(0, first_key) / tile * tile;  // a chunk holds the first key of every row
  for (i64 begin = start; begin < queries.keys; begin += chunk) {
    const i64 columns = std::min(chunk, whole_tiles(queries.keys - begin));
    gemm({.m = tile,
          .n = columns,
          .k = head_size,
          .a = scratch.q.from(0),
          .b = queries.k.from(begin).transposed(),
          .c = scratch.scores,
          .c_stride = chunk},
         gemms);
    const Mask mask{.first = queries.window > 0 ? first_key - begin : -tile,
                    .limit = (queries.causal ? queries.first_keys : queries.keys) - begin,
                    .step = queries.causal ? 1 : 0};
    softmax_chunk(scratch.scores, queries.scale, queries.rows, columns, mask, begin == start, scratch.p, scratch.state);
    gemm({.m = tile,
          .n = head_size,
          .k = columns,
          .a = scratch.p.from(0),
          .b = queries.v.from(begin),
          .c = scratch.state.values,
          .c_stride = head_size,
          .accumulate = begin > start},
         gemms);
  }
  finish_softmax(scratch.state, queries.rows, queries.y, queries.y_stride, queries.lse);
}
}  // namespace sparsam::cpu
#endif
