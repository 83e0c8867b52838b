// Products of small matrices that lie in cache, with triangular factors or results: too small and too many for the
// library of gemm.cpp. Included once per target: no #pragma once.
#if defined(SPARSAM_OPS_CPU_SMALL_PRODUCT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SPARSAM_OPS_CPU_SMALL_PRODUCT_INL_H_
#undef SPARSAM_OPS_CPU_SMALL_PRODUCT_INL_H_
#else
#define SPARSAM_OPS_CPU_SMALL_PRODUCT_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>

#include "base/types.h"

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using PanelTag = hn::CappedTag<float, 16>;  // rows are padded to whole vectors of it: padded_columns()
using PanelVector = hn::Vec<PanelTag>;

constexpr i64 product_rows = 6;  // rows of C whose sums are in registers at once

// Which part of a product is needed, in steps of product_rows rows i of C.
enum class Band {
  all,
  columns_to_row,    // C_ij with j <= i: a lower triangle is made
  factors_to_row,    // A_ik with k <= i: A is a lower triangle
  factors_from_row,  // A_ik with k >= i: A is the transposed of one
};

// C (m, n) = A (m, k) B (k, n), or += with `accumulate`. A may be transposed. Rows of B and C are read and written as
// whole vectors: they need room up to padded_columns(n).
struct SmallProduct {
  i64 m, n, k;
  const float* a;
  i64 a_row, a_col;
  const float* b;
  i64 b_stride;
  float* c;
  i64 c_stride;
  bool accumulate = false;
  Band band = Band::all;
};

template <int Rows, int Vectors>
HWY_INLINE void product_tile(const SmallProduct& p, i64 row, i64 col, i64 first, i64 last) {
  const PanelTag d;
  const i64 lanes = static_cast<i64>(hn::Lanes(d));
  const float* a = p.a + row * p.a_row + first * p.a_col;
  const float* b = p.b + first * p.b_stride + col;
  float* c = p.c + row * p.c_stride + col;
  PanelVector sums[Rows][Vectors];
  for (int r = 0; r < Rows; ++r)
    for (int v = 0; v < Vectors; ++v)
      sums[r][v] = p.accumulate ? hn::LoadU(d, c + r * p.c_stride + v * lanes) : hn::Zero(d);
  for (i64 k = first; k < last; ++k, a += p.a_col, b += p.b_stride) {
    PanelVector factors[Vectors];
    for (int v = 0; v < Vectors; ++v) factors[v] = hn::LoadU(d, b + v * lanes);
    for (int r = 0; r < Rows; ++r) {
      const PanelVector x = hn::Set(d, a[r * p.a_row]);
      for (int v = 0; v < Vectors; ++v) sums[r][v] = hn::MulAdd(x, factors[v], sums[r][v]);
    }
  }
  for (int r = 0; r < Rows; ++r)
    for (int v = 0; v < Vectors; ++v) hn::StoreU(sums[r][v], d, c + r * p.c_stride + v * lanes);
}

template <int Rows>
HWY_INLINE void product_rows_of(const SmallProduct& p, i64 row) {
  const PanelTag d;
  const i64 lanes = static_cast<i64>(hn::Lanes(d));
  const i64 columns = p.band == Band::columns_to_row ? std::min(p.n, row + Rows) : p.n;
  const i64 first = p.band == Band::factors_from_row ? std::min(row, p.k) : 0;
  const i64 last = p.band == Band::factors_to_row ? std::min(p.k, row + Rows) : p.k;
  i64 col = 0;
  for (; col + lanes < columns; col += 2 * lanes) product_tile<Rows, 2>(p, row, col, first, last);
  if (col < columns) product_tile<Rows, 1>(p, row, col, first, last);
}

HWY_INLINE void multiply(const SmallProduct& p) {
  i64 row = 0;
  for (; row + product_rows <= p.m; row += product_rows) product_rows_of<product_rows>(p, row);
  switch (p.m - row) {
    case 5:
      return product_rows_of<5>(p, row);
    case 4:
      return product_rows_of<4>(p, row);
    case 3:
      return product_rows_of<3>(p, row);
    case 2:
      return product_rows_of<2>(p, row);
    case 1:
      return product_rows_of<1>(p, row);
    default:
      return;
  }
}

// Rows of a matrix (rows, n) of which a factor was made with columns_to_row: what lies above the diagonal becomes zero
// as far as products with factors_to_row and factors_from_row read it.
HWY_INLINE void clear_above_diagonal(float* matrix, i64 stride, i64 rows) {
  for (i64 i = 0; i < rows; ++i) {
    const i64 end = std::min(rows, (i / product_rows + 1) * product_rows);
    std::fill(matrix + i * stride + i + 1, matrix + i * stride + std::max(end, i + 1), 0.0f);
  }
}

// Four rows of four, turned.
HWY_INLINE void transpose_four(const float* from, i64 from_stride, float* to, i64 to_stride) {
#if HWY_TARGET == HWY_SCALAR
  for (i64 i = 0; i < 4; ++i)
    for (i64 j = 0; j < 4; ++j) to[j * to_stride + i] = from[i * from_stride + j];
#else
  const hn::FixedTag<float, 4> d;
  const auto a = hn::LoadU(d, from), b = hn::LoadU(d, from + from_stride);
  const auto c = hn::LoadU(d, from + 2 * from_stride), e = hn::LoadU(d, from + 3 * from_stride);
  const auto ab = hn::InterleaveLower(d, a, b), ce = hn::InterleaveLower(d, c, e);
  const auto ab_high = hn::InterleaveUpper(d, a, b), ce_high = hn::InterleaveUpper(d, c, e);
  hn::StoreU(hn::ConcatLowerLower(d, ce, ab), d, to);
  hn::StoreU(hn::ConcatUpperUpper(d, ce, ab), d, to + to_stride);
  hn::StoreU(hn::ConcatLowerLower(d, ce_high, ab_high), d, to + 2 * to_stride);
  hn::StoreU(hn::ConcatUpperUpper(d, ce_high, ab_high), d, to + 3 * to_stride);
#endif
}

// to (columns, stride) = from (rows, columns) transposed; columns of `to` from `rows` to `padded` become zero.
HWY_INLINE void transpose(const float* from, i64 from_stride, i64 rows, i64 columns, float* to, i64 to_stride,
                          i64 padded) {
  const i64 whole_rows = rows / 4 * 4, whole_columns = columns / 4 * 4;
  for (i64 j = 0; j < whole_columns; j += 4)
    for (i64 i = 0; i < whole_rows; i += 4)
      transpose_four(from + i * from_stride + j, from_stride, to + j * to_stride + i, to_stride);
  for (i64 j = 0; j < columns; ++j) {
    for (i64 i = j < whole_columns ? whole_rows : 0; i < rows; ++i) to[j * to_stride + i] = from[i * from_stride + j];
    std::fill(to + j * to_stride + rows, to + j * to_stride + padded, 0.0f);
  }
}

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SPARSAM_OPS_CPU_SMALL_PRODUCT_INL_H_
