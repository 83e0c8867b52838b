// The softmax attention sublayer: norm, projections, optional convolution, q/k norm and rotation, attention, output
// projection.
//   n = norm(x)   q, k, v = n Wq^T, n Wk^T, n Wv^T   [q, k, v = q + conv(q), k + conv(k), v + conv(v)]
//   [q, k = rms(q), rms(k)]   [q, k = rope(q), rope(k)]
//   a = attention(q, k, v)   [a = norm(a)]           branch = a Wo^T
#pragma once

#include "model/convolution.h"
#include "model/parameter_tokens.h"
#include "model/sparse_layers.h"

namespace sparsam {

// One layer's keys and values of a session: (G capacity, D) as ops/attention.h stores them. Of a layer with a window of
// at least `capacity` they are a ring: position p lies in row p mod capacity.
struct LayerCache {
  MutableMatrix keys, values;
  ConvolutionPast past = {};
};

struct AttentionActivations {
  NormActivations norm;
  Out<float, 2> q_in, k_in, v_in;  // (N, H D), (N, G D), (N, G D)  before the convolution, where there is one
  Out<float, 2> q_raw, k_raw;      // (N, H D), (N, G D)  before the q/k norm, where there is one
  Out<float, 1> q_r, k_r;          // (N H), (N G)        of the q/k norm
  Out<float, 2> q, k, v;           // (N, H D), (N, G D), (N, G D)  as attention reads them
  Out<float, 2> a;                 // (N, H D)
  NormActivations inner;           // (N, H D)  of a, where there is an inner norm
  Out<float, 3> lse;               // (B, H, T)
  TokenActivations q_tokens, k_tokens, v_tokens, o_tokens;  // where these are parameter tokens
};

// Turns each head (N, heads D) by its position, in place; nothing where positions are not rotary.
void rotate(const Execution& e, Out<float, 2> heads, i64 head_dim, bool inverse);

// Attention of T new positions of one sequence, from `start` on, to themselves and to those before them within the
// window, of whose keys and values the cache is a ring.
struct RingAttention {
  Out<float, 3> y;    // (T, H, D)
  In<float, 3> q;     // (T, H, D)
  In<float, 3> k, v;  // (T, G, D)
  i64 start, window;
  float scale;
  Out<float, 2> lse = {};  // (H, T)  empty: not wanted
};
void attend_ring(const Execution& e, const LayerCache& ring, const RingAttention& a);

// Returns the branch (N, C), to be added to x. With a cache, the rows are `length` new positions of one sequence from
// `start` on, appended to it; without, whole sequences. With `sparse`, small inputs are left out as in an MLP.
Out<float, 2> attention_forward(const Execution& e, const SoftmaxAttention& attention, const AttentionParams<Matrix>& w,
                                In<float, 2> x, AttentionActivations& kept, const LayerCache* cache, i64 start,
                                const SparseLayer* sparse = nullptr);
// dx += the gradient through the branch, given dbranch (N, C); weight gradients are summed into dw.
void attention_backward(const Execution& e, const SoftmaxAttention& attention, const AttentionParams<Matrix>& w,
                        const AttentionParams<Out<float, 2>>& dw, const AttentionActivations& kept, In<float, 2> x,
                        In<float, 2> dbranch, Sum<float, 2> dx);

}  // namespace sparsam
