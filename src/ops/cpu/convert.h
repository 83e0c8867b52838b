// Conversions between the number formats of factors, rounding to nearest even; NaN stays NaN. The calling thread works
// alone unless a function says otherwise. Of quantised formats n is whole blocks.
#pragma once

#include "tensor/matrix.h"
#include "tensor/view.h"

namespace sparsam::cpu {

void to_bf16(const float* x, u16* y, i64 n);
void to_float(const void* x, DType dtype, float* y, i64 n);  // from f32, bf16, f16 or blocks
void to_bf16(const void* x, DType dtype, u16* y, i64 n);     // likewise
// y (cols, rows) = x (rows, cols) transposed and rounded; the strides are the distances of rows in elements.
void transpose_to_bf16(const u16* x, i64 rows, i64 cols, i64 x_stride, u16* y, i64 y_stride);  // x in bf16
void transpose_to_bf16(const float* x, i64 rows, i64 cols, i64 x_stride, u16* y, i64 y_stride);

// Part of B (k, n) in the blocked order of bf16 products: panels of `panel` columns, in each the rows by twos, in a
// pair of rows column by column its two values: panel j / panel, pair i / 2, column j % panel, i % 2. Rows are padded
// to a multiple of 32 and columns to whole panels with zeros. B is stored by rows or, `transposed`, by columns,
// `stride` elements apart, as f32, bf16 or f16; in blocks only all of it, transposed, without gaps.
struct PanelSource {
  const void* data;
  DType dtype;
  bool transposed;
  i64 k, n, stride;
};
void pack_panels(const PanelSource& b, i64 panel, i64 begin, i64 end, u16* y);  // panels [begin, end)
void pack_panels_parallel(const PanelSource& b, i64 panel, u16* y);             // all, on all threads

// On all threads.
void to_bf16_parallel(const void* x, DType dtype, u16* y, i64 n);
void to_float_parallel(const void* x, DType dtype, float* y, i64 n);

}  // namespace sparsam::cpu
