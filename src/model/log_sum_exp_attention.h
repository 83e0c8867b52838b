// The sublayer of attention at constant cost per token: norm, projections, optional convolution, scales, decay and
// window, log-sum-exp attention, output projection.
//   n = norm(x)     q, k, v = n Wq^T, n Wk^T, n Wv^T     [q, k, v = q + conv(q), k + conv(k), v + conv(v)]
//   s = log_attention([scale_h q], [cap tanh](scale_h k), v, [log sigmoid(n Wd^T + b) / 16])
//   [w = attention(rope(q), rope(k), v) over the window     s = m_h s + (1 - m_h) w,  m_h = sigmoid(logit_h)]
//   branch = s Wo^T
#pragma once

#include "model/softmax_attention.h"

namespace sparsam {

// One layer's memory of a session. Its size does not depend on how many tokens came.
struct LogSumExpCache {
  Out<float, 4> sums;         // (1, G, E, D)  the state as ops/log_attention.h has it
  Out<float, 3> mass, scale;  // (1, G, E)
  Out<float, 3> q, k, v;      // (1, taps - 1, channels)  the last inputs of the convolutions
  LayerCache window;          // (G capacity, E): the last tokens, at least those of the window; capacity below
  Out<i64, 1> filled;         // (1)  positions of the window's cache that are in use
  i64 tokens = 0;             // that one forward pass may bring
};
// into = the state after both states' tokens, without decays: sums of weighted values add up.
void merge_states(const LogSumExpCache& other, const LogSumExpCache& into);
// Positions that the window's cache needs for passes of `tokens` tokens.
constexpr i64 window_capacity(i64 window, i64 tokens) { return window == 0 ? 0 : 2 * (window - 1) + tokens; }

struct LogSumExpActivations {
  NormActivations norm;
  Out<float, 2> q_in, k_in, v_in;    // (N, H E), (N, G E), (N, G D)  as projected
  Out<float, 2> q, k, v;             // after the convolution
  Out<float, 2> q_state, k_state;    // after scale and cap
  Out<float, 2> decay_in, decay;     // (N, G E)
  Out<float, 2> state;               // (N, H D)  what the state gives
  Out<float, 3> lse, window_lse;     // (B, H, T)
  Out<float, 2> q_turned, k_turned;  // (N, H E), (N, G E)  for the window
  Out<float, 2> window;              // (N, H D)
  Out<float, 2> a;                   // (N, H D)  what the output projection reads
};

// Returns the branch (N, C), to be added to x. With a cache, the rows are new positions of one sequence.
Out<float, 2> log_sum_exp_forward(const Execution& e, const LogSumExpAttention& mixer, const AttentionParams<Matrix>& w,
                                  In<float, 2> x, LogSumExpActivations& kept, const LogSumExpCache* cache);
// dx += the gradient through the branch, given dbranch (N, C); weight gradients are summed into dw.
void log_sum_exp_backward(const Execution& e, const LogSumExpAttention& mixer, const AttentionParams<Matrix>& w,
                          const AttentionParams<Out<float, 2>>& dw, const LogSumExpActivations& kept, In<float, 2> x,
                          In<float, 2> dbranch, Sum<float, 2> dx);

}  // namespace sparsam
