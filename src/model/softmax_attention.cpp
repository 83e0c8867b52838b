#include "model/softmax_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

namespace sparsam {

void rotate(const Execution& e, Out<float, 2> heads, i64 head_dim, bool inverse) {
  if (e.config.positions != Positions::rotary) return;
  const auto view = heads.as(heads.shape(0), heads.shape(1) / head_dim, head_dim);
  const Arena::Mark mark = e.arena.mark();
  In<i32, 1> rows = e.positions;
  if (e.rotary.first != 0) {  // the tables begin later
    const auto shifted = e.arena.allocate<i32>(rows.size());
    for (i64 n = 0; n < rows.size(); ++n) shifted[n] = rows[n] - static_cast<i32>(e.rotary.first);
    rows = shifted;
  }
  e.backend.run(Rope{.y = view,
                     .x = view,
                     .positions = rows,
                     .cosine = e.rotary.cosine,
                     .sine = e.rotary.sine,
                     .pairing = e.config.rotary.pairing,
                     .inverse = inverse});
  e.arena.release(mark);
}

namespace {

float scale_of(const SoftmaxAttention& attention) { return 1.f / std::sqrt(static_cast<float>(attention.head_dim)); }

// RMS norm with gain over each head (N, H D) -> (N, H D).
Out<float, 2> head_norm(const Execution& e, const NormParams<Matrix>& w, In<float, 2> raw, Out<float, 1>& r) {
  const i64 head_dim = w.gain.cols, rows = raw.size() / head_dim;
  const auto y = e.arena.allocate<float>(rows, head_dim);
  r = e.arena.allocate<float>(rows);
  e.backend.run(
      RmsNorm{.y = y, .r = r, .x = raw.as(rows, head_dim), .gain = as_vector(w.gain), .eps = e.config.norm.eps});
  return y.as(raw.shape(0), raw.shape(1));
}

Out<float, 2> head_norm_backward(const Execution& e, const NormParams<Matrix>& w, const NormParams<Out<float, 2>>& dw,
                                 In<float, 2> raw, In<float, 1> r, In<float, 2> dy) {
  const i64 head_dim = w.gain.cols, rows = raw.size() / head_dim;
  const auto dx = e.arena.zeros<float>(rows, head_dim);
  e.backend.run(RmsNormBackward{.dx = dx,
                                .dgain = vector_sum(dw.gain),
                                .dy = dy.as(rows, head_dim),
                                .x = raw.as(rows, head_dim),
                                .gain = as_vector(w.gain),
                                .r = r});
  return dx.as(raw.shape(0), raw.shape(1));
}

Out<float, 2> project(const Execution& e, const ParameterTokens& tokens, const ProjectionParams<Matrix>& w,
                      In<float, 2> x, TokenActivations& kept, const SparseLayer* sparse, SitePlace place,
                      InputMajor SparseLayer::*by_input) {
  if (sparse && !(sparse->*by_input).empty()) return sparse_forward(e, w, sparse->*by_input, x);
  return projection_forward(e, tokens, w, x, kept, sparse ? &sparse->tokens[static_cast<size_t>(place)] : nullptr);
}

// Rows of a cache of G heads: `count` of each head, from positions `from` on of a ring to `to` on of another matrix.
void copy_rows(const MutableMatrix& source, i64 from, const MutableMatrix& target, i64 to, i64 count, i64 heads) {
  const size_t row = static_cast<size_t>(source.cols * size_of(source.dtype));
  const i64 capacity = source.rows / heads, room = target.rows / heads;
  for (i64 g = 0; g < heads; ++g)
    for (i64 i = 0; i < count; ++i)
      std::memcpy(target.bytes.data() + static_cast<size_t>(g * room + (to + i) % room) * row,
                  source.bytes.data() + static_cast<size_t>(g * capacity + (from + i) % capacity) * row, row);
}

}  // namespace

void attend_ring(const Execution& e, const LayerCache& ring, const RingAttention& a) {
  const i64 T = a.q.shape(0), G = a.k.shape(1), D = a.q.shape(2), capacity = ring.keys.rows / G;
  if (T == 1) {  // which row is whose does not matter: positions are in the keys
    e.backend.run(
        CacheAppend{.keys = ring.keys, .values = ring.values, .k = a.k, .v = a.v, .start = a.start % capacity});
    e.backend.run(CachedAttention{.y = a.y,
                                  .q = a.q,
                                  .keys = ring.keys,
                                  .values = ring.values,
                                  .groups = G,
                                  .start = std::min(a.start, capacity - 1),
                                  .scale = a.scale,
                                  .compute = e.compute,
                                  .lse = a.lse});
    return;
  }
  const i64 past = std::min({a.start, a.window - 1, capacity}), rows = past + T, kept = std::min(T, capacity);
  const Arena::Mark mark = e.arena.mark();
  const auto in_order = [&](const MutableMatrix& m) {
    const auto bytes = e.arena.allocate<std::byte>(G * rows * D * size_of(m.dtype));
    const MutableMatrix all{m.dtype, G * rows, D, bytes.span()};
    copy_rows(m, a.start - past, all, 0, past, G);
    return all;
  };
  const MutableMatrix keys = in_order(ring.keys), values = in_order(ring.values);
  e.backend.run(CacheAppend{.keys = keys, .values = values, .k = a.k, .v = a.v, .start = past});
  e.backend.run(CachedAttention{.y = a.y,
                                .q = a.q,
                                .keys = keys,
                                .values = values,
                                .groups = G,
                                .start = past,
                                .scale = a.scale,
                                .window = a.window,
                                .compute = e.compute,
                                .lse = a.lse});
  copy_rows(keys, rows - kept, ring.keys, a.start + T - kept, kept, G);
  copy_rows(values, rows - kept, ring.values, a.start + T - kept, kept, G);
  e.arena.release(mark);
}

Out<float, 2> attention_forward(const Execution& e, const SoftmaxAttention& attention, const AttentionParams<Matrix>& w,
                                In<float, 2> x, AttentionActivations& kept, const LayerCache* cache, i64 start,
                                const SparseLayer* sparse) {
  const i64 B = e.sequences, T = e.length, H = attention.heads, G = attention.kv_heads, D = attention.head_dim;
  kept.norm = norm_forward(e, w.norm, x);
  if (sparse) leave_out_small(e, kept.norm.y, sparse->inputs.qkv, sparse->dense_positions);
  kept.q = project(e, attention.q, w.q, kept.norm.y, kept.q_tokens, sparse, SitePlace::q, &SparseLayer::q);
  kept.k = project(e, attention.k, w.k, kept.norm.y, kept.k_tokens, sparse, SitePlace::k, &SparseLayer::k);
  kept.v = project(e, attention.v, w.v, kept.norm.y, kept.v_tokens, sparse, SitePlace::v, &SparseLayer::v);
  if (attention.convolution) {
    const ConvolutionPast past = cache ? cache->past : ConvolutionPast{};
    kept.q_in = kept.q, kept.k_in = kept.k, kept.v_in = kept.v;
    kept.q = convolve(e, w.q_conv, kept.q_in, past.q);
    kept.k = convolve(e, w.k_conv, kept.k_in, past.k);
    kept.v = convolve(e, w.v_conv, kept.v_in, past.v);
  }
  if (attention.qk_norm) {
    kept.q_raw = kept.q, kept.k_raw = kept.k;
    kept.q = head_norm(e, w.q_norm, kept.q_raw, kept.q_r);
    kept.k = head_norm(e, w.k_norm, kept.k_raw, kept.k_r);
  }
  rotate(e, kept.q, D, false);
  rotate(e, kept.k, D, false);
  kept.a = e.mixed_rows(H * D);
  if (cache && attention.window && cache->keys.rows <= G * attention.window) {
    attend_ring(e, *cache,
                {.y = kept.a.as(T, H, D),
                 .q = kept.q.as(T, H, D),
                 .k = kept.k.as(T, G, D),
                 .v = kept.v.as(T, G, D),
                 .start = start,
                 .window = attention.window,
                 .scale = scale_of(attention)});
  } else if (cache) {
    e.backend.run(CacheAppend{.keys = cache->keys,
                              .values = cache->values,
                              .k = kept.k.as(T, G, D),
                              .v = kept.v.as(T, G, D),
                              .start = start});
    e.backend.run(CachedAttention{.y = kept.a.as(T, H, D),
                                  .q = kept.q.as(T, H, D),
                                  .keys = cache->keys,
                                  .values = cache->values,
                                  .groups = G,
                                  .start = start,
                                  .scale = scale_of(attention),
                                  .window = attention.window,
                                  .compute = e.compute});
  } else {
    kept.lse = e.arena.allocate<float>(B, H, T);
    e.for_each_run([&](const SequenceRun& run) {
      e.backend.run(Attention{.y = run.heads(kept.a, H),
                              .lse = run.lse(kept.lse),
                              .q = run.heads(kept.q, H),
                              .k = run.heads(kept.k, G),
                              .v = run.heads(kept.v, G),
                              .scale = scale_of(attention),
                              .causal = e.config.causal,
                              .window = attention.window,
                              .compute = e.compute});
    });
  }
  if (attention.inner_norm) kept.inner = norm_forward(e, w.inner_norm, kept.a);
  const Out<float, 2> heads = attention.inner_norm ? kept.inner.y : kept.a;
  if (sparse) leave_out_small(e, heads, sparse->inputs.o, sparse->dense_positions);
  const auto branch = project(e, attention.o, w.o, heads, kept.o_tokens, sparse, SitePlace::o, &SparseLayer::o);
  scale_branch(e, branch);
  return branch;
}

void attention_backward(const Execution& e, const SoftmaxAttention& attention, const AttentionParams<Matrix>& w,
                        const AttentionParams<Out<float, 2>>& dw, const AttentionActivations& kept, In<float, 2> x,
                        In<float, 2> dbranch, Sum<float, 2> dx) {
  const i64 N = x.shape(0), H = attention.heads, G = attention.kv_heads, D = attention.head_dim;
  // in the forward pass this was: branch = scale project(o, a)
  auto da = e.arena.zeros<float>(N, H * D);
  projection_backward(e, attention.o, w.o, dw.o, kept.o_tokens, attention.inner_norm ? kept.inner.y : kept.a,
                      scaled_gradient(e, dbranch), da);
  // a = norm(a)
  if (attention.inner_norm) {
    const auto dinner = std::exchange(da, e.arena.zeros<float>(N, H * D));
    norm_backward(e, w.inner_norm, dw.inner_norm, kept.inner, kept.a, dinner, da);
  }
  // a = attention(q, k, v)
  Out<float, 2> dq = e.mixed_rows(H * D), dk = e.mixed_rows(G * D);
  Out<float, 2> dv = e.mixed_rows(G * D);
  e.for_each_run([&](const SequenceRun& run) {
    e.backend.run(AttentionBackward{.dq = run.heads(dq, H),
                                    .dk = run.heads(dk, G),
                                    .dv = run.heads(dv, G),
                                    .dy = run.heads(da, H),
                                    .y = run.heads(kept.a, H),
                                    .q = run.heads(kept.q, H),
                                    .k = run.heads(kept.k, G),
                                    .v = run.heads(kept.v, G),
                                    .lse = run.lse(kept.lse),
                                    .scale = scale_of(attention),
                                    .causal = e.config.causal,
                                    .window = attention.window,
                                    .compute = e.compute});
  });
  // q, k = rope(q), rope(k)
  rotate(e, dq, D, true);
  rotate(e, dk, D, true);
  // q, k = rms(q), rms(k)
  if (attention.qk_norm) {
    dq = head_norm_backward(e, w.q_norm, dw.q_norm, kept.q_raw, kept.q_r, dq);
    dk = head_norm_backward(e, w.k_norm, dw.k_norm, kept.k_raw, kept.k_r, dk);
  }
  // q, k, v = q + conv(q), k + conv(k), v + conv(v)
  if (attention.convolution) {
    dq = convolve_backward(e, w.q_conv, dw.q_conv, kept.q_in, dq);
    dk = convolve_backward(e, w.k_conv, dw.k_conv, kept.k_in, dk);
    dv = convolve_backward(e, w.v_conv, dw.v_conv, kept.v_in, dv);
  }
  // q, k, v = project(q, n), project(k, n), project(v, n)
  const auto dn = e.arena.zeros<float>(N, x.shape(1));
  projection_backward(e, attention.q, w.q, dw.q, kept.q_tokens, kept.norm.y, dq, dn);
  projection_backward(e, attention.k, w.k, dw.k, kept.k_tokens, kept.norm.y, dk, dn);
  projection_backward(e, attention.v, w.v, dw.v, kept.v_tokens, kept.norm.y, dv, dn);
  // n = norm(x)
  norm_backward(e, w.norm, dw.norm, kept.norm, x, dn, dx);
}

}  // namespace sparsam
