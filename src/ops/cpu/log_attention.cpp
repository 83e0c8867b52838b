// Log-sum-exp attention over whole sequences: one work item is a segment of one group of a sequence, which carries its
// state from chunk to chunk of tokens.
#include "ops/cpu/log_attention.h"

#include <cmath>

#include "base/threads.h"
#include "ops/cpu/cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/log_attention.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

#include "ops/cpu/log_attention_chunks-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {

// One group's state and the panels of a chunk.
struct ForwardPanels {
  Chunk chunk;
  float *keys_t, *values;           // (E, chunk_tokens) psi^T, (chunk_tokens, padded D)
  float *queries, *products, *out;  // (chunk_tokens, padded E), (chunk_tokens, chunk_tokens), (chunk_tokens, padded D)
  float* offsets;                   // (chunk_tokens)
  GroupState state;
};

// y of the chunk's tokens of head h: what the state before the chunk holds, and with `own` what the chunk's tokens
// hold.
void read_chunk(const LogAttention& op, i64 b, i64 h, bool own, const ForwardPanels& p) {
  const i64 E = op.q.shape(3), D = op.v.shape(3), e = padded_columns(E), d = padded_columns(D), n = p.chunk.size;
  for (i64 i = 0; i < n; ++i)
    p.offsets[i] =
        query_weights(&op.q(b, p.chunk.begin + i, h, 0), E, p.chunk.decays ? p.chunk.decays + i * e : nullptr,
                      p.state.scale, NAN, p.queries + i * e);
  multiply({.m = n,
            .n = d,
            .k = E,
            .a = p.queries,
            .a_row = e,
            .a_col = 1,
            .b = p.state.sums,
            .b_stride = d,
            .c = p.out,
            .c_stride = d});
  if (own) {
    multiply({.m = n,
              .n = n,
              .k = E,
              .a = p.queries,
              .a_row = e,
              .a_col = 1,
              .b = p.keys_t,
              .b_stride = chunk_tokens,
              .c = p.products,
              .c_stride = chunk_tokens,
              .band = Band::columns_to_row});
    clear_above_diagonal(p.products, chunk_tokens, n);
    multiply({.m = n,
              .n = d,
              .k = n,
              .a = p.products,
              .a_row = chunk_tokens,
              .a_col = 1,
              .b = p.values,
              .b_stride = d,
              .c = p.out,
              .c_stride = d,
              .accumulate = true,
              .band = Band::factors_to_row});
  }
  for (i64 i = 0; i < n; ++i) {
    float mass = panel_dot(p.queries + i * e, p.state.mass, e);
    if (own) mass += panel_sum(p.products + i * chunk_tokens, i + 1);
    const i64 t = p.chunk.begin + i;
    float *row = p.out + i * d, *y = &op.y(b, t, h, 0);
    const float inverse = mass > 0 || std::isnan(mass) ? 1 / mass : 0;
    for (i64 c = 0; c < D; ++c) y[c] = row[c] * inverse;
    if (p.state.shift)
      for (i64 c = 0; c < D; ++c)
        y[c] = inverse == 0 ? 0 : p.state.shift[c] + std::log(std::max(y[c], std::numeric_limits<float>::min()));
    if (!op.lse.empty()) op.lse(b, h, t) = inverse == 0 ? minus_infinity : p.offsets[i] + std::log(mass);
  }
}

// The state at its end: scale = log Z, rounded, and the numbers relative to what it was rounded to.
void store_state(const LogAttention& op, i64 b, i64 g, const ForwardPanels& p) {
  const i64 E = op.k.shape(3), D = op.v.shape(3), d = padded_columns(D);
  for (i64 a = 0; a < E; ++a) {
    const bool some = p.state.mass[a] > 0 || std::isnan(p.state.mass[a]);
    const double exact = static_cast<double>(p.state.scale[a]) + std::log(static_cast<double>(p.state.mass[a]));
    const float scale = some ? static_cast<float>(exact) : minus_infinity;
    const double factor = some ? std::exp(static_cast<double>(p.state.scale[a]) - static_cast<double>(scale)) : 0;
    op.final_scale(b, g, a) = scale;
    op.final_mass(b, g, a) = static_cast<float>(static_cast<double>(p.state.mass[a]) * factor);
    for (i64 c = 0; c < D; ++c) {
      const double shift = p.state.shift ? std::exp(static_cast<double>(p.state.shift[c])) : 1;
      op.final_sums(b, g, a, c) = static_cast<float>(static_cast<double>(p.state.sums[a * d + c]) * factor * shift);
    }
  }
}

// The tokens [begin, end) of group g of sequence b.
void attend_segment(const LogAttention& op, i64 b, i64 g, i64 begin, i64 end, const GroupState& state, float* memory) {
  const auto [batch, time, heads, groups, key_dim, value_dim] = op.shape();
  const i64 C = chunk_tokens, E = key_dim, e = padded_columns(E), d = padded_columns(value_dim);
  const i64 first = g * heads / groups, last = (g + 1) * heads / groups;
  const GroupTokens tokens = group_tokens(op, b, g, end);
  Scratch s(memory);
  ForwardPanels p;
  p.chunk = {0, 0, s.take(C * e), s.take(C * e), s.take(e), s.take(e)};
  if (!tokens.gate) p.chunk.decays = nullptr;
  p.keys_t = s.take(e * C), p.values = s.take(C * d), p.queries = s.take(C * e), p.products = s.take(C * C);
  p.out = s.take(C * d), p.offsets = s.take(C), p.state = state;
  if (begin == 0) load_state(op, b, g, state);
  if (op.causal) {
    for (i64 t = begin; t < end; t += p.chunk.size) {
      take_chunk(tokens, t, state.scale, p.chunk);
      const i64 next = t + p.chunk.size;
      if (next < end)
        prefetch_tokens(op, b, g, next, std::min(next + C, end));
      else
        prefetch_tokens(op, b, g + 1, begin, std::min(begin + C, end));
      rescale(p.chunk.factor, E, d, state.sums, state.mass);
      load_values(tokens, t, p.chunk.size, state.shift, p.values);
      transpose(p.chunk.keys, e, p.chunk.size, E, p.keys_t, C, padded_columns(p.chunk.size));
      for (i64 h = first; h < last; ++h) read_chunk(op, b, h, true, p);
      absorb(p.chunk, p.values, E, d, state.sums, state.mass);
      leave_chunk(p.chunk, e, state.scale);
    }
  } else {
    see_all_keys(tokens, state.scale, p.chunk.factor);
    rescale(p.chunk.factor, E, d, state.sums, state.mass);
    for (i64 t = 0; t < time; t += p.chunk.size) {
      p.chunk.begin = t, p.chunk.size = std::min(C, time - t);
      weigh_keys(tokens, state.scale, p.chunk);
      load_values(tokens, t, p.chunk.size, state.shift, p.values);
      absorb(p.chunk, p.values, E, d, state.sums, state.mass);
    }
    for (i64 t = 0; t < time; t += p.chunk.size) {
      p.chunk.begin = t, p.chunk.size = std::min(C, time - t);
      for (i64 h = first; h < last; ++h) read_chunk(op, b, h, false, p);
    }
  }
  if (end == time && !op.final_sums.empty()) store_state(op, b, g, p);
}

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sparsam::cpu {
HWY_EXPORT(attend_segment);

namespace {

i64 scratch_floats(i64 E, i64 D) {  // in the order of attend_segment
  const i64 e = padded_columns(E), d = padded_columns(D), C = chunk_tokens;
  return Scratch::floats_for({C * e, C * e, e, e, e * C, C * d, C * e, C * C, C * d, C});
}

}  // namespace

void run(const LogAttention& op, Workspace& workspace) {
  const auto kernel = HWY_DYNAMIC_DISPATCH(attend_segment);
  const Arena::Mark mark = workspace.arena.mark();
  const auto scratch = workspace.arena.allocate<float>(threads(), scratch_floats(op.q.shape(3), op.v.shape(3)));
  const SegmentedGroups<LogAttention> groups(op, false, workspace);
  for (i64 i = 0; i < groups.segments(); ++i)
    groups.run(i, [&](int thread, i64 b, i64 g, i64 begin, i64 end, const GroupState& state) {
      kernel(op, b, g, begin, end, state, scratch[thread].data());
    });
  workspace.arena.release(mark);
}
}  // namespace sparsam::cpu
#endif
