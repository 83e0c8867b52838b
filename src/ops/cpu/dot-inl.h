// Products of a few rows with one row of a weight, on Highway vectors. Included once per target: no #pragma once.
#if defined(SPARSAM_OPS_CPU_DOT_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SPARSAM_OPS_CPU_DOT_INL_H
#undef SPARSAM_OPS_CPU_DOT_INL_H
#else
#define SPARSAM_OPS_CPU_DOT_INL_H
#endif

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <type_traits>

#include "ops/cpu/blocks-inl.h"
#include "ops/cpu/convert-inl.h"
#include "ops/cpu/convert.h"
#include "ops/cpu/few_rows.h"
#include "tensor/matrix.h"

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {

// sums_rn = x_n . w_r for n < N rows of x and R rows of a weight that need not lie together; `later` are the rows that
// will be read after them. The order of a sum depends on `cols`, N and the vector length alone: not on R, nor on the
// rows. Independent sums hide the latency of the additions.
template <int R, int N, class Element>
HWY_INLINE void dot_rows(const float* x, const Element* const* w, const Element* const* later, i64 cols,
                         float (&sums)[R][N]) {
  constexpr int Unroll = N <= 2 ? 4 : 2;
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  const i64 lanes = static_cast<i64>(hn::Lanes(d));
  constexpr i64 line = 64 / static_cast<i64>(sizeof(Element));
  V total[R][N][Unroll];
  for (auto& row : total)
    for (auto& element : row)
      for (V& sum : element) sum = hn::Zero(d);
  i64 i = 0;
  for (; i + Unroll * lanes <= cols; i += Unroll * lanes) {
    for (int r = 0; r < R; ++r)
      for (i64 p = 0; p < Unroll * lanes; p += line) hwy::Prefetch(later[r] + i + p);
    for (int u = 0; u < Unroll; ++u)
      for (int r = 0; r < R; ++r) {
        const V value = load(d, w[r] + i + u * lanes);
        for (int n = 0; n < N; ++n)
          total[r][n][u] = hn::MulAdd(value, hn::LoadU(d, x + n * cols + i + u * lanes), total[r][n][u]);
      }
  }
  for (; i + lanes <= cols; i += lanes)
    for (int r = 0; r < R; ++r)
      for (int n = 0; n < N; ++n)
        total[r][n][0] = hn::MulAdd(load(d, w[r] + i), hn::LoadU(d, x + n * cols + i), total[r][n][0]);
  for (int r = 0; r < R; ++r)
    for (int n = 0; n < N; ++n) {
      for (int u = 1; u < Unroll; ++u) total[r][n][0] = hn::Add(total[r][n][0], total[r][n][u]);
      sums[r][n] = hn::GetLane(hn::SumOfLanes(d, total[r][n][0]));
      for (i64 j = i; j < cols; ++j) sums[r][n] += x[n * cols + j] * load_one(w[r] + j);
    }
}

// Calls body with the number of rows, 1 to `few`, as a constant.
template <class Body>
HWY_INLINE void with_rows(i64 rows, Body&& body) {
  switch (rows) {
    case 1:
      return body(std::integral_constant<int, 1>());
    case 2:
      return body(std::integral_constant<int, 2>());
    case 3:
      return body(std::integral_constant<int, 3>());
    case 4:
      return body(std::integral_constant<int, 4>());
    case 5:
      return body(std::integral_constant<int, 5>());
    case 6:
      return body(std::integral_constant<int, 6>());
    case 7:
      return body(std::integral_constant<int, 7>());
    default:
      return body(std::integral_constant<int, 8>());
  }
}

// Products of the rows x (N, in) with the rows j = row(i) of a weight, i in [begin, end): y_nj = x_n . w_j + b_j.
// Several rows of the weight are read side by side, so that the processor waits for none of them.
template <int N, class Element, class Row>
HWY_INLINE void dot_elements(In<float, 2> x, const Element* w, In<float, 1> bias, Out<float, 2> y, i64 begin, i64 end,
                             Row&& row) {
  constexpr int R = N == 1 ? 4 : N == 2 ? 2 : 1;
  const i64 cols = x.shape(1);
  const auto at = [&](i64 i) { return w + row(std::min(i, end - 1)) * cols; };
  const auto together = [&]<int Count>(std::integral_constant<int, Count>, i64 i) HWY_ATTR {
    const Element *rows[Count], *later[Count];
    for (int r = 0; r < Count; ++r) rows[r] = at(i + r), later[r] = at(i + Count + r);
    float sums[Count][N];
    dot_rows<Count, N>(x.data(), rows, later, cols, sums);
    for (int r = 0; r < Count; ++r)
      for (int n = 0; n < N; ++n) y(n, row(i + r)) = sums[r][n] + (bias.empty() ? 0.0f : bias[row(i + r)]);
  };
  i64 i = begin;
  for (; i + R <= end; i += R) together(std::integral_constant<int, R>(), i);
  for (; i < end; ++i) together(std::integral_constant<int, 1>(), i);
}

template <class Block, class Row>
HWY_INLINE void dot_block_rows(In<float, 2> x, const Matrix& w, In<float, 1> bias, Out<float, 2> y, i64 begin, i64 end,
                               float* scratch, Row&& row) {
  constexpr int R = block_size(Block::dtype) == 32 ? 4 : 1;
  const i64 blocks = w.cols / block_size(Block::dtype);
  const auto at = [&](i64 i) { return reinterpret_cast<const Block*>(w.row(row(std::min(i, end - 1)))); };
  const auto together = [&]<int Count>(std::integral_constant<int, Count>, i64 i) HWY_ATTR {
    const Block *rows[Count], *later[Count];
    for (int r = 0; r < Count; ++r) rows[r] = at(i + r), later[r] = at(i + Count + r);
    float sums[Count];
    dot_blocks<Count>(rows, later, blocks, x.data(), scratch, sums);
    for (int r = 0; r < Count; ++r) y(0, row(i + r)) = sums[r] + (bias.empty() ? 0.0f : bias[row(i + r)]);
  };
  group_sums<Block>(x.data(), blocks, scratch);
  i64 i = begin;
  for (; i + R <= end; i += R) together(std::integral_constant<int, R>(), i);
  for (; i < end; ++i) together(std::integral_constant<int, 1>(), i);
}

// The same for a weight of any format and up to `few` rows of x; `scratch` holds a row of the weight. The bits of an
// element depend on its rows of x and of w and on N: not on which other rows of w are asked for.
template <class Row>
void dot_weight_rows(In<float, 2> x, const Matrix& w, In<float, 1> bias, Out<float, 2> y, i64 begin, i64 end,
                     float* scratch, Row&& row) {
  if (is_quantised(w.dtype) && x.shape(0) == 1)
    return with_block(
        w.dtype, [&]<class Block>(Block) HWY_ATTR { dot_block_rows<Block>(x, w, bias, y, begin, end, scratch, row); });
  with_rows(x.shape(0), [&](auto rows) HWY_ATTR {
    constexpr int N = decltype(rows)::value;
    if (!is_quantised(w.dtype))
      return with_elements(w.bytes.data(), w.dtype, [&](const auto* elements) HWY_ATTR {
        dot_elements<N>(x, elements, bias, y, begin, end, row);
      });
    for (i64 i = begin; i < end; ++i) {
      to_float(w.row(row(i)), w.dtype, scratch, w.cols);
      const float* const rows_of_w[1] = {scratch};
      float sums[1][N];
      dot_rows<1, N>(x.data(), rows_of_w, rows_of_w, w.cols, sums);
      for (int n = 0; n < N; ++n) y(n, row(i)) = sums[0][n] + (bias.empty() ? 0.0f : bias[row(i)]);
    }
  });
}

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
