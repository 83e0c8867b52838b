// What forward, backward and cached attention share. Queries and keys are cut in tiles, gathered head by head into
// contiguous panels that are padded with zero rows to whole tiles, so that the products have few different shapes.
#pragma once

#include "base/threads.h"
#include "ops/compute.h"
#include "ops/cpu/gemm.h"
#include "ops/cpu/workspace.h"

namespace sparsam::cpu {

constexpr i64 tile = 128;   // queries or keys of one product
constexpr i64 chunk = 512;  // keys (backward: queries) whose scores exist at once: a (tile, chunk) panel stays in L2
static_assert(chunk % tile == 0);

constexpr i64 whole_tiles(i64 rows) { return (rows + tile - 1) / tile * tile; }

// A contiguous matrix of f32 or bf16.
struct Panel {
  std::byte* data;
  DType dtype;
  i64 cols;

  GemmOperand from(i64 row) const { return {data + row * cols * size_of(dtype), dtype, cols, 1}; }
};
inline DType dtype_of(Compute compute) { return compute == Compute::bf16 ? DType::bf16 : DType::f32; }
inline Panel allocate_panel(i64 rows, i64 cols, DType dtype, Arena& arena) {
  return {arena.allocate<std::byte>(rows * cols * size_of(dtype)).data(), dtype, cols};
}

// Rows of stored numbers, `stride` elements apart.
struct StridedRows {
  const void* data;
  DType dtype;  // f32, f16 or bf16
  i64 stride;
};
inline StridedRows strided(const float* data, i64 stride) { return {data, DType::f32, stride}; }

// Rows [0, rows) of the panel become those of `source`, rows [rows, padded) zero.
void gather(const StridedRows& source, i64 rows, i64 padded, const Panel& panel);
// dots_t = a_t . b_t
void row_dots(const StridedRows& a, const StridedRows& b, i64 rows, i64 cols, float* dots);

// Scores that the mask lets through: in row r the columns from `first + r step` up to `limit + r step` (the rest is
// zero). Columns before the first and after the last exist too.
struct Mask {
  i64 first, limit, step;
};

// The running softmax of a tile's rows over chunks of keys: largest score, sum of exponentials relative to it, and the
// equally scaled sum of values.
struct RunningSoftmax {
  float *largest, *sum;  // (tile)
  float* values;         // (tile, D)
  i64 head_size;
};
// p = exp(scale s - largest) for the next chunk of scores (rows, columns); what was summed before is rescaled to the
// new largest score. p may overwrite the scores, of which some that the mask hides are overwritten in any case. With
// the first chunk every row must see a key.
void softmax_chunk(float* scores, float scale, i64 rows, i64 columns, Mask mask, bool first, const Panel& p,
                   const RunningSoftmax& state);
// y_t = values / sum; lse_t = largest + log(sum) where lse is wanted.
void finish_softmax(const RunningSoftmax& state, i64 rows, float* y, i64 y_stride, float* lse);

// One tile of queries against keys and values of one head.
struct QueryTile {
  StridedRows q;
  i64 rows;        // at most `tile`
  i64 keys;        // those that any of the rows attends to
  i64 first_keys;  // those of row 0; with `causal` each next row attends to one more
  bool causal;
  i64 window;  // and to this many at most, the last of them; 0: no limit
  Panel k, v;  // (whole_tiles(keys) or more, D)
  float scale;
  float* y;
  i64 y_stride;
  float* lse;  // (rows) or null
};
struct QueryTileScratch {
  Panel q, p;
  float* scores;  // (tile, chunk)
  RunningSoftmax state;
};
QueryTileScratch allocate_scratch(i64 head_size, DType dtype, Arena& arena);
void attend(const QueryTile& queries, const QueryTileScratch& scratch, GemmCache& gemms);

// The backward of a chunk of scores, transposed: row u is a key, column t a query.
//   p_ut = exp(scale s_ut - lse_t)      ds_ut = scale p_ut (dp_ut - delta_t)
// Zero in rows from `rows` to tile, and in row u for columns before first + u step and from last + u step on.
struct ScoresBackward {
  const float *scores, *dp;  // (tile, chunk)
  const float *lse, *delta;  // (columns)  infinity and 0 where padded
  i64 rows, columns;
  i64 first, last, step;
  float scale;
};
void scores_backward(const ScoresBackward& scores, const Panel& p, const Panel& ds);

}  // namespace sparsam::cpu
