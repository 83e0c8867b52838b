// The sublayer of attention at constant cost per token: norm, projections, optional convolution, scales, decay and
// window, log-sum-exp attention, output projection.
//   n = norm(x)     q, k, v = n Wq^T, n Wk^T, n Wv^T     [q, k, v = q + conv(q), k + conv(k), v + conv(v)]
//   [Q, K = map_h rope(q), map_h rope(k)]  else q, k
//   s = log_attention([scale_h Q], [cap tanh](scale_h K), v, [log sigmoid(n Wd^T + b) / 16])
//   [w = attention(rope(q), rope(k), v) over the window     s = m_h s + (1 - m_h) w,  m_h = sigmoid(logit_h)]
//   branch = s Wo^T  [(s Wu^T + b) * sigmoid(s Wg^T + b) Wo^T]
// With a shared window, tokens enter the state when they leave the window, and m_h also weighs how much state and
// window have seen: sigmoid(logit_h + lse_state - lse_window), as if all weights were normalised with one sum.
#pragma once

#include "model/softmax_attention.h"

namespace sparsam {

// One layer's memory of a session. Its size does not depend on how many tokens came.
struct LogSumExpCache {
  Out<float, 4> sums;         // (1, G, E, D)  the state as ops/log_attention.h has it
  Out<float, 3> mass, scale;  // (1, G, E)
  LayerCache window;          // (G window, E): a ring of the window's tokens; and what the convolutions keep
  // (1, window, channels)  of a shared window: what its tokens will bring to the state, a ring as Delay's
  Out<float, 3> waiting_k, waiting_v, waiting_decay;
};
// into = the state after both states' tokens, without decays: sums of weighted values add up.
void merge_states(const LogSumExpCache& other, const LogSumExpCache& into);

struct LogSumExpActivations {
  NormActivations norm;
  Out<float, 2> q_in, k_in, v_in;            // (N, H E), (N, G E), (N, G D)  as projected
  Out<float, 2> q, k, v;                     // after the convolution
  Out<float, 2> q_turned, k_turned;          // (N, H E), (N, G E)  for the window and the maps
  Out<float, 2> q_map, k_map;                // (N, H F), (N, G F)  after the maps; without, q and k
  Out<float, 2> q_state, k_state;            // after scale and cap
  Out<float, 2> decay_in, decay;             // (N, G F)
  Out<float, 2> k_read, v_read, decay_read;  // what the state takes in: these, delayed where the window is shared
  Out<float, 2> state;                       // (N, H D)  what the state gives
  Out<float, 3> lse, window_lse;             // (B, H, T)
  Out<float, 3> joint, window_joint;         // (B, H, T)  of a shared window: HeadMix's a_joint, b_joint
  Out<float, 2> window;                      // (N, H D)
  Out<float, 2> a;                           // (N, H D)  what the output projection reads
  Out<float, 2> gate, up, gated;             // (N, C)    of a gated output projection
};

// Returns the branch (N, C), to be added to x. With a cache, the rows are new positions of one sequence.
Out<float, 2> log_sum_exp_forward(const Execution& e, const LogSumExpAttention& mixer, const AttentionParams<Matrix>& w,
                                  In<float, 2> x, LogSumExpActivations& kept, const LogSumExpCache* cache);
// dx += the gradient through the branch, given dbranch (N, C); weight gradients are summed into dw.
void log_sum_exp_backward(const Execution& e, const LogSumExpAttention& mixer, const AttentionParams<Matrix>& w,
                          const AttentionParams<Out<float, 2>>& dw, const LogSumExpActivations& kept, In<float, 2> x,
                          In<float, 2> dbranch, Sum<float, 2> dx);

}  // namespace sparsam
