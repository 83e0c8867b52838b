// Log-sum-exp attention: softmax attention computed in log space, whose past is a state of fixed size (Heinsen 2024,
// "Softmax Attention with Constant Cost per Token", arXiv 2404.05843, equations 3 to 6; the state begins empty, where
// equation 7 would begin it with a token of key and value 0). G key-value heads serve H query heads: head h reads group
// h G / H. E channels of a key (and query), D of a value. An optional gate lets each channel of the state decay.
//   forward    G_t = g_1 + ... + g_t  (g <= 0; without a gate 0)       u <= t if causal, else all u and no gate
//              w_tua = exp(q_ta + k_ua + G_ta - G_ua)      lse_t = log sum_ua w_tua      p_tua = w_tua / exp(lse_t)
//              y_tb = sum_ua p_tua v_ub                    of values in log space: y_tb = log sum_ua p_tua exp(v_ub)
//   state      after token n, of each key channel: Z_a = sum_u exp(k_ua + G_na - G_ua), S_a the same sum with v_u (or
//              exp(v_u)), in scaled form: sums = S / exp(scale), mass = Z / exp(scale). Whatever the scale, the state
//              is the same. A final state has scale = log Z, so that its sums are means of values and its mass is 1 (up
//              to the rounding of the scale); where no key was finite, all is 0 and the scale -inf.
//   backward   r_tub = v_ub, in log space exp(v_ub - y_tb); delta_t = sum_b dy_tb y_tb, in log space sum_b dy_tb
//              s_tu = sum_b dy_tb r_tub - delta_t          dq_ta = sum_u p_tua s_tu         dk_ua = sum_t p_tua s_tu
//              dv_ub = sum_ta p_tua dy_tb (dv y / dv v)    in log space dy_tb r_tub
//              dg_ta = sum_{n >= t} (dq_na - dk_na)        (dq summed over the heads of the group)
//              An initial state is one more token for each channel, with key scale + log mass and value sums / mass; a
//              final state one more query for each channel.
// A key channel of -inf is absent (padding); a query that sees nothing gets y = 0 and lse = -inf. A gate of -inf
// empties the channel's past. In log space the values of one channel may lie 80 apart.
#pragma once

#include "tensor/view.h"

namespace sparsam {

// What the operations of this page share: the shapes of keys, values, gates and states of `batch` sequences.
struct LogAttentionShape {
  i64 batch, time, heads, groups, key_dim, value_dim;  // B, T, H, G, E, D

  i64 state_products() const { return batch * time * key_dim * value_dim; }
};

namespace generic {

// Whole sequences, or a further piece of them: training, evaluation, prefill.
template <class Real>
struct LogAttention {
  static constexpr const char* name = "LogAttention";
  Out<Real, 4> y;                 // (B, T, H, D)
  Out<Real, 3> lse = {};          // (B, H, T)     kept for the backward; empty: not wanted
  Out<Real, 4> final_sums = {};   // (B, G, E, D)  the state after the last token, all three or none
  Out<Real, 3> final_mass = {};   // (B, G, E)
  Out<Real, 3> final_scale = {};  // (B, G, E)
  In<Real, 4> q;                  // (B, T, H, E)
  In<Real, 4> k, v;               // (B, T, G, E), (B, T, G, D)  G divides H
  In<Real, 4> gate = {};          // (B, T, G, E)  log-decay applied before the token is added; causal only
  In<Real, 4> initial_sums = {};  // the state before the first token, all three or none
  In<Real, 3> initial_mass = {}, initial_scale = {};
  bool causal = true;
  bool log_values = false;  // v and y are logarithms

  LogAttentionShape shape() const { return {q.shape(0), q.shape(1), q.shape(2), k.shape(2), q.shape(3), v.shape(3)}; }
  static void fields(auto&& f, auto&... op) {
    f("y", op.y...), f("lse", op.lse...), f("final_sums", op.final_sums...), f("final_mass", op.final_mass...);
    f("final_scale", op.final_scale...), f("q", op.q...), f("k", op.k...), f("v", op.v...), f("gate", op.gate...);
    f("initial_sums", op.initial_sums...), f("initial_mass", op.initial_mass...);
    f("initial_scale", op.initial_scale...), f("causal", op.causal...), f("log_values", op.log_values...);
  }
  void validate() const {
    const auto [B, T, H, G, E, D] = shape();
    check(G > 0 && H % G == 0, "LogAttention: {} query heads, {} key-value heads", H, G);
    check(causal || gate.empty(), "LogAttention: a gate, but not causal");
    check_shape(y, {B, T, H, D}, "LogAttention.y");
    check_optional_shape(lse, {B, H, T}, "LogAttention.lse");
    check_shape(k, {B, T, G, E}, "LogAttention.k");
    check_shape(v, {B, T, G, D}, "LogAttention.v");
    check_optional_shape(gate, {B, T, G, E}, "LogAttention.gate");
    if (!initial_sums.empty() || !initial_mass.empty() || !initial_scale.empty()) {
      check_shape(initial_sums, {B, G, E, D}, "LogAttention.initial_sums");
      check_shape(initial_mass, {B, G, E}, "LogAttention.initial_mass");
      check_shape(initial_scale, {B, G, E}, "LogAttention.initial_scale");
    }
    if (!final_sums.empty() || !final_mass.empty() || !final_scale.empty()) {
      check_shape(final_sums, {B, G, E, D}, "LogAttention.final_sums");
      check_shape(final_mass, {B, G, E}, "LogAttention.final_mass");
      check_shape(final_scale, {B, G, E}, "LogAttention.final_scale");
    }
  }
  i64 flops() const { return 2 * shape().state_products() * (shape().groups + shape().heads); }  // update, read
};

template <class Real>
struct LogAttentionBackward {
  static constexpr const char* name = "LogAttentionBackward";
  Out<Real, 4> dq, dk, dv;          // as q, k, v; overwritten: they have no other reader
  Out<Real, 4> dgate = {};          // as gate
  Out<Real, 4> dinitial_sums = {};  // as the initial state: all three or none
  Out<Real, 3> dinitial_mass = {}, dinitial_scale = {};
  In<Real, 4> dy;                 // (B, T, H, D)
  In<Real, 4> dfinal_sums = {};   // (B, G, E, D)  of the final state, whose mass is constant: both or none
  In<Real, 3> dfinal_scale = {};  // (B, G, E)
  In<Real, 4> y;                  // (B, T, H, D)
  In<Real, 3> lse;                // (B, H, T)
  In<Real, 4> q, k, v;
  In<Real, 4> gate = {};
  In<Real, 4> initial_sums = {};
  In<Real, 3> initial_mass = {}, initial_scale = {};
  bool causal = true;
  bool log_values = false;

  LogAttentionShape shape() const { return {q.shape(0), q.shape(1), q.shape(2), k.shape(2), q.shape(3), v.shape(3)}; }
  static void fields(auto&& f, auto&... op) {
    f("dq", op.dq...), f("dk", op.dk...), f("dv", op.dv...), f("dgate", op.dgate...);
    f("dinitial_sums", op.dinitial_sums...), f("dinitial_mass", op.dinitial_mass...);
    f("dinitial_scale", op.dinitial_scale...), f("dy", op.dy...), f("dfinal_sums", op.dfinal_sums...);
    f("dfinal_scale", op.dfinal_scale...), f("y", op.y...), f("lse", op.lse...), f("q", op.q...), f("k", op.k...);
    f("v", op.v...), f("gate", op.gate...), f("initial_sums", op.initial_sums...);
    f("initial_mass", op.initial_mass...), f("initial_scale", op.initial_scale...), f("causal", op.causal...);
    f("log_values", op.log_values...);
  }
  void validate() const {
    const auto [B, T, H, G, E, D] = shape();
    check(G > 0 && H % G == 0, "LogAttentionBackward: {} query heads, {} key-value heads", H, G);
    check(causal || gate.empty(), "LogAttentionBackward: a gate, but not causal");
    check_shape(k, {B, T, G, E}, "LogAttentionBackward.k");
    check_shape(v, {B, T, G, D}, "LogAttentionBackward.v");
    check_shape(y, {B, T, H, D}, "LogAttentionBackward.y");
    check_shape(dy, y.shape(), "LogAttentionBackward.dy");
    check_shape(lse, {B, H, T}, "LogAttentionBackward.lse");
    check_shape(dq, q.shape(), "LogAttentionBackward.dq");
    check_shape(dk, k.shape(), "LogAttentionBackward.dk");
    check_shape(dv, v.shape(), "LogAttentionBackward.dv");
    check_optional_shape(gate, k.shape(), "LogAttentionBackward.gate");
    check(dgate.empty() == gate.empty(), "LogAttentionBackward: dgate and gate are not both there");
    check_optional_shape(dgate, k.shape(), "LogAttentionBackward.dgate");
    if (!initial_sums.empty() || !initial_mass.empty() || !initial_scale.empty()) {
      check_shape(initial_sums, {B, G, E, D}, "LogAttentionBackward.initial_sums");
      check_shape(initial_mass, {B, G, E}, "LogAttentionBackward.initial_mass");
      check_shape(initial_scale, {B, G, E}, "LogAttentionBackward.initial_scale");
    }
    if (!dinitial_sums.empty() || !dinitial_mass.empty() || !dinitial_scale.empty()) {
      check_shape(dinitial_sums, initial_sums.shape(), "LogAttentionBackward.dinitial_sums");
      check_shape(dinitial_mass, initial_mass.shape(), "LogAttentionBackward.dinitial_mass");
      check_shape(dinitial_scale, initial_scale.shape(), "LogAttentionBackward.dinitial_scale");
    }
    if (!dfinal_sums.empty() || !dfinal_scale.empty()) {
      check_shape(dfinal_sums, {B, G, E, D}, "LogAttentionBackward.dfinal_sums");
      check_shape(dfinal_scale, {B, G, E}, "LogAttentionBackward.dfinal_scale");
    }
  }
  i64 flops() const { return 2 * shape().state_products() * (2 * shape().groups + 3 * shape().heads); }
};

// One token of each sequence: the state takes it in, then the queries read. The state's scale rises only when a key
// lies more than `headroom` above it, since raising it rewrites the whole channel.
template <class Real>
struct LogAttentionStep {
  static constexpr const char* name = "LogAttentionStep";
  static constexpr float headroom = 20;  // e^20 times a million tokens is far from float's largest number
  Out<Real, 3> y;                        // (B, H, D)
  InOut<Real, 4> sums;                   // (B, G, E, D)
  InOut<Real, 3> mass, scale;            // (B, G, E)    an empty state: 0, 0, -inf
  In<Real, 3> q;                         // (B, H, E)
  In<Real, 3> k, v;                      // (B, G, E), (B, G, D)
  In<Real, 3> gate = {};                 // (B, G, E)
  bool log_values = false;
  Out<Real, 2> lse = {};  // (B, H)  empty: not wanted

  LogAttentionShape shape() const { return {q.shape(0), 1, q.shape(1), k.shape(1), q.shape(2), v.shape(2)}; }
  static void fields(auto&& f, auto&... op) {
    f("y", op.y...), f("sums", op.sums...), f("mass", op.mass...), f("scale", op.scale...), f("q", op.q...);
    f("k", op.k...), f("v", op.v...), f("gate", op.gate...), f("log_values", op.log_values...), f("lse", op.lse...);
  }
  void validate() const {
    const auto [B, T, H, G, E, D] = shape();
    check_optional_shape(lse, {B, H}, "LogAttentionStep.lse");
    check(G > 0 && H % G == 0, "LogAttentionStep: {} query heads, {} key-value heads", H, G);
    check_shape(y, {B, H, D}, "LogAttentionStep.y");
    check_shape(sums, {B, G, E, D}, "LogAttentionStep.sums");
    check_shape(mass, {B, G, E}, "LogAttentionStep.mass");
    check_shape(scale, mass.shape(), "LogAttentionStep.scale");
    check_shape(k, mass.shape(), "LogAttentionStep.k");
    check_shape(v, {B, G, D}, "LogAttentionStep.v");
    check_optional_shape(gate, mass.shape(), "LogAttentionStep.gate");
  }
  i64 flops() const { return 2 * shape().state_products() * (shape().groups + shape().heads); }
};

}  // namespace generic

using LogAttention = generic::LogAttention<float>;
using LogAttentionBackward = generic::LogAttentionBackward<float>;
using LogAttentionStep = generic::LogAttentionStep<float>;

}  // namespace sparsam
