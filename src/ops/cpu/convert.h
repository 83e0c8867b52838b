// Conversions between the number formats of factors, rounding to nearest even; NaN stays NaN. The calling thread works
// alone unless a function says otherwise.
#pragma once

#include "tensor/matrix.h"
#include "tensor/view.h"

namespace sparsam::cpu {

void to_bf16(const float* x, u16* y, i64 n);
void to_float(const void* x, DType dtype, float* y, i64 n);  // from f32, bf16 or f16
void to_bf16(const void* x, DType dtype, u16* y, i64 n);     // from f32, bf16 or f16
// y (cols, rows) = x (rows, cols) transposed and rounded; the strides are the distances of rows in elements.
void transpose_to_bf16(const float* x, i64 rows, i64 cols, i64 x_stride, u16* y, i64 y_stride);

// The same on all threads.
void to_bf16_parallel(const void* x, DType dtype, u16* y, i64 n);
void to_float_parallel(const void* x, DType dtype, float* y, i64 n);

}  // namespace sparsam::cpu
