// Dense matrix products. The implementation (oneDNN) is seen by gemm.cpp alone.
#pragma once

#include <memory>

#include "base/types.h"
#include "tensor/arena.h"
#include "tensor/dtype.h"

namespace sparsam::cpu {

// A matrix in memory: element (i, j) at data + i row_stride + j col_stride, counted in elements; one stride is 1.
struct GemmOperand {
  const void* data;
  DType dtype;  // f32 or bf16; to be packed also f16 or blocks
  i64 row_stride, col_stride;
  int layout = 0;  // not 0: made by pack(), and the strides mean nothing

  GemmOperand transposed() const { return {data, dtype, col_stride, row_stride}; }
};
// A row-major matrix whose rows lie `row_stride` elements apart.
inline GemmOperand operand(const float* data, i64 row_stride) { return {data, DType::f32, row_stride, 1}; }
inline GemmOperand bf16_operand(const u16* data, i64 row_stride) { return {data, DType::bf16, row_stride, 1}; }

// C (m, n) = A (m, k) B (k, n) + bias, or += with `accumulate`. Both factors of one dtype (a packed B excepted: what
// pack() made of bf16 goes with bf16); sums in float32. Fastest when the rows of A, B and C have no gaps; with a packed
// B, A (if stored by rows) and C must have none.
struct Gemm {
  i64 m, n, k;
  GemmOperand a, b;
  float* c;  // row-major
  i64 c_stride;
  bool accumulate = false;
  const float* bias = nullptr;  // (n), added to each row; not together with accumulate
};

// Compiled products, kept by shape, and their scratch memory. Any number of threads may use one at a time.
class GemmCache {
 public:
  GemmCache();
  ~GemmCache();
  GemmCache(const GemmCache&) = delete;
  GemmCache& operator=(const GemmCache&) = delete;

 private:
  friend void gemm(const Gemm& product, GemmCache& cache);
  friend i64 packed_bytes(i64 k, i64 n, DType dtype, GemmCache& cache);
  friend GemmOperand pack(const GemmOperand& b, i64 k, i64 n, DType dtype, std::byte* memory, GemmCache& cache);
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Uses all threads; inside a parallel region only the calling one. Equal shapes and thread counts give equal bits.
void gemm(const Gemm& product, GemmCache& cache);

// B (k, n) in the layout that products read fastest, as f32 or rounded to bf16. Pays when used for some hundreds of
// rows. On all threads; inside a parallel region only on the calling one. B may be stored
// in f16 or in blocks (its rows or columns without gaps) when packed as bf16.
i64 packed_bytes(i64 k, i64 n, DType dtype, GemmCache& cache);
GemmOperand pack(const GemmOperand& b, i64 k, i64 n, DType dtype, std::byte* memory, GemmCache& cache);
GemmOperand pack(const GemmOperand& b, i64 k, i64 n, DType dtype, Arena& arena, GemmCache& cache);

}  // namespace sparsam::cpu
