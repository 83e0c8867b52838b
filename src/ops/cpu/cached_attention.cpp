// Attention against the key-value cache: many new positions go through the tiles of whole sequences, a single one
// through decode_span().
#include <algorithm>
#include <cmath>
#include <vector>

#include "base/threads.h"
#include "ops/attention.h"
#include "ops/cpu/attention_tiles.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/decode.h"

namespace sparsam::cpu {

void run(const CacheAppend& op, Workspace&) {
  const i64 groups = op.k.shape(1), size = op.k.shape(2);
  const auto row_of = [&](const MutableMatrix& m, i64 t, i64 g) {
    return m.bytes.data() + (g * op.capacity() + op.start + t) * size * size_of(m.dtype);
  };
  parallel_ranges(op.k.shape(0) * groups, std::max<i64>(1, 4096 / size), [&](int, i64 begin, i64 end) {
    for (i64 i = begin; i < end; ++i) {
      const i64 t = i / groups, g = i % groups;
      store_row(&op.k(t, g, 0), size, row_of(op.keys, t, g), op.keys.dtype);
      store_row(&op.v(t, g, 0), size, row_of(op.values, t, g), op.values.dtype);
    }
  });
}

namespace {

// Rows of group g in the cache, from position `begin` on.
StridedRows cached(const Matrix& m, i64 capacity, i64 g, i64 begin) {
  return {m.bytes.data() + (g * capacity + begin) * m.cols * size_of(m.dtype), m.dtype, m.cols};
}

void prefill(const CachedAttention& op, Workspace& workspace) {
  const i64 time = op.q.shape(0), heads = op.q.shape(1), size = op.q.shape(2);
  const i64 unseen = op.window > 0 ? std::max<i64>(0, op.start + 1 - op.window) : 0;  // keys before all windows
  const i64 start = op.start - unseen, positions = start + time;                      // counted from the first seen
  const i64 padded = whole_tiles(positions), tiles = whole_tiles(time) / tile;
  const DType dtype = dtype_of(op.compute);
  std::vector<Panel> k, v;
  for (i64 g = 0; g < op.groups; ++g) {
    k.push_back(allocate_panel(padded, size, dtype, workspace.arena));
    v.push_back(allocate_panel(padded, size, dtype, workspace.arena));
  }
  parallel_dynamic(2 * op.groups, [&](int, i64 index) {
    const i64 g = index / 2;
    gather(cached(index % 2 ? op.values : op.keys, op.capacity(), g, unseen), positions, padded,
           (index % 2 ? v : k)[static_cast<size_t>(g)]);
  });
  std::vector<QueryTileScratch> scratch;
  for (int t = 0; t < threads(); ++t) scratch.push_back(allocate_scratch(size, dtype, workspace.arena));
  parallel_dynamic(heads * tiles, [&](int thread, i64 index) {
    const i64 begin = (tiles - 1 - index / heads) * tile, h = index % heads;
    const i64 rows = std::min(tile, time - begin);
    const size_t g = static_cast<size_t>(h * op.groups / heads);
    const QueryTile queries{.q = strided(&op.q(begin, h, 0), heads * size),
                            .rows = rows,
                            .keys = start + begin + rows,
                            .first_keys = start + begin + 1,
                            .causal = true,
                            .window = op.window,
                            .k = k[g],
                            .v = v[g],
                            .scale = op.scale,
                            .y = &op.y(begin, h, 0),
                            .y_stride = heads * size,
                            .lse = op.lse.empty() ? nullptr : &op.lse(h, begin)};
    attend(queries, scratch[static_cast<size_t>(thread)], workspace.gemms);
  });
}

// Each group's cache in spans, so that few groups too keep all threads busy; the spans are merged in their order.
void decode(const CachedAttention& op, Workspace& workspace) {
  const i64 heads = op.q.shape(1) / op.groups, size = op.q.shape(2);
  const i64 first = op.window > 0 ? std::max<i64>(0, op.start + 1 - op.window) : 0, positions = op.start + 1 - first;
  const i64 wanted = (4 * threads() + op.groups - 1) / op.groups;  // spans of a group
  const i64 length = std::max<i64>(2 * decode_block, whole_tiles((positions + wanted - 1) / wanted));
  const i64 spans = (positions + length - 1) / length;
  Arena& arena = workspace.arena;
  const auto scores = arena.allocate<float>(threads(), heads * decode_block);
  const auto rows = arena.allocate<float>(threads(), 4 * size);
  const auto largest = arena.allocate<float>(op.groups, spans, heads),
             sum = arena.allocate<float>(op.groups, spans, heads);
  const auto values = arena.allocate<float>(op.groups, spans, heads, size);
  parallel_dynamic(op.groups * spans, [&](int thread, i64 index) {
    const i64 g = index / spans, span = index % spans, begin = span * length;
    decode_span({.keys = cached(op.keys, op.capacity(), g, first + begin),
                 .values = cached(op.values, op.capacity(), g, first + begin),
                 .count = std::min(length, positions - begin),
                 .q = &op.q(0, g * heads, 0),
                 .heads = heads,
                 .head_size = size,
                 .scale = op.scale,
                 .scores = scores[thread].data(),
                 .rows = rows[thread].data(),
                 .largest = &largest(g, span, 0),
                 .sum = &sum(g, span, 0),
                 .value_sum = &values(g, span, 0, 0)});
  });
  for (i64 h = 0; h < heads * op.groups; ++h) {
    const i64 g = h / heads, r = h % heads;
    float top = largest(g, 0, r), total = 0;
    for (i64 s = 1; s < spans; ++s) top = std::max(top, largest(g, s, r));
    for (i64 s = 0; s < spans; ++s) total += sum(g, s, r) * std::exp(largest(g, s, r) - top);
    if (!op.lse.empty()) op.lse(h, 0) = top + std::log(total);
    const Out<float, 1> y = op.y[0][h];
    std::fill(y.begin(), y.end(), 0.0f);
    for (i64 s = 0; s < spans; ++s) {
      const float weight = std::exp(largest(g, s, r) - top) / total;
      for (i64 i = 0; i < size; ++i) y[i] += weight * values(g, s, r, i);
    }
  }
}

}  // namespace

void run(const CachedAttention& op, Workspace& workspace) {
  const Arena::Mark mark = workspace.arena.mark();
  if (op.q.shape(0) == 1)
    decode(op, workspace);
  else
    prefill(op, workspace);
  workspace.arena.release(mark);
}
}  // namespace sparsam::cpu
