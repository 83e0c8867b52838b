// The backward of log-sum-exp attention: a pass over the chunks in their order, which makes the states again and gives
// dq, and one in reverse order, which carries the state's gradient and gives dk and dv. Weights are made again there:
// that costs less than keeping them.
#include <cmath>
#include <vector>

#include "base/threads.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/log_attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/log_attention_backward.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

#include "ops/cpu/log_attention_chunks-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {

// Panels of one chunk of a group, and the group's state.
struct BackwardPanels {
  float *keys, *queries;       // (chunk_tokens, padded E) twice: psi; exp(q + b + M - lse)
  float* decays;               // (chunk_tokens, padded E), null without a gate
  float *values, *values_t;    // (chunk_tokens, padded D), (D, chunk_tokens)
  float *keys_t, *turned;      // (E, chunk_tokens), (D, padded E): psi^T, a state transposed
  float *dy, *delta;           // (chunk_tokens, padded D), (chunk_tokens)
  float *weights, *slopes;     // (chunk_tokens, chunk_tokens)  p and s of pairs of tokens
  float *to_keys, *to_values;  // (chunk_tokens, padded E), (chunk_tokens, padded D)
  float *factor, *high;        // (padded E) twice
  GroupState state;
};

// Rows of dy and delta of a chunk of head h; in log space dy / exp(y - shift), so that the rest is that of plain
// values.
void load_dy(const LogAttentionBackward& op, i64 b, i64 h, i64 begin, i64 n, const BackwardPanels& p) {
  const i64 D = op.v.shape(3), d = padded_columns(D);
  for (i64 i = 0; i < n; ++i) {
    const float *dy = &op.dy(b, begin + i, h, 0), *y = &op.y(b, begin + i, h, 0);
    float* row = p.dy + i * d;
    copy_padded(dy, D, d, 0, row);
    float delta = 0;
    if (op.lse(b, h, begin + i) == minus_infinity) {
      std::fill_n(row, d, 0.0f);
    } else if (p.state.shift) {
      for (i64 c = 0; c < D; ++c) delta += dy[c], row[c] = dy[c] / std::exp(y[c] - p.state.shift[c]);
    } else {
      delta = row_dot(dy, y, D);
    }
    p.delta[i] = delta;
  }
}

// slopes_ij = dy_i . v_j - delta_i, j <= i
void pair_slopes(i64 n, i64 D, const BackwardPanels& p) {
  multiply({.m = n,
            .n = n,
            .k = D,
            .a = p.dy,
            .a_row = padded_columns(D),
            .a_col = 1,
            .b = p.values_t,
            .b_stride = chunk_tokens,
            .c = p.slopes,
            .c_stride = chunk_tokens,
            .band = Band::columns_to_row});
  for (i64 i = 0; i < n; ++i)
    for_panel(padded_columns(i + 1), [&](auto d, i64 j) HWY_ATTR {
      float* at = p.slopes + i * chunk_tokens + j;
      hn::StoreU(hn::Sub(hn::LoadU(d, at), hn::Set(d, p.delta[i])), d, at);
    });
  clear_above_diagonal(p.slopes, chunk_tokens, n);
}

// to (n, padded E) += -delta_i mass_a, for a chunk's queries.
void subtract_deltas(i64 n, i64 e, const BackwardPanels& p, float* to) {
  for (i64 i = 0; i < n; ++i)
    for_panel(e, [&](auto d, i64 a) HWY_ATTR {
      float* at = to + i * e + a;
      hn::StoreU(hn::NegMulAdd(hn::Set(d, p.delta[i]), hn::LoadU(d, p.state.mass + a), hn::LoadU(d, at)), d, at);
    });
}
void store_products(const float* weights, const float* slopes, i64 n, float* to) {
  for (i64 a = 0; a < n; ++a) to[a] = weights[a] * slopes[a];
}

// The weights of the chunk's queries of head h, relative to lse, and what load_dy() loads.
void load_queries(const LogAttentionBackward& op, i64 b, i64 h, const Chunk& chunk, const float* scale,
                  const BackwardPanels& p) {
  const i64 E = op.q.shape(3), e = padded_columns(E);
  for (i64 i = 0; i < chunk.size; ++i) {
    const i64 t = chunk.begin + i;
    query_weights(&op.q(b, t, h, 0), E, chunk.decays ? chunk.decays + i * e : nullptr, scale, op.lse(b, h, t),
                  p.queries + i * e);
  }
  load_dy(op, b, h, chunk.begin, chunk.size, p);
}

// dq of the chunk's tokens of head h.
void chunk_queries(const LogAttentionBackward& op, i64 b, i64 h, const Chunk& chunk, const BackwardPanels& p) {
  const i64 E = op.q.shape(3), e = padded_columns(E), D = op.v.shape(3), d = padded_columns(D), n = chunk.size;
  load_queries(op, b, h, chunk, p.state.scale, p);
  multiply({.m = n,
            .n = e,
            .k = D,
            .a = p.dy,
            .a_row = d,
            .a_col = 1,
            .b = p.turned,
            .b_stride = e,
            .c = p.to_keys,
            .c_stride = e});
  subtract_deltas(n, e, p, p.to_keys);
  if (op.causal) {
    pair_slopes(n, D, p);
    multiply({.m = n,
              .n = e,
              .k = n,
              .a = p.slopes,
              .a_row = chunk_tokens,
              .a_col = 1,
              .b = chunk.keys,
              .b_stride = e,
              .c = p.to_keys,
              .c_stride = e,
              .accumulate = true,
              .band = Band::factors_to_row});
  }
  for (i64 i = 0; i < n; ++i) store_products(p.queries + i * e, p.to_keys + i * e, E, &op.dq(b, chunk.begin + i, h, 0));
}

// The final state's gradient, from scale = log Z and sums = S / Z to S and Z.
void final_gradient(const LogAttentionBackward& op, i64 b, i64 g, const BackwardPanels& p) {
  const i64 E = op.k.shape(3), D = op.v.shape(3), d = padded_columns(D);
  for (i64 a = 0; a < E; ++a) {
    const bool some = !op.dfinal_sums.empty() && p.state.mass[a] > 0;
    const float inverse = some ? 1 / p.state.mass[a] : 0;
    float dmass = some ? op.dfinal_scale(b, g, a) : 0;
    for (i64 c = 0; c < D; ++c) {
      const float dmean = some ? op.dfinal_sums(b, g, a, c) * (p.state.shift ? std::exp(p.state.shift[c]) : 1) : 0;
      dmass -= dmean * p.state.sums[a * d + c] * inverse;
      p.state.dsums[a * d + c] = dmean * inverse;
    }
    p.state.dmass[a] = dmass * inverse;
  }
}

void initial_gradient(const LogAttentionBackward& op, i64 b, i64 g, const BackwardPanels& p) {
  const i64 E = op.k.shape(3), D = op.v.shape(3), d = padded_columns(D);
  for (i64 a = 0; a < E; ++a) {
    float dscale = p.state.dmass[a] * op.initial_mass(b, g, a);
    for (i64 c = 0; c < D; ++c) {
      const float dsum = p.state.dsums[a * d + c] * (p.state.shift ? std::exp(-p.state.shift[c]) : 1);
      op.dinitial_sums(b, g, a, c) = dsum;
      dscale += dsum * op.initial_sums(b, g, a, c);
    }
    op.dinitial_mass(b, g, a) = p.state.dmass[a];
    op.dinitial_scale(b, g, a) = dscale;
  }
}

// dg_ta = sum_{n >= t} (dq_na - dk_na), and what a final scale lost, of the chunk's tokens; the sums are in double,
// since they are long.
void gate_gradient(const LogAttentionBackward& op, i64 b, i64 g, const Chunk& chunk, double* sums) {
  const auto [batch, time, heads, groups, key_dim, value_dim] = op.shape();
  const i64 E = key_dim, first = g * heads / groups, last = (g + 1) * heads / groups;
  for (i64 t = chunk.begin + chunk.size; t-- > chunk.begin;) {
    for (i64 h = first; h < last; ++h)
      for (i64 a = 0; a < E; ++a) sums[a] += static_cast<double>(op.dq(b, t, h, a));
    for (i64 a = 0; a < E; ++a) {
      sums[a] -= static_cast<double>(op.dk(b, t, g, a));
      op.dgate(b, t, g, a) = static_cast<float>(sums[a]);
    }
  }
}

// What a chunk's queries of a head hand to the state before them.
void absorb_queries(i64 n, i64 E, i64 D, const BackwardPanels& p) {
  const i64 e = padded_columns(E), d = padded_columns(D);
  multiply({.m = E,
            .n = d,
            .k = n,
            .a = p.queries,
            .a_row = 1,
            .a_col = e,
            .b = p.dy,
            .b_stride = d,
            .c = p.state.dsums,
            .c_stride = d,
            .accumulate = true});
  for (i64 i = 0; i < n; ++i)
    for_panel(e, [&](auto tag, i64 a) HWY_ATTR {
      const auto query = hn::LoadU(tag, p.queries + i * e + a);
      hn::StoreU(hn::NegMulAdd(hn::Set(tag, p.delta[i]), query, hn::LoadU(tag, p.state.dmass + a)), tag,
                 p.state.dmass + a);
    });
}

// What a chunk's queries of head h hand to the chunk's own tokens.
void pair_gradients(i64 n, i64 E, i64 D, const BackwardPanels& p) {
  const i64 C = chunk_tokens, e = padded_columns(E), d = padded_columns(D);
  multiply({.m = n,
            .n = n,
            .k = E,
            .a = p.queries,
            .a_row = e,
            .a_col = 1,
            .b = p.keys_t,
            .b_stride = C,
            .c = p.weights,
            .c_stride = C,
            .band = Band::columns_to_row});
  clear_above_diagonal(p.weights, C, n);
  multiply({.m = n,
            .n = d,
            .k = n,
            .a = p.weights,
            .a_row = 1,
            .a_col = C,
            .b = p.dy,
            .b_stride = d,
            .c = p.to_values,
            .c_stride = d,
            .accumulate = true,
            .band = Band::factors_from_row});
  pair_slopes(n, D, p);
  multiply({.m = n,
            .n = e,
            .k = n,
            .a = p.slopes,
            .a_row = 1,
            .a_col = C,
            .b = p.queries,
            .b_stride = e,
            .c = p.to_keys,
            .c_stride = e,
            .accumulate = true,
            .band = Band::factors_from_row});
}

// dk and dv of a chunk of scale M, given the gradient of the state after it, which becomes that of the state before it.
void chunk_keys(const LogAttentionBackward& op, i64 b, i64 g, const Chunk& chunk, const float* scale,
                const BackwardPanels& p) {
  const auto [batch, time, heads, groups, key_dim, value_dim] = op.shape();
  const i64 E = key_dim, e = padded_columns(E), D = value_dim, d = padded_columns(D), n = chunk.size;
  transpose(p.state.dsums, d, E, D, p.turned, e, e);
  multiply({.m = n,
            .n = d,
            .k = E,
            .a = chunk.keys,
            .a_row = e,
            .a_col = 1,
            .b = p.state.dsums,
            .b_stride = d,
            .c = p.to_values,
            .c_stride = d});
  for (i64 i = 0; i < n; ++i) std::copy_n(p.state.dmass, e, p.to_keys + i * e);
  multiply({.m = n,
            .n = e,
            .k = D,
            .a = p.values,
            .a_row = d,
            .a_col = 1,
            .b = p.turned,
            .b_stride = e,
            .c = p.to_keys,
            .c_stride = e,
            .accumulate = true});
  const i64 first = g * heads / groups, last = (g + 1) * heads / groups;
  for (i64 h = first; op.causal && h < last; ++h) {
    load_queries(op, b, h, chunk, scale, p);
    pair_gradients(n, E, D, p);
    absorb_queries(n, E, D, p);
  }
  for (i64 i = 0; i < n; ++i) {
    const i64 t = chunk.begin + i;
    store_products(chunk.keys + i * e, p.to_keys + i * e, E, &op.dk(b, t, g, 0));
    float* dv = &op.dv(b, t, g, 0);
    for (i64 c = 0; c < D; ++c) dv[c] = p.to_values[i * d + c] * (p.state.shift ? p.values[i * d + c] : 1);
  }
}

void load_chunk_values(const GroupTokens& tokens, const Chunk& chunk, const BackwardPanels& p) {
  const i64 d = padded_columns(tokens.value_dim);
  load_values(tokens, chunk.begin, chunk.size, p.state.shift, p.values);
  transpose(p.values, d, chunk.size, tokens.value_dim, p.values_t, chunk_tokens, padded_columns(chunk.size));
}

BackwardPanels backward_panels(const LogAttentionBackward& op, const GroupState& state, float* memory) {
  const i64 C = chunk_tokens, e = padded_columns(op.k.shape(3)), d = padded_columns(op.v.shape(3));
  Scratch s(memory);
  const auto take = [&](i64 floats) { return s.take(floats); };
  return {.keys = take(C * e),
          .queries = take(C * e),
          .decays = op.gate.empty() ? nullptr : take(C * e),
          .values = take(C * d),
          .values_t = take(d * C),
          .keys_t = take(e * C),
          .turned = take(d * e),
          .dy = take(C * d),
          .delta = take(C),
          .weights = take(C * C),
          .slopes = take(C * C),
          .to_keys = take(C * e),
          .to_values = take(C * d),
          .factor = take(e),
          .high = take(e),
          .state = state};
}
i64 backward_floats(i64 E, i64 D) {
  const i64 e = padded_columns(E), d = padded_columns(D), C = chunk_tokens;
  return Scratch::floats_for(
      {C * e, C * e, C * e, C * d, d * C, e * C, d * e, C * d, C, C * C, C * C, C * e, C * d, e, e});
}

void begin_group(const LogAttentionBackward& op, i64 b, i64 g, const GroupState& state) {
  const i64 E = op.k.shape(3), e = padded_columns(E), d = padded_columns(op.v.shape(3));
  load_state(op, b, g, state);
  std::fill_n(state.dsums, E * d, 0.0f), std::fill_n(state.dmass, e, 0.0f);
  for (i64 a = 0; a < E; ++a)
    state.dgate[a] = op.dfinal_scale.empty() ? 0 : static_cast<double>(op.dfinal_scale(b, g, a));
}

// The first pass over the tokens [begin, end) of a group: dq.
void queries_backward(const LogAttentionBackward& op, i64 b, i64 g, i64 begin, i64 end, const GroupState& state,
                      ChunkRecord& record, float* memory) {
  const auto [batch, time, heads, groups, key_dim, value_dim] = op.shape();
  const i64 E = key_dim, e = padded_columns(E), D = value_dim, d = padded_columns(D);
  const i64 first = g * heads / groups, last = (g + 1) * heads / groups;
  const GroupTokens tokens = group_tokens(op, b, g, end);
  const BackwardPanels p = backward_panels(op, state, memory);
  if (begin == 0) begin_group(op, b, g, state);
  Chunk chunk{begin, 0, p.keys, p.decays, p.factor, p.high};
  for (i64 t = begin; t < end; t += chunk.size) {
    take_chunk(tokens, t, state.scale, chunk);
    const i64 next = t + chunk.size;
    if (next < end)
      prefetch_tokens(op, b, g, next, std::min(next + chunk_tokens, end));
    else
      prefetch_tokens(op, b, g + 1, begin, std::min(begin + chunk_tokens, end));
    record.begins.push_back(t);
    record.scales.insert(record.scales.end(), state.scale, state.scale + e);
    record.factors.insert(record.factors.end(), p.factor, p.factor + e);
    rescale(chunk.factor, E, d, state.sums, state.mass);
    load_chunk_values(tokens, chunk, p);
    transpose(state.sums, d, E, D, p.turned, e, e);
    for (i64 h = first; h < last; ++h) chunk_queries(op, b, h, chunk, p);
    absorb(chunk, p.values, E, d, state.sums, state.mass);
    leave_chunk(chunk, e, state.scale);
  }
  if (end == time) final_gradient(op, b, g, p);
}

// The second pass, from the last segment to the first: dk, dv and dgate.
void keys_backward(const LogAttentionBackward& op, i64 b, i64 g, i64 begin, i64 end, const GroupState& state,
                   ChunkRecord& record, float* memory) {
  const i64 E = op.k.shape(3), e = padded_columns(E), d = padded_columns(op.v.shape(3));
  const GroupTokens tokens = group_tokens(op, b, g, end);
  const BackwardPanels p = backward_panels(op, state, memory);
  for (i64 after = end; after > begin; record.begins.pop_back()) {
    const i64 index = static_cast<i64>(record.begins.size()) - 1, t = record.begins.back();
    const float *scale = record.scales.data() + index * e, *factor = record.factors.data() + index * e;
    Chunk chunk{t, after - t, p.keys, p.decays, p.factor, p.high};
    weigh_keys(tokens, scale, chunk);
    if (t > begin)
      prefetch_tokens(op, b, g, record.begins[static_cast<size_t>(index - 1)], t);
    else
      prefetch_tokens(op, b, g + 1, std::max(begin, end - chunk_tokens), end);
    load_chunk_values(tokens, chunk, p);
    transpose(chunk.keys, e, chunk.size, E, p.keys_t, chunk_tokens, padded_columns(chunk.size));
    chunk_keys(op, b, g, chunk, scale, p);
    if (!op.dgate.empty()) gate_gradient(op, b, g, chunk, state.dgate);
    rescale(factor, E, d, state.dsums, state.dmass);
    after = t;
  }
  if (begin == 0 && !op.dinitial_sums.empty()) initial_gradient(op, b, g, p);
}

void bidirectional_backward(const LogAttentionBackward& op, i64 b, i64 g, const GroupState& state, float* memory) {
  const auto [batch, time, heads, groups, key_dim, value_dim] = op.shape();
  const i64 E = key_dim, e = padded_columns(E), D = value_dim, d = padded_columns(D);
  const i64 first = g * heads / groups, last = (g + 1) * heads / groups;
  const GroupTokens tokens = group_tokens(op, b, g, time);
  const BackwardPanels p = backward_panels(op, state, memory);
  const auto for_chunks = [&](auto&& body) {
    for (i64 t = 0; t < tokens.time; t += chunk_tokens)
      body(Chunk{t, std::min(chunk_tokens, tokens.time - t), p.keys, nullptr, p.factor, p.high});
  };
  begin_group(op, b, g, state);
  see_all_keys(tokens, state.scale, p.factor);
  rescale(p.factor, E, d, state.sums, state.mass);
  for_chunks([&](Chunk chunk) {
    weigh_keys(tokens, state.scale, chunk);
    load_values(tokens, chunk.begin, chunk.size, state.shift, p.values);
    absorb(chunk, p.values, E, d, state.sums, state.mass);
  });
  final_gradient(op, b, g, p);
  transpose(state.sums, d, E, D, p.turned, e, e);
  for_chunks([&](const Chunk& chunk) {
    for (i64 h = first; h < last; ++h) {
      chunk_queries(op, b, h, chunk, p);
      absorb_queries(chunk.size, E, D, p);
    }
  });
  for_chunks([&](Chunk chunk) {
    weigh_keys(tokens, state.scale, chunk);
    load_values(tokens, chunk.begin, chunk.size, state.shift, p.values);
    chunk_keys(op, b, g, chunk, state.scale, p);
  });
  rescale(p.factor, E, d, state.dsums, state.dmass);
  if (!op.dinitial_sums.empty()) initial_gradient(op, b, g, p);
}

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sparsam::cpu {
HWY_EXPORT(queries_backward);
HWY_EXPORT(keys_backward);
HWY_EXPORT(bidirectional_backward);
HWY_EXPORT(backward_floats);

void run(const LogAttentionBackward& op, Workspace& workspace) {
  const Arena::Mark mark = workspace.arena.mark();
  const auto scratch =
      workspace.arena.allocate<float>(threads(), HWY_DYNAMIC_DISPATCH(backward_floats)(op.k.shape(3), op.v.shape(3)));
  const SegmentedGroups<LogAttentionBackward> groups(op, true, workspace);
  if (op.causal) {
    std::vector<ChunkRecord> records(static_cast<size_t>(op.k.shape(0) * op.k.shape(2)));
    const auto pass = [&](i64 segment, auto kernel) {
      groups.run(segment, [&](int thread, i64 b, i64 g, i64 begin, i64 end, const GroupState& state) {
        kernel(op, b, g, begin, end, state, records[static_cast<size_t>(b * op.k.shape(2) + g)],
               scratch[thread].data());
      });
    };
    for (i64 i = 0; i < groups.segments(); ++i) pass(i, HWY_DYNAMIC_DISPATCH(queries_backward));
    for (i64 i = groups.segments(); i-- > 0;) pass(i, HWY_DYNAMIC_DISPATCH(keys_backward));
  } else {
    const auto kernel = HWY_DYNAMIC_DISPATCH(bidirectional_backward);
    groups.run(0, [&](int thread, i64 b, i64 g, i64, i64, const GroupState& state) {
      kernel(op, b, g, state, scratch[thread].data());
    });
  }
  workspace.arena.release(mark);
}
}  // namespace sparsam::cpu
#endif
