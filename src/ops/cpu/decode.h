// One new position against the key-value cache: a matter of memory bandwidth.
#pragma once

#include "ops/cpu/attention_tiles.h"

namespace sparsam::cpu {

// One token's heads of a group against a span of the cache.
struct DecodeSpan {
  StridedRows keys, values;  // stride D
  i64 count;                 // of keys
  const float* q;            // (heads, D)
  i64 heads, head_size;
  float scale;
  float *scores, *rows;              // scratch: (heads, decode_block), (4, D)
  float *largest, *sum, *value_sum;  // (heads), (heads), (heads, D): the running softmax
};
constexpr i64 decode_block = 128;  // keys whose scores exist at once
// Each key and value is read once for all heads. The calling thread works alone.
void decode_span(const DecodeSpan& span);

// y = x in a cache's format: f32, f16 or bf16.
void store_row(const float* x, i64 n, void* y, DType dtype);

}  // namespace sparsam::cpu
