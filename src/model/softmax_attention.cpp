#include "model/softmax_attention.h"

#include <cmath>
#include <utility>

namespace sparsam {

void rotate(const Execution& e, Out<float, 2> heads, i64 head_dim, bool inverse) {
  if (e.config.positions != Positions::rotary) return;
  const auto view = heads.as(heads.shape(0), heads.shape(1) / head_dim, head_dim);
  e.backend.run(Rope{.y = view,
                     .x = view,
                     .positions = e.positions,
                     .cosine = e.rotary.cosine,
                     .sine = e.rotary.sine,
                     .pairing = e.config.rotary.pairing,
                     .inverse = inverse});
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
                      In<float, 2> x, TokenActivations& kept, const SparseLayer* sparse,
                      Matrix SparseLayer::*transposed) {
  if (sparse && !(sparse->*transposed).empty()) return sparse_forward(e, w, sparse->*transposed, x);
  return projection_forward(e, tokens, w, x, kept);
}

}  // namespace

Out<float, 2> attention_forward(const Execution& e, const SoftmaxAttention& attention, const AttentionParams<Matrix>& w,
                                In<float, 2> x, AttentionActivations& kept, const LayerCache* cache, i64 start,
                                const SparseLayer* sparse) {
  const i64 B = e.sequences, T = e.length, H = attention.heads, G = attention.kv_heads, D = attention.head_dim;
  kept.norm = norm_forward(e, w.norm, x);
  if (sparse) leave_out_small(e, kept.norm.y, sparse->inputs.qkv, sparse->dense_positions);
  kept.q = project(e, attention.q, w.q, kept.norm.y, kept.q_tokens, sparse, &SparseLayer::q);
  kept.k = project(e, attention.k, w.k, kept.norm.y, kept.k_tokens, sparse, &SparseLayer::k);
  kept.v = project(e, attention.v, w.v, kept.norm.y, kept.v_tokens, sparse, &SparseLayer::v);
  if (attention.qk_norm) {
    kept.q_raw = kept.q, kept.k_raw = kept.k;
    kept.q = head_norm(e, w.q_norm, kept.q_raw, kept.q_r);
    kept.k = head_norm(e, w.k_norm, kept.k_raw, kept.k_r);
  }
  rotate(e, kept.q, D, false);
  rotate(e, kept.k, D, false);
  kept.a = e.arena.allocate<float>(B * T, H * D);
  if (cache) {
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
    e.backend.run(Attention{.y = kept.a.as(B, T, H, D),
                            .lse = kept.lse,
                            .q = kept.q.as(B, T, H, D),
                            .k = kept.k.as(B, T, G, D),
                            .v = kept.v.as(B, T, G, D),
                            .scale = scale_of(attention),
                            .causal = true,
                            .window = attention.window,
                            .compute = e.compute});
  }
  if (attention.inner_norm) kept.inner = norm_forward(e, w.inner_norm, kept.a);
  const Out<float, 2> heads = attention.inner_norm ? kept.inner.y : kept.a;
  if (sparse) leave_out_small(e, heads, sparse->inputs.o, sparse->dense_positions);
  const auto branch = project(e, attention.o, w.o, heads, kept.o_tokens, sparse, &SparseLayer::o);
  scale_branch(e, branch);
  return branch;
}

void attention_backward(const Execution& e, const SoftmaxAttention& attention, const AttentionParams<Matrix>& w,
                        const AttentionParams<Out<float, 2>>& dw, const AttentionActivations& kept, In<float, 2> x,
                        In<float, 2> dbranch, Sum<float, 2> dx) {
  const i64 B = e.sequences, T = e.length, N = B * T;
  const i64 H = attention.heads, G = attention.kv_heads, D = attention.head_dim;
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
  Out<float, 2> dq = e.arena.allocate<float>(N, H * D), dk = e.arena.allocate<float>(N, G * D);
  const auto dv = e.arena.allocate<float>(N, G * D);
  e.backend.run(AttentionBackward{.dq = dq.as(B, T, H, D),
                                  .dk = dk.as(B, T, G, D),
                                  .dv = dv.as(B, T, G, D),
                                  .dy = da.as(B, T, H, D),
                                  .y = kept.a.as(B, T, H, D),
                                  .q = kept.q.as(B, T, H, D),
                                  .k = kept.k.as(B, T, G, D),
                                  .v = kept.v.as(B, T, G, D),
                                  .lse = kept.lse,
                                  .scale = scale_of(attention),
                                  .causal = true,
                                  .window = attention.window,
                                  .compute = e.compute});
  // q, k = rope(q), rope(k)
  rotate(e, dq, D, true);
  rotate(e, dk, D, true);
  // q, k = rms(q), rms(k)
  if (attention.qk_norm) {
    dq = head_norm_backward(e, w.q_norm, dw.q_norm, kept.q_raw, kept.q_r, dq);
    dk = head_norm_backward(e, w.k_norm, dw.k_norm, kept.k_raw, kept.k_r, dk);
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
