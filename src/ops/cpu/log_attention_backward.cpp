// The backward of log-sum-exp attention: a pass over the chunks in their order, which makes the states again and gives
// dq, and one in reverse order, which carries the state's gradient and gives dk and dv.
#include <cmath>

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

// Panels of one group. What the second pass needs of the first lies in rows of all tokens.
struct BackwardPanels {
  float *keys, *queries;        // (T, padded E), (heads of the group, T, padded E): psi; exp(q + b + M - lse)
  float *factors, *decays;      // (T, padded E) of each chunk; (chunk_tokens, padded E), null without a gate
  float *values, *values_t;     // (chunk_tokens, padded D), (D, chunk_tokens)
  float *keys_t, *turned;       // (E, chunk_tokens), (D, padded E): psi^T, a state transposed
  float *dy, *delta;            // (chunk_tokens, padded D), (chunk_tokens)
  float *weights, *slopes;      // (chunk_tokens, chunk_tokens)  p and s of pairs of tokens
  float *to_keys, *to_values;   // (chunk_tokens, padded E), (chunk_tokens, padded D)
  float *sums, *mass, *scale;   // (E, padded D), (padded E), (padded E)  the state
  float *dsums, *dmass, *high;  // its gradient; (padded E)
  float* shift;                 // (padded D), null unless values are logarithms
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
    } else if (p.shift) {
      for (i64 c = 0; c < D; ++c) delta += dy[c], row[c] = dy[c] / std::exp(y[c] - p.shift[c]);
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
      hn::StoreU(hn::NegMulAdd(hn::Set(d, p.delta[i]), hn::LoadU(d, p.mass + a), hn::LoadU(d, at)), d, at);
    });
}
void store_products(const float* weights, const float* slopes, i64 n, float* to) {
  for (i64 a = 0; a < n; ++a) to[a] = weights[a] * slopes[a];
}

// dq of the chunk's tokens of head h; their weights, relative to lse, stay in `queries`.
void chunk_queries(const LogAttentionBackward& op, i64 b, i64 h, const Chunk& chunk, const BackwardPanels& p,
                   float* queries) {
  const i64 E = op.q.shape(3), e = padded_columns(E), D = op.v.shape(3), d = padded_columns(D), n = chunk.size;
  for (i64 i = 0; i < n; ++i) {
    const i64 t = chunk.begin + i;
    query_weights(&op.q(b, t, h, 0), E, chunk.decays ? chunk.decays + i * e : nullptr, p.scale, op.lse(b, h, t),
                  queries + i * e);
  }
  load_dy(op, b, h, chunk.begin, n, p);
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
  for (i64 i = 0; i < n; ++i) store_products(queries + i * e, p.to_keys + i * e, E, &op.dq(b, chunk.begin + i, h, 0));
}

// The final state's gradient, from scale = log Z and sums = S / Z to S and Z.
void final_gradient(const LogAttentionBackward& op, i64 b, i64 g, const BackwardPanels& p) {
  const i64 E = op.k.shape(3), D = op.v.shape(3), d = padded_columns(D);
  for (i64 a = 0; a < E; ++a) {
    const bool some = !op.dfinal_sums.empty() && p.mass[a] > 0;
    const float inverse = some ? 1 / p.mass[a] : 0;
    float dmass = some ? op.dfinal_scale(b, g, a) : 0;
    for (i64 c = 0; c < D; ++c) {
      const float dmean = some ? op.dfinal_sums(b, g, a, c) * (p.shift ? std::exp(p.shift[c]) : 1) : 0;
      dmass -= dmean * p.sums[a * d + c] * inverse;
      p.dsums[a * d + c] = dmean * inverse;
    }
    p.dmass[a] = dmass * inverse;
  }
}

void initial_gradient(const LogAttentionBackward& op, i64 b, i64 g, const BackwardPanels& p) {
  const i64 E = op.k.shape(3), D = op.v.shape(3), d = padded_columns(D);
  for (i64 a = 0; a < E; ++a) {
    float dscale = p.dmass[a] * op.initial_mass(b, g, a);
    for (i64 c = 0; c < D; ++c) {
      const float dsum = p.dsums[a * d + c] * (p.shift ? std::exp(-p.shift[c]) : 1);
      op.dinitial_sums(b, g, a, c) = dsum;
      dscale += dsum * op.initial_sums(b, g, a, c);
    }
    op.dinitial_mass(b, g, a) = p.dmass[a];
    op.dinitial_scale(b, g, a) = dscale;
  }
}

// dg_ta = sum_{n >= t} (dq_na - dk_na), and what a final scale lost; sums (E) in double, since they are long.
void gate_gradient(const LogAttentionBackward& op, i64 b, i64 g, double* sums) {
  const auto [batch, time, heads, groups, key_dim, value_dim] = op.shape();
  const i64 E = key_dim, first = g * heads / groups, last = (g + 1) * heads / groups;
  for (i64 a = 0; a < E; ++a) sums[a] = op.dfinal_scale.empty() ? 0 : static_cast<double>(op.dfinal_scale(b, g, a));
  for (i64 t = time; t-- > 0;) {
    for (i64 h = first; h < last; ++h)
      for (i64 a = 0; a < E; ++a) sums[a] += static_cast<double>(op.dq(b, t, h, a));
    for (i64 a = 0; a < E; ++a) {
      sums[a] -= static_cast<double>(op.dk(b, t, g, a));
      op.dgate(b, t, g, a) = static_cast<float>(sums[a]);
    }
  }
}

// What a chunk's queries of a head hand to the state before them.
void absorb_queries(const float* queries, i64 n, i64 E, i64 D, const BackwardPanels& p) {
  const i64 e = padded_columns(E), d = padded_columns(D);
  multiply({.m = E,
            .n = d,
            .k = n,
            .a = queries,
            .a_row = 1,
            .a_col = e,
            .b = p.dy,
            .b_stride = d,
            .c = p.dsums,
            .c_stride = d,
            .accumulate = true});
  for (i64 i = 0; i < n; ++i)
    for_panel(e, [&](auto tag, i64 a) HWY_ATTR {
      const auto query = hn::LoadU(tag, queries + i * e + a);
      hn::StoreU(hn::NegMulAdd(hn::Set(tag, p.delta[i]), query, hn::LoadU(tag, p.dmass + a)), tag, p.dmass + a);
    });
}

// What a chunk's queries of head h hand to the chunk's own tokens.
void pair_gradients(const float* queries, i64 n, i64 E, i64 D, const BackwardPanels& p) {
  const i64 C = chunk_tokens, e = padded_columns(E), d = padded_columns(D);
  multiply({.m = n,
            .n = n,
            .k = E,
            .a = queries,
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
            .b = queries,
            .b_stride = e,
            .c = p.to_keys,
            .c_stride = e,
            .accumulate = true,
            .band = Band::factors_from_row});
}

// dk and dv of a chunk, given the gradient of the state after it, which becomes that of the state before it.
void chunk_keys(const LogAttentionBackward& op, i64 b, i64 g, const Chunk& chunk, const BackwardPanels& p) {
  const auto [batch, time, heads, groups, key_dim, value_dim] = op.shape();
  const i64 E = key_dim, e = padded_columns(E), D = value_dim, d = padded_columns(D), n = chunk.size;
  transpose(p.dsums, d, E, D, p.turned, e, e);
  multiply({.m = n,
            .n = d,
            .k = E,
            .a = chunk.keys,
            .a_row = e,
            .a_col = 1,
            .b = p.dsums,
            .b_stride = d,
            .c = p.to_values,
            .c_stride = d});
  for (i64 i = 0; i < n; ++i) std::copy_n(p.dmass, e, p.to_keys + i * e);
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
    const float* queries = p.queries + ((h - first) * time + chunk.begin) * e;
    load_dy(op, b, h, chunk.begin, n, p);
    pair_gradients(queries, n, E, D, p);
    absorb_queries(queries, n, E, D, p);
  }
  for (i64 i = 0; i < n; ++i) {
    const i64 t = chunk.begin + i;
    store_products(chunk.keys + i * e, p.to_keys + i * e, E, &op.dk(b, t, g, 0));
    float* dv = &op.dv(b, t, g, 0);
    for (i64 c = 0; c < D; ++c) dv[c] = p.to_values[i * d + c] * (p.shift ? p.values[i * d + c] : 1);
  }
}

void load_chunk_values(const GroupTokens& tokens, const Chunk& chunk, const BackwardPanels& p) {
  const i64 d = padded_columns(tokens.value_dim);
  load_values(tokens, chunk.begin, chunk.size, p.shift, p.values);
  transpose(p.values, d, chunk.size, tokens.value_dim, p.values_t, chunk_tokens, padded_columns(chunk.size));
}

void causal_backward(const LogAttentionBackward& op, i64 b, i64 g, const BackwardPanels& p, i64* begins) {
  const auto [batch, time, heads, groups, key_dim, value_dim] = op.shape();
  const i64 E = key_dim, e = padded_columns(E), D = value_dim, d = padded_columns(D);
  const i64 first = g * heads / groups, last = (g + 1) * heads / groups;
  const GroupTokens tokens = group_tokens(op, b, g);
  i64 chunks = 0;
  for (i64 t = 0; t < time; ++chunks) {
    Chunk chunk{t, 0, p.keys + t * e, p.decays, p.factors + chunks * e, p.high};
    take_chunk(tokens, t, p.scale, chunk);
    rescale(chunk.factor, E, d, p.sums, p.mass);
    load_chunk_values(tokens, chunk, p);
    transpose(p.sums, d, E, D, p.turned, e, e);
    for (i64 h = first; h < last; ++h) chunk_queries(op, b, h, chunk, p, p.queries + ((h - first) * time + t) * e);
    absorb(chunk, p.values, E, d, p.sums, p.mass);
    leave_chunk(chunk, e, p.scale);
    begins[chunks] = t, t += chunk.size;
  }
  begins[chunks] = time;
  final_gradient(op, b, g, p);
  while (chunks-- > 0) {
    const i64 t = begins[chunks];
    const Chunk chunk{t, begins[chunks + 1] - t, p.keys + t * e, nullptr, p.factors + chunks * e, p.high};
    load_chunk_values(tokens, chunk, p);
    transpose(chunk.keys, e, chunk.size, E, p.keys_t, chunk_tokens, padded_columns(chunk.size));
    chunk_keys(op, b, g, chunk, p);
    rescale(chunk.factor, E, d, p.dsums, p.dmass);
  }
}

void bidirectional_backward(const LogAttentionBackward& op, i64 b, i64 g, const BackwardPanels& p) {
  const auto [batch, time, heads, groups, key_dim, value_dim] = op.shape();
  const i64 E = key_dim, e = padded_columns(E), D = value_dim, d = padded_columns(D);
  const i64 first = g * heads / groups, last = (g + 1) * heads / groups;
  const GroupTokens tokens = group_tokens(op, b, g);
  const auto chunk_at = [&](i64 t) {
    return Chunk{t, std::min(chunk_tokens, tokens.time - t), p.keys + t * e, nullptr, p.factors, p.high};
  };
  see_all_keys(tokens, p.scale, p.factors);
  rescale(p.factors, E, d, p.sums, p.mass);
  for (i64 t = 0; t < time; t += chunk_tokens) {
    Chunk chunk = chunk_at(t);
    take_plain_chunk(tokens, t, p.scale, chunk);
    load_values(tokens, t, chunk.size, p.shift, p.values);
    absorb(chunk, p.values, E, d, p.sums, p.mass);
  }
  final_gradient(op, b, g, p);
  transpose(p.sums, d, E, D, p.turned, e, e);
  for (i64 t = 0; t < time; t += chunk_tokens) {
    const Chunk chunk = chunk_at(t);
    for (i64 h = first; h < last; ++h) {
      chunk_queries(op, b, h, chunk, p, p.queries);
      absorb_queries(p.queries, chunk.size, E, D, p);
    }
  }
  for (i64 t = 0; t < time; t += chunk_tokens) {
    const Chunk chunk = chunk_at(t);
    load_values(tokens, t, chunk.size, p.shift, p.values);
    chunk_keys(op, b, g, chunk, p);
  }
  rescale(p.factors, E, d, p.dsums, p.dmass);
}

void attend_group_backward(const LogAttentionBackward& op, i64 b, i64 g, float* memory, i64* begins) {
  const auto [batch, time, heads, groups, key_dim, value_dim] = op.shape();
  const i64 C = chunk_tokens, T = time, e = padded_columns(key_dim), d = padded_columns(value_dim);
  Scratch s(memory);
  const auto take = [&](i64 floats) { return s.take(floats); };
  const BackwardPanels p{.keys = take(T * e),
                         .queries = take(heads / groups * T * e),
                         .factors = take(T * e),
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
                         .sums = take(e * d),
                         .mass = take(e),
                         .scale = take(e),
                         .dsums = take(e * d),
                         .dmass = take(e),
                         .high = take(e),
                         .shift = op.log_values ? take(d) : nullptr};
  std::fill_n(p.dsums, e * d, 0.0f), std::fill_n(p.dmass, e, 0.0f);
  if (p.shift) value_shift(op, b, g, p.shift);
  load_state(op, b, g, p.shift, p.sums, p.mass, p.scale);
  if (op.causal)
    causal_backward(op, b, g, p, begins);
  else
    bidirectional_backward(op, b, g, p);
  if (!op.dinitial_sums.empty()) initial_gradient(op, b, g, p);
  if (!op.dgate.empty()) gate_gradient(op, b, g, reinterpret_cast<double*>(s.take(2 * e)));
}

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sparsam::cpu {
HWY_EXPORT(attend_group_backward);

namespace {

i64 scratch_floats(i64 T, i64 heads, i64 E, i64 D) {  // in the order of attend_group_backward
  const i64 e = padded_columns(E), d = padded_columns(D), C = chunk_tokens;
  return Scratch::floats_for({T * e, heads * T * e, T * e, C * e, C * d, d * C, e * C, d * e, C * d, C, C * C,
                              C * C, C * e,         C * d, e * d, e,     e,     e * d, e,     e,     d, 2 * e});
}

}  // namespace

void run(const LogAttentionBackward& op, Workspace& workspace) {
  const auto kernel = HWY_DYNAMIC_DISPATCH(attend_group_backward);
  const auto [batch, time, heads, groups, key_dim, value_dim] = op.shape();
  const i64 G = groups;
  const Arena::Mark mark = workspace.arena.mark();
  const auto scratch =
      workspace.arena.allocate<float>(threads(), scratch_floats(time, heads / groups, key_dim, value_dim));
  const auto begins = workspace.arena.allocate<i64>(threads(), time + 1);
  parallel_dynamic(batch * G, [&](int thread, i64 index) {
    kernel(op, index / G, index % G, scratch[thread].data(), begins[thread].data());
  });
  workspace.arena.release(mark);
}
}  // namespace sparsam::cpu
#endif
