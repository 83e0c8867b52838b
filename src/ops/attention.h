// Multi-head softmax attention with grouped key-value heads (Vaswani et al. 2017; GQA: Ainslie et al. 2023). Query head
// h reads key-value head h G / H. The T x T matrix of scores is never in memory (FlashAttention: Dao et al. 2022).
//   forward    s_tu = scale q_t . k_u  (u <= t if causal, and t - u < window if there is one)
//              lse_t = log sum_u exp(s_tu)                   p_tu = exp(s_tu - lse_t)
//              y_t = sum_u p_tu v_u
//   backward   delta_t = dy_t . y_t                          dv_u = sum_t p_tu dy_t
//              ds_tu = p_tu (dy_t . v_u - delta_t)           dq_t = scale sum_u ds_tu k_u     dk_u = scale sum_t ds_tu
//              q_t (dk and dv also sum over the query heads of the group)
#pragma once

#include <algorithm>

#include "ops/compute.h"
#include "tensor/matrix.h"
#include "tensor/view.h"

namespace sparsam {

// Scores of one head of `time` queries that are not masked, about.
constexpr i64 unmasked_scores(i64 time, bool causal, i64 window) {
  if (window > 0 && window < time) return time * window - window * window / 2;
  return causal ? time * time / 2 : time * time;
}

namespace generic {

// Whole sequences: training, evaluation.
template <class Real>
struct Attention {
  static constexpr const char* name = "Attention";
  Out<Real, 4> y;         // (B, T, H, D)
  Out<Real, 3> lse = {};  // (B, H, T)     kept for the backward; empty: not wanted
  In<Real, 4> q;          // (B, T, H, D)
  In<Real, 4> k, v;       // (B, T, G, D)  G divides H
  Real scale;             // 1 / sqrt(D) unless the model says otherwise
  bool causal;
  i64 window = 0;  // keys that a query sees, its own included (sliding window; causal only); 0: all
  Compute compute;

  static void fields(auto&& f, auto&... op) {
    f("y", op.y...), f("lse", op.lse...), f("q", op.q...), f("k", op.k...), f("v", op.v...), f("scale", op.scale...),
        f("causal", op.causal...), f("window", op.window...), f("compute", op.compute...);
  }
  void validate() const {
    check(window >= 0 && (causal || window == 0), "Attention: a window of {}, causal {}", window, causal);
    check_shape(y, q.shape(), "Attention.y");
    check_optional_shape(lse, {q.shape(0), q.shape(2), q.shape(1)}, "Attention.lse");
    check_shape(k, {q.shape(0), q.shape(1), k.shape(2), q.shape(3)}, "Attention.k");
    check_shape(v, k.shape(), "Attention.v");
    check(q.shape(2) % k.shape(2) == 0, "Attention: {} query heads, {} key-value heads", q.shape(2), k.shape(2));
  }
  i64 flops() const { return 4 * q.shape(0) * q.shape(2) * q.shape(3) * unmasked_scores(q.shape(1), causal, window); }
};

template <class Real>
struct AttentionBackward {
  static constexpr const char* name = "AttentionBackward";
  Out<Real, 4> dq;      // (B, T, H, D)  overwritten: q, k and v have no other reader
  Out<Real, 4> dk, dv;  // (B, T, G, D)
  In<Real, 4> dy, y;    // (B, T, H, D)
  In<Real, 4> q;        // (B, T, H, D)
  In<Real, 4> k, v;     // (B, T, G, D)
  In<Real, 3> lse;      // (B, H, T)
  Real scale;
  bool causal;
  i64 window = 0;
  Compute compute;

  static void fields(auto&& f, auto&... op) {
    f("dq", op.dq...), f("dk", op.dk...), f("dv", op.dv...), f("dy", op.dy...), f("y", op.y...), f("q", op.q...);
    f("k", op.k...), f("v", op.v...), f("lse", op.lse...), f("scale", op.scale...), f("causal", op.causal...),
        f("window", op.window...), f("compute", op.compute...);
  }
  void validate() const {
    check(window >= 0 && (causal || window == 0), "AttentionBackward: a window of {}, causal {}", window, causal);
    check_shape(dq, q.shape(), "AttentionBackward.dq");
    check_shape(dk, k.shape(), "AttentionBackward.dk");
    check_shape(dv, k.shape(), "AttentionBackward.dv");
    check_shape(dy, q.shape(), "AttentionBackward.dy");
    check_shape(y, q.shape(), "AttentionBackward.y");
    check_shape(k, {q.shape(0), q.shape(1), k.shape(2), q.shape(3)}, "AttentionBackward.k");
    check_shape(v, k.shape(), "AttentionBackward.v");
    check_shape(lse, {q.shape(0), q.shape(2), q.shape(1)}, "AttentionBackward.lse");
    check(q.shape(2) % k.shape(2) == 0, "AttentionBackward: {} query heads, {} key-value heads", q.shape(2),
          k.shape(2));
  }
  i64 flops() const { return 10 * q.shape(0) * q.shape(2) * q.shape(3) * unmasked_scores(q.shape(1), causal, window); }
};

// Stores the keys and values of T new positions in the cache.
template <class Real>
struct CacheAppend {
  static constexpr const char* name = "CacheAppend";
  MutableMatrix keys, values;  // (G capacity, D)  f32, f16 or bf16; the rows of head g begin at g capacity
  In<Real, 3> k, v;            // (T, G, D)
  i64 start;                   // position of the first of them

  i64 capacity() const { return keys.rows / k.shape(1); }
  static void fields(auto&& f, auto&... op) {
    f("keys", op.keys...), f("values", op.values...), f("k", op.k...), f("v", op.v...), f("start", op.start...);
  }
  void validate() const {
    check_shape(v, k.shape(), "CacheAppend.v");
    check_matrix_size(keys, "CacheAppend.keys"), check_matrix_size(values, "CacheAppend.values");
    check(start >= 0 && start + k.shape(0) <= capacity(), "CacheAppend: positions {} to {}, capacity {}", start,
          start + k.shape(0), capacity());
  }
  i64 flops() const { return 0; }

 private:
  void check_matrix_size(const MutableMatrix& m, const char* what) const {
    check(m.cols == k.shape(2) && m.rows == keys.rows && m.rows % k.shape(1) == 0, "{} is ({}, {}) for {} heads of {}",
          what, m.rows, m.cols, k.shape(1), k.shape(2));
  }
};

// T new positions against the cache, which already holds them: prefill, and with T = 1 one step of decoding. Row t
// attends to positions [0, start + t], with a window only to the last of them.
template <class Real>
struct CachedAttention {
  static constexpr const char* name = "CachedAttention";
  Out<Real, 3> y;       // (T, H, D)
  In<Real, 3> q;        // (T, H, D)
  Matrix keys, values;  // (G capacity, D)  as CacheAppend stores them
  i64 groups;           // G
  i64 start;            // position of the first query
  Real scale;
  i64 window = 0;  // as Attention's
  Compute compute;
  Out<Real, 2> lse = {};  // (H, T)  as Attention's; empty: not wanted

  i64 capacity() const { return keys.rows / groups; }
  static void fields(auto&& f, auto&... op) {
    f("y", op.y...), f("q", op.q...), f("keys", op.keys...), f("values", op.values...), f("groups", op.groups...),
        f("start", op.start...), f("scale", op.scale...), f("window", op.window...), f("compute", op.compute...);
    f("lse", op.lse...);
  }
  void validate() const {
    check_shape(y, q.shape(), "CachedAttention.y");
    check_optional_shape(lse, {q.shape(1), q.shape(0)}, "CachedAttention.lse");
    check(groups > 0 && q.shape(1) % groups == 0 && keys.rows % groups == 0,
          "CachedAttention: {} heads, {} groups, {} rows", q.shape(1), groups, keys.rows);
    check(keys.cols == q.shape(2) && values.cols == keys.cols && values.rows == keys.rows,
          "CachedAttention: cache of {}", keys.cols);
    check(start >= 0 && start + q.shape(0) <= capacity(), "CachedAttention: positions {} to {}, capacity {}", start,
          start + q.shape(0), capacity());
    check(window >= 0, "CachedAttention: a window of {}", window);
  }
  i64 flops() const {
    const i64 keys = start + (q.shape(0) + 1) / 2;
    return 4 * q.size() * (window > 0 ? std::min(window, keys) : keys);
  }
};

}  // namespace generic

using Attention = generic::Attention<float>;
using AttentionBackward = generic::AttentionBackward<float>;
using CacheAppend = generic::CacheAppend<float>;
using CachedAttention = generic::CachedAttention<float>;

}  // namespace sparsam
