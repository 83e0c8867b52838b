// Attention over whole sequences: work items of one head's tile of queries, the longest first.
#include "ops/attention.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "base/threads.h"
#include "ops/cpu/attention_tiles.h"
#include "ops/cpu/cpu.h"

namespace sparsam::cpu {

namespace {

// Head h of sequence b of a (B, T, H, D) tensor: T rows of D, from row t on.
template <class T>
T* head_rows(const View<T, 4>& x, i64 b, i64 t, i64 h) {
  return x.data() + ((b * x.shape(1) + t) * x.shape(2) + h) * x.shape(3);
}
StridedRows head(const In<float, 4>& x, i64 b, i64 t, i64 h) {
  return strided(head_rows(x, b, t, h), x.shape(2) * x.shape(3));
}

}  // namespace

void run(const Attention& op, Workspace& workspace) {
  const i64 batch = op.q.shape(0), time = op.q.shape(1), heads = op.q.shape(2), size = op.q.shape(3);
  const i64 groups = op.k.shape(2), padded = whole_tiles(time), tiles = padded / tile;
  const DType dtype = dtype_of(op.compute);
  const Arena::Mark mark = workspace.arena.mark();
  // Panels of all keys and values: group g of sequence b begins at row (b G + g) padded.
  const Panel k = allocate_panel(batch * groups * padded, size, dtype, workspace.arena);
  const Panel v = allocate_panel(batch * groups * padded, size, dtype, workspace.arena);
  const auto group_of = [&](const Panel& panel, i64 index) {
    return Panel{panel.data + index * padded * size * size_of(dtype), dtype, size};
  };
  parallel_dynamic(batch * groups, [&](int, i64 index) {
    const i64 b = index / groups, g = index % groups;
    gather(head(op.k, b, 0, g), time, padded, group_of(k, index));
    gather(head(op.v, b, 0, g), time, padded, group_of(v, index));
  });
  std::vector<QueryTileScratch> scratch;
  for (int t = 0; t < threads(); ++t) scratch.push_back(allocate_scratch(size, dtype, workspace.arena));
  parallel_dynamic(batch * heads * tiles, [&](int thread, i64 index) {
    const i64 begin = (tiles - 1 - index / (batch * heads)) * tile, b = index / heads % batch, h = index % heads;
    const i64 rows = std::min(tile, time - begin), group = b * groups + h * groups / heads;
    const QueryTile queries{.q = head(op.q, b, begin, h),
                            .rows = rows,
                            .keys = op.causal ? begin + rows : time,
                            .first_keys = begin + 1,
                            .causal = op.causal,
                            .window = op.window,
                            .k = group_of(k, group),
                            .v = group_of(v, group),
                            .scale = op.scale,
                            .y = head_rows(op.y, b, begin, h),
                            .y_stride = heads * size,
                            .lse = op.lse.empty() ? nullptr : &op.lse(b, h, begin)};
    attend(queries, scratch[static_cast<size_t>(thread)], workspace.gemms);
  });
  workspace.arena.release(mark);
}

namespace {

// The panels of a group and of the head at hand, their gradients, and the scores.
struct BackwardScratch {
  i64 rows;             // whole tiles of T
  Panel k, v, q, dy;    // (rows, D)
  float *dk, *dv, *dq;  // (rows, D)
  float *lse, *delta;   // (rows)
  float *scores, *dp;   // (tile, chunk)
  Panel p, ds;          // (tile, chunk); f32: over the scores and dp
};

BackwardScratch allocate_backward_scratch(i64 rows, i64 size, DType dtype, Arena& arena) {
  const auto panel = [&] { return allocate_panel(rows, size, dtype, arena); };
  const auto floats = [&](i64 n) { return arena.allocate<float>(n).data(); };
  BackwardScratch s{rows,
                    panel(),
                    panel(),
                    panel(),
                    panel(),
                    floats(rows * size),
                    floats(rows * size),
                    floats(rows * size),
                    floats(rows),
                    floats(rows),
                    floats(tile * chunk),
                    floats(tile * chunk),
                    {},
                    {}};
  const auto scores = [&](float* f32) {
    return dtype == DType::f32 ? Panel{reinterpret_cast<std::byte*>(f32), dtype, chunk}
                               : allocate_panel(tile, chunk, dtype, arena);
  };
  s.p = scores(s.scores), s.ds = scores(s.dp);
  return s;
}

// out (rows, D) = dense, into a tensor whose rows of one head lie apart.
void scatter(const float* dense, const Out<float, 4>& out, i64 b, i64 h) {
  const i64 size = out.shape(3);
  for (i64 t = 0; t < out.shape(1); ++t) std::copy_n(dense + t * size, size, head_rows(out, b, t, h));
}

// Gathers head h of sequence b and its statistics; padded queries get weight zero.
void gather_head(const AttentionBackward& op, i64 b, i64 h, const BackwardScratch& s) {
  const i64 time = op.q.shape(1);
  gather(head(op.q, b, 0, h), time, s.rows, s.q);
  gather(head(op.dy, b, 0, h), time, s.rows, s.dy);
  row_dots(head(op.dy, b, 0, h), head(op.y, b, 0, h), time, op.q.shape(3), s.delta);
  std::copy_n(&op.lse(b, h, 0), time, s.lse);
  std::fill(s.lse + time, s.lse + s.rows, std::numeric_limits<float>::infinity());
  std::fill(s.delta + time, s.delta + s.rows, 0.0f);
}

// The head at hand: dq, and its share of its group's dk and dv (`first`: of the group's heads).
void head_backward(const AttentionBackward& op, bool first, const BackwardScratch& s, GemmCache& gemms) {
  const i64 time = op.q.shape(1), size = op.q.shape(3);
  if (op.window > 0) std::fill_n(s.dq, s.rows * size, 0.0f);  // the first keys do not reach all queries
  for (i64 key = 0; key < time; key += tile) {
    const i64 start = op.causal ? key : 0;
    const i64 end = op.window > 0 ? std::min(time, key + tile - 1 + op.window) : time;  // of the queries that see keys
    for (i64 query = start; query < end; query += chunk) {
      const i64 columns = std::min(chunk, s.rows - query);
      gemm({.m = tile,
            .n = columns,
            .k = size,
            .a = s.k.from(key),
            .b = s.q.from(query).transposed(),
            .c = s.scores,
            .c_stride = chunk},
           gemms);
      gemm({.m = tile,
            .n = columns,
            .k = size,
            .a = s.v.from(key),
            .b = s.dy.from(query).transposed(),
            .c = s.dp,
            .c_stride = chunk},
           gemms);
      scores_backward({.scores = s.scores,
                       .dp = s.dp,
                       .lse = s.lse + query,
                       .delta = s.delta + query,
                       .rows = std::min(tile, time - key),
                       .columns = columns,
                       .first = op.causal ? key - query : 0,
                       .last = op.window > 0 ? key - query + op.window : columns + tile,
                       .step = op.causal ? 1 : 0,
                       .scale = op.scale},
                      s.p, s.ds);
      const bool more = !first || query > start;
      gemm({.m = tile,
            .n = size,
            .k = columns,
            .a = s.p.from(0),
            .b = s.dy.from(query),
            .c = s.dv + key * size,
            .c_stride = size,
            .accumulate = more},
           gemms);
      gemm({.m = tile,
            .n = size,
            .k = columns,
            .a = s.ds.from(0),
            .b = s.q.from(query),
            .c = s.dk + key * size,
            .c_stride = size,
            .accumulate = more},
           gemms);
      gemm({.m = columns,
            .n = size,
            .k = tile,
            .a = s.ds.from(0).transposed(),
            .b = s.k.from(key),
            .c = s.dq + query * size,
            .c_stride = size,
            .accumulate = key > 0 || op.window > 0},
           gemms);
    }
  }
}

}  // namespace

// One work item owns the gradients of a group's keys and values and of its heads' queries.
void run(const AttentionBackward& op, Workspace& workspace) {
  const i64 time = op.q.shape(1), heads = op.q.shape(2), size = op.q.shape(3), groups = op.k.shape(2);
  const Arena::Mark mark = workspace.arena.mark();
  std::vector<BackwardScratch> scratch;
  for (int t = 0; t < threads(); ++t)
    scratch.push_back(allocate_backward_scratch(whole_tiles(time), size, dtype_of(op.compute), workspace.arena));
  parallel_dynamic(op.q.shape(0) * groups, [&](int thread, i64 index) {
    const i64 b = index / groups, g = index % groups, first = g * heads / groups;
    const BackwardScratch& s = scratch[static_cast<size_t>(thread)];
    gather(head(op.k, b, 0, g), time, s.rows, s.k);
    gather(head(op.v, b, 0, g), time, s.rows, s.v);
    for (i64 h = first; h < first + heads / groups; ++h) {
      gather_head(op, b, h, s);
      head_backward(op, h == first, s, workspace.gemms);
      scatter(s.dq, op.dq, b, h);
    }
    scatter(s.dk, op.dk, b, g), scatter(s.dv, op.dv, b, g);
  });
  workspace.arena.release(mark);
}

}  // namespace sparsam::cpu
