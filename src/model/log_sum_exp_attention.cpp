#include "model/log_sum_exp_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace sparsam {

namespace {

constexpr float decay_divisor = 16;  // as gated linear attention: decays begin slow (arXiv 2312.06635, section 4.4)

float window_scale(const LogSumExpAttention& mixer) { return 1.f / std::sqrt(static_cast<float>(mixer.head_dim)); }

// A convolution's weight, stored as one vector.
In<float, 2> taps_of(const Matrix& w, i64 taps) { return as_vector(w).as(w.cols / taps, taps); }

Out<float, 2> convolve(const Execution& e, const Matrix& w, i64 taps, In<float, 2> x, Out<float, 3> past) {
  const i64 N = x.shape(0), channels = x.shape(1), B = e.sequences;
  const auto y = e.arena.allocate<float>(N, channels);
  e.backend.run(CausalConvolution{
      .y = y.as(B, N / B, channels), .x = x.as(B, N / B, channels), .w = taps_of(w, taps), .state = past});
  return y;
}
Out<float, 2> convolve_backward(const Execution& e, const Matrix& w, const Out<float, 2>& dw, i64 taps, In<float, 2> x,
                                In<float, 2> dy) {
  const i64 N = x.shape(0), channels = x.shape(1), B = e.sequences;
  const auto dx = e.arena.allocate<float>(N, channels);
  e.backend.run(CausalConvolutionBackward{.dx = dx.as(B, N / B, channels),
                                          .dw = Sum<float, 2>(dw.as(channels, taps)),
                                          .dy = dy.as(B, N / B, channels),
                                          .x = x.as(B, N / B, channels),
                                          .w = taps_of(w, taps)});
  return dx;
}

// Scale and cap of heads (N, H E); without either, x itself.
Out<float, 2> scale_heads(const Execution& e, const Matrix& scale, float cap, i64 heads, Out<float, 2> x) {
  if (scale.empty() && cap == 0) return x;
  const i64 N = x.shape(0), size = x.shape(1) / heads;
  const auto y = e.arena.allocate<float>(N, x.shape(1));
  e.backend.run(HeadScale{.y = y.as(N, heads, size), .x = x.as(N, heads, size), .scale = as_vector(scale), .cap = cap});
  return y;
}
// dy, the gradient of y, becomes that of x.
void scale_heads_backward(const Execution& e, const Matrix& scale, const Out<float, 2>& dscale, float cap, i64 heads,
                          In<float, 2> x, In<float, 2> y, Out<float, 2> dy) {
  if (scale.empty() && cap == 0) return;
  const i64 N = x.shape(0), size = x.shape(1) / heads;
  e.backend.run(HeadScaleBackward{.dx = dy.as(N, heads, size),
                                  .dscale = vector_sum(dscale),
                                  .dy = dy.as(N, heads, size),
                                  .x = x.as(N, heads, size),
                                  .y = y.as(N, heads, size),
                                  .scale = as_vector(scale),
                                  .cap = cap});
}

Out<float, 2> turned(const Execution& e, In<float, 2> heads, i64 head_dim) {
  const auto copy = e.arena.allocate<float>(heads.shape(0), heads.shape(1));
  std::copy(heads.begin(), heads.end(), copy.begin());
  rotate(e, copy, head_dim, false);
  return copy;
}

// Before `tokens` more are appended: keeps what the window will still see where the room would not do.
void make_room(const LogSumExpCache& cache, i64 groups, i64 window, i64 tokens) {
  const LayerCache& rows = cache.window;
  const i64 capacity = rows.keys.rows / groups;
  i64& filled = cache.filled[0];
  check(tokens <= cache.tokens, "log-sum-exp attention: a pass of {} tokens, its cache is for {}", tokens,
        cache.tokens);
  if (filled + tokens <= capacity) return;
  const i64 kept = std::min(filled, window - 1);
  const size_t row = static_cast<size_t>(rows.keys.cols * size_of(rows.keys.dtype));
  for (const MutableMatrix& m : {rows.keys, rows.values})
    for (i64 g = 0; g < groups; ++g) {
      std::byte* head = m.bytes.data() + static_cast<size_t>(g * capacity) * row;
      std::memmove(head, head + static_cast<size_t>(filled - kept) * row, static_cast<size_t>(kept) * row);
    }
  filled = kept;
}

void attend_window(const Execution& e, const LogSumExpAttention& mixer, LogSumExpActivations& kept,
                   const LogSumExpCache* cache) {
  const i64 B = e.sequences, T = e.length, H = mixer.heads, G = mixer.kv_heads, E = mixer.head_dim;
  kept.q_turned = turned(e, kept.q, E), kept.k_turned = turned(e, kept.k, E);
  kept.window = e.arena.allocate<float>(B * T, H * E);
  if (!cache) {
    kept.window_lse = e.arena.allocate<float>(B, H, T);
    e.backend.run(Attention{.y = kept.window.as(B, T, H, E),
                            .lse = kept.window_lse,
                            .q = kept.q_turned.as(B, T, H, E),
                            .k = kept.k_turned.as(B, T, G, E),
                            .v = kept.v.as(B, T, G, E),
                            .scale = window_scale(mixer),
                            .causal = true,
                            .window = mixer.window,
                            .compute = e.compute});
    return;
  }
  make_room(*cache, G, mixer.window, T);
  const i64 start = cache->filled[0];
  e.backend.run(CacheAppend{.keys = cache->window.keys,
                            .values = cache->window.values,
                            .k = kept.k_turned.as(T, G, E),
                            .v = kept.v.as(T, G, E),
                            .start = start});
  e.backend.run(CachedAttention{.y = kept.window.as(T, H, E),
                                .q = kept.q_turned.as(T, H, E),
                                .keys = cache->window.keys,
                                .values = cache->window.values,
                                .groups = G,
                                .start = start,
                                .scale = window_scale(mixer),
                                .window = mixer.window,
                                .compute = e.compute});
  cache->filled[0] += T;
}

void attend_state(const Execution& e, const LogSumExpAttention& mixer, LogSumExpActivations& kept,
                  const LogSumExpCache* cache) {
  const i64 B = e.sequences, T = e.length, H = mixer.heads, G = mixer.kv_heads, E = mixer.head_dim;
  const i64 D = mixer.values_of_head();
  kept.state = e.arena.allocate<float>(B * T, H * D);
  if (cache && T == 1) {
    LogAttentionStep step{.y = kept.state.as(1, H, D),
                          .sums = cache->sums,
                          .mass = cache->mass,
                          .scale = cache->scale,
                          .q = kept.q_state.as(1, H, E),
                          .k = kept.k_state.as(1, G, E),
                          .v = kept.v.as(1, G, D),
                          .log_values = mixer.log_values};
    if (mixer.decay) step.gate = kept.decay.as(1, G, E);
    e.backend.run(step);
    return;
  }
  LogAttention attention{.y = kept.state.as(B, T, H, D),
                         .q = kept.q_state.as(B, T, H, E),
                         .k = kept.k_state.as(B, T, G, E),
                         .v = kept.v.as(B, T, G, D),
                         .log_values = mixer.log_values};
  if (mixer.decay) attention.gate = kept.decay.as(B, T, G, E);
  if (cache) {  // each group's state is read before it is written
    attention.initial_sums = attention.final_sums = cache->sums;
    attention.initial_mass = attention.final_mass = cache->mass;
    attention.initial_scale = attention.final_scale = cache->scale;
  } else {
    kept.lse = e.arena.allocate<float>(B, H, T);
    attention.lse = kept.lse;
  }
  e.backend.run(attention);
}

}  // namespace

Out<float, 2> log_sum_exp_forward(const Execution& e, const LogSumExpAttention& mixer, const AttentionParams<Matrix>& w,
                                  In<float, 2> x, LogSumExpActivations& kept, const LogSumExpCache* cache) {
  const i64 N = x.shape(0), H = mixer.heads, G = mixer.kv_heads, D = mixer.values_of_head();
  kept.norm = norm_forward(e, w.norm, x);
  kept.q = kept.q_in = linear_forward(e, w.q, kept.norm.y);
  kept.k = kept.k_in = linear_forward(e, w.k, kept.norm.y);
  kept.v = kept.v_in = linear_forward(e, w.v, kept.norm.y);
  if (mixer.convolution) {
    const auto past = [&](Out<float, 3> LogSumExpCache::*inputs) { return cache ? cache->*inputs : Out<float, 3>{}; };
    kept.q = convolve(e, w.q_conv, mixer.convolution, kept.q_in, past(&LogSumExpCache::q));
    kept.k = convolve(e, w.k_conv, mixer.convolution, kept.k_in, past(&LogSumExpCache::k));
    kept.v = convolve(e, w.v_conv, mixer.convolution, kept.v_in, past(&LogSumExpCache::v));
  }
  kept.q_state = scale_heads(e, w.q_scale, 0, H, kept.q);
  kept.k_state = scale_heads(e, w.k_scale, mixer.key_cap, G, kept.k);
  if (mixer.decay) {
    kept.decay_in = linear_forward(e, w.decay, kept.norm.y);
    kept.decay = e.arena.allocate<float>(N, kept.decay_in.shape(1));
    e.backend.run(LogDecay{.y = kept.decay, .x = kept.decay_in, .divisor = decay_divisor});
  }
  attend_state(e, mixer, kept, cache);
  kept.a = kept.state;
  if (mixer.window) {
    attend_window(e, mixer, kept, cache);
    kept.a = e.arena.allocate<float>(N, H * D);
    e.backend.run(HeadMix{.y = kept.a.as(N, H, D),
                          .a = kept.state.as(N, H, D),
                          .b = kept.window.as(N, H, D),
                          .logit = as_vector(w.state_logit)});
  }
  const auto branch = linear_forward(e, w.o, kept.a);
  scale_branch(e, branch);
  return branch;
}

namespace {

// Gradients of queries, keys and values through the window, added to those through the state.
struct HeadGradients {
  Out<float, 2> q, k, v;
};
void window_backward(const Execution& e, const LogSumExpAttention& mixer, const LogSumExpActivations& kept,
                     In<float, 2> dwindow, const HeadGradients& d) {
  const i64 B = e.sequences, T = e.length, N = B * T, H = mixer.heads, G = mixer.kv_heads, E = mixer.head_dim;
  const HeadGradients own{e.arena.allocate<float>(N, H * E), e.arena.allocate<float>(N, G * E),
                          e.arena.allocate<float>(N, G * E)};
  // in the forward pass this was: window = attention(rope(q), rope(k), v)
  e.backend.run(AttentionBackward{.dq = own.q.as(B, T, H, E),
                                  .dk = own.k.as(B, T, G, E),
                                  .dv = own.v.as(B, T, G, E),
                                  .dy = dwindow.as(B, T, H, E),
                                  .y = kept.window.as(B, T, H, E),
                                  .q = kept.q_turned.as(B, T, H, E),
                                  .k = kept.k_turned.as(B, T, G, E),
                                  .v = kept.v.as(B, T, G, E),
                                  .lse = kept.window_lse,
                                  .scale = window_scale(mixer),
                                  .causal = true,
                                  .window = mixer.window,
                                  .compute = e.compute});
  rotate(e, own.q, E, true);
  rotate(e, own.k, E, true);
  e.backend.run(Add{.y = d.q, .a = d.q, .b = own.q});
  e.backend.run(Add{.y = d.k, .a = d.k, .b = own.k});
  e.backend.run(Add{.y = d.v, .a = d.v, .b = own.v});
}

}  // namespace

void log_sum_exp_backward(const Execution& e, const LogSumExpAttention& mixer, const AttentionParams<Matrix>& w,
                          const AttentionParams<Out<float, 2>>& dw, const LogSumExpActivations& kept, In<float, 2> x,
                          In<float, 2> dbranch, Sum<float, 2> dx) {
  const i64 B = e.sequences, T = e.length, N = B * T, H = mixer.heads, G = mixer.kv_heads, E = mixer.head_dim;
  const i64 D = mixer.values_of_head();
  // in the forward pass this was: branch = scale linear(o, a)
  const auto da = e.arena.zeros<float>(N, H * D);
  linear_backward(e, w.o, dw.o, kept.a, scaled_gradient(e, dbranch), da);
  // a = mix(state, window)
  auto dstate = da, dwindow = Out<float, 2>{};
  if (mixer.window) {
    dstate = e.arena.allocate<float>(N, H * D), dwindow = e.arena.allocate<float>(N, H * D);
    e.backend.run(HeadMixBackward{.da = dstate.as(N, H, D),
                                  .db = dwindow.as(N, H, D),
                                  .dlogit = vector_sum(dw.state_logit),
                                  .dy = da.as(N, H, D),
                                  .a = kept.state.as(N, H, D),
                                  .b = kept.window.as(N, H, D),
                                  .logit = as_vector(w.state_logit)});
  }
  // state = log_attention(q_state, k_state, v, decay)
  HeadGradients d{e.arena.allocate<float>(N, H * E), e.arena.allocate<float>(N, G * E),
                  e.arena.allocate<float>(N, G * D)};
  LogAttentionBackward attention{.dq = d.q.as(B, T, H, E),
                                 .dk = d.k.as(B, T, G, E),
                                 .dv = d.v.as(B, T, G, D),
                                 .dy = dstate.as(B, T, H, D),
                                 .y = kept.state.as(B, T, H, D),
                                 .lse = kept.lse,
                                 .q = kept.q_state.as(B, T, H, E),
                                 .k = kept.k_state.as(B, T, G, E),
                                 .v = kept.v.as(B, T, G, D),
                                 .log_values = mixer.log_values};
  const auto ddecay = mixer.decay ? e.arena.allocate<float>(N, G * E) : Out<float, 2>{};
  if (mixer.decay) attention.gate = kept.decay.as(B, T, G, E), attention.dgate = ddecay.as(B, T, G, E);
  e.backend.run(attention);
  // q_state, k_state = scale(q), cap(scale(k))
  scale_heads_backward(e, w.q_scale, dw.q_scale, 0, H, kept.q, kept.q_state, d.q);
  scale_heads_backward(e, w.k_scale, dw.k_scale, mixer.key_cap, G, kept.k, kept.k_state, d.k);
  if (mixer.window) window_backward(e, mixer, kept, dwindow, d);
  // q, k, v = q + conv(q), k + conv(k), v + conv(v)
  if (mixer.convolution) {
    d.q = convolve_backward(e, w.q_conv, dw.q_conv, mixer.convolution, kept.q_in, d.q);
    d.k = convolve_backward(e, w.k_conv, dw.k_conv, mixer.convolution, kept.k_in, d.k);
    d.v = convolve_backward(e, w.v_conv, dw.v_conv, mixer.convolution, kept.v_in, d.v);
  }
  const auto dn = e.arena.zeros<float>(N, x.shape(1));
  // decay = log_decay(linear(decay, n))
  if (mixer.decay) {
    e.backend.run(LogDecayBackward{.dx = ddecay, .dy = ddecay, .x = kept.decay_in, .divisor = decay_divisor});
    linear_backward(e, w.decay, dw.decay, kept.norm.y, ddecay, dn);
  }
  // q, k, v = linear(q, n), linear(k, n), linear(v, n)
  linear_backward(e, w.q, dw.q, kept.norm.y, d.q, dn);
  linear_backward(e, w.k, dw.k, kept.norm.y, d.k, dn);
  linear_backward(e, w.v, dw.v, kept.norm.y, d.v, dn);
  // n = norm(x)
  norm_backward(e, w.norm, dw.norm, kept.norm, x, dn, dx);
}

void merge_states(const LogSumExpCache& other, const LogSumExpCache& into) {
  const i64 channels = into.mass.size(), D = into.sums.shape(3);
  for (i64 a = 0; a < channels; ++a) {
    float &scale = into.scale.data()[a], &mass = into.mass.data()[a];
    const float from = other.scale.data()[a], largest = std::max(scale, from);
    if (std::isinf(from) && from < 0) continue;  // nothing was seen
    const float keep = std::exp(scale - largest), take = std::exp(from - largest);
    for (i64 d = 0; d < D; ++d) {
      float& sum = into.sums.data()[a * D + d];
      sum = keep * sum + take * other.sums.data()[a * D + d];
    }
    mass = keep * mass + take * other.mass.data()[a];
    scale = largest;
  }
}

}  // namespace sparsam
