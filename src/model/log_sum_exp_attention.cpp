#include "model/log_sum_exp_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace sparsam {

namespace {

constexpr float decay_divisor = 16;  // as gated linear attention: decays begin slow (arXiv 2312.06635, section 4.4)

float window_scale(const LogSumExpAttention& mixer) { return 1.f / std::sqrt(static_cast<float>(mixer.head_dim)); }

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

// Each head's linear map (N, heads E) -> (N, heads F).
Out<float, 2> map_heads(const Execution& e, const Matrix& map, i64 heads, i64 features, Out<float, 2> x) {
  const i64 N = x.shape(0), size = x.shape(1) / heads;
  const auto y = e.arena.allocate<float>(N, heads * features);
  e.backend.run(HeadLinear{
      .y = y.as(N, heads, features), .x = x.as(N, heads, size), .w = as_vector(map).as(heads, features, size)});
  return y;
}
Out<float, 2> map_heads_backward(const Execution& e, const Matrix& map, const Out<float, 2>& dmap, i64 heads,
                                 In<float, 2> x, In<float, 2> dy) {
  const i64 N = x.shape(0), size = x.shape(1) / heads, features = dy.shape(1) / heads;
  const auto dx = e.arena.allocate<float>(N, x.shape(1));
  e.backend.run(HeadLinearBackward{.dx = dx.as(N, heads, size),
                                   .dw = Sum<float, 3>(dmap.as(heads, features, size)),
                                   .dy = dy.as(N, heads, features),
                                   .x = x.as(N, heads, size),
                                   .w = as_vector(map).as(heads, features, size)});
  return dx;
}

// Rows (N, channels) `window` positions later.
Out<float, 2> delay(const Execution& e, i64 window, Out<float, 2> x, float fill, Out<float, 3> waiting) {
  const i64 B = e.sequences, T = e.length, channels = x.shape(1);
  const auto y = e.arena.allocate<float>(B * T, channels);
  e.backend.run(Delay{.y = y.as(B, T, channels),
                      .x = x.as(B, T, channels),
                      .delay = window,
                      .fill = fill,
                      .state = waiting,
                      .start = e.positions[0]});
  return y;
}
Out<float, 2> delay_backward(const Execution& e, i64 window, Out<float, 2> dy) {
  const i64 B = e.sequences, T = e.length, channels = dy.shape(1);
  const auto dx = e.arena.allocate<float>(B * T, channels);
  e.backend.run(DelayBackward{.dx = dx.as(B, T, channels), .dy = dy.as(B, T, channels), .delay = window});
  return dx;
}

void attend_window(const Execution& e, const LogSumExpAttention& mixer, LogSumExpActivations& kept,
                   const LogSumExpCache* cache) {
  const i64 B = e.sequences, T = e.length, H = mixer.heads, G = mixer.kv_heads, E = mixer.head_dim;
  kept.window = e.arena.allocate<float>(B * T, H * E);
  kept.window_lse = e.arena.allocate<float>(B, H, T);
  if (cache)
    return attend_ring(e, cache->window,
                       {.y = kept.window.as(T, H, E),
                        .q = kept.q_turned.as(T, H, E),
                        .k = kept.k_turned.as(T, G, E),
                        .v = kept.v.as(T, G, E),
                        .start = e.positions[0],
                        .window = mixer.window,
                        .scale = window_scale(mixer),
                        .lse = mixer.shared_window ? kept.window_lse.as(H, T) : Out<float, 2>{}});
  e.backend.run(Attention{.y = kept.window.as(B, T, H, E),
                          .lse = kept.window_lse,
                          .q = kept.q_turned.as(B, T, H, E),
                          .k = kept.k_turned.as(B, T, G, E),
                          .v = kept.v.as(B, T, G, E),
                          .scale = window_scale(mixer),
                          .causal = true,
                          .window = mixer.window,
                          .compute = e.compute});
}

// What the state takes in.
void choose_tokens(const Execution& e, const LogSumExpAttention& mixer, LogSumExpActivations& kept,
                   const LogSumExpCache* cache) {
  kept.k_read = kept.k_state, kept.v_read = kept.v, kept.decay_read = kept.decay;
  if (!mixer.shared_window) return;
  const auto waiting = [&](Out<float, 3> LogSumExpCache::*ring) { return cache ? cache->*ring : Out<float, 3>{}; };
  constexpr float absent = -std::numeric_limits<float>::infinity();
  kept.k_read = delay(e, mixer.window, kept.k_state, absent, waiting(&LogSumExpCache::waiting_k));
  kept.v_read = delay(e, mixer.window, kept.v, 0, waiting(&LogSumExpCache::waiting_v));
  if (mixer.decay) kept.decay_read = delay(e, mixer.window, kept.decay, 0, waiting(&LogSumExpCache::waiting_decay));
}

void attend_state(const Execution& e, const LogSumExpAttention& mixer, LogSumExpActivations& kept,
                  const LogSumExpCache* cache) {
  const i64 B = e.sequences, T = e.length, H = mixer.heads, G = mixer.kv_heads, F = mixer.features();
  const i64 D = mixer.values_of_head();
  kept.state = e.mixed_rows(H * D);
  if (!cache || mixer.shared_window) kept.lse = e.arena.allocate<float>(B, H, T);
  if (cache && T == 1) {
    LogAttentionStep step{.y = kept.state.as(1, H, D),
                          .sums = cache->sums,
                          .mass = cache->mass,
                          .scale = cache->scale,
                          .q = kept.q_state.as(1, H, F),
                          .k = kept.k_read.as(1, G, F),
                          .v = kept.v_read.as(1, G, D),
                          .log_values = mixer.log_values};
    if (mixer.decay) step.gate = kept.decay_read.as(1, G, F);
    if (mixer.shared_window) step.lse = kept.lse.as(1, H);
    e.backend.run(step);
    return;
  }
  e.for_each_run([&](const SequenceRun& run) {
    LogAttention attention{.y = run.heads(kept.state, H),
                           .q = run.heads(kept.q_state, H),
                           .k = run.heads(kept.k_read, G),
                           .v = run.heads(kept.v_read, G),
                           .causal = e.config.causal,
                           .log_values = mixer.log_values};
    if (mixer.decay) attention.gate = run.heads(kept.decay_read, G);
    if (!kept.lse.empty()) attention.lse = run.lse(kept.lse);
    if (cache) {  // each group's state is read before it is written
      attention.initial_sums = attention.final_sums = cache->sums;
      attention.initial_mass = attention.final_mass = cache->mass;
      attention.initial_scale = attention.final_scale = cache->scale;
    }
    e.backend.run(attention);
  });
}

void mix_with_window(const Execution& e, const LogSumExpAttention& mixer, const Matrix& logit,
                     LogSumExpActivations& kept, bool whole_sequences) {
  const i64 N = kept.state.shape(0), H = mixer.heads, D = mixer.head_dim;
  kept.a = e.arena.allocate<float>(N, H * D);
  HeadMix mix{
      .y = kept.a.as(N, H, D), .a = kept.state.as(N, H, D), .b = kept.window.as(N, H, D), .logit = as_vector(logit)};
  if (mixer.shared_window) mix.a_lse = kept.lse, mix.b_lse = kept.window_lse;
  if (mixer.shared_window && whole_sequences) {
    kept.joint = mix.a_joint = e.arena.allocate<float>(e.sequences, H, e.length);
    kept.window_joint = mix.b_joint = e.arena.allocate<float>(e.sequences, H, e.length);
  }
  e.backend.run(mix);
}

}  // namespace

Out<float, 2> log_sum_exp_forward(const Execution& e, const LogSumExpAttention& mixer, const AttentionParams<Matrix>& w,
                                  In<float, 2> x, LogSumExpActivations& kept, const LogSumExpCache* cache) {
  const i64 N = x.shape(0), H = mixer.heads, G = mixer.kv_heads, E = mixer.head_dim;
  kept.norm = norm_forward(e, w.norm, x);
  kept.q = kept.q_in = linear_forward(e, w.q, kept.norm.y);
  kept.k = kept.k_in = linear_forward(e, w.k, kept.norm.y);
  kept.v = kept.v_in = linear_forward(e, w.v, kept.norm.y);
  if (mixer.convolution) {
    const ConvolutionPast past = cache ? cache->window.past : ConvolutionPast{};
    kept.q = convolve(e, w.q_conv, kept.q_in, past.q);
    kept.k = convolve(e, w.k_conv, kept.k_in, past.k);
    kept.v = convolve(e, w.v_conv, kept.v_in, past.v);
  }
  if (mixer.window || mixer.feature_dim) kept.q_turned = turned(e, kept.q, E), kept.k_turned = turned(e, kept.k, E);
  kept.q_map = mixer.feature_dim ? map_heads(e, w.q_map, H, mixer.feature_dim, kept.q_turned) : kept.q;
  kept.k_map = mixer.feature_dim ? map_heads(e, w.k_map, G, mixer.feature_dim, kept.k_turned) : kept.k;
  kept.q_state = scale_heads(e, w.q_scale, 0, H, kept.q_map);
  kept.k_state = scale_heads(e, w.k_scale, mixer.key_cap, G, kept.k_map);
  if (mixer.decay) {
    kept.decay_in = linear_forward(e, w.decay, kept.norm.y);
    kept.decay = e.arena.allocate<float>(N, kept.decay_in.shape(1));
    e.backend.run(LogDecay{.y = kept.decay, .x = kept.decay_in, .divisor = decay_divisor});
  }
  choose_tokens(e, mixer, kept, cache);
  attend_state(e, mixer, kept, cache);
  kept.a = kept.state;
  if (mixer.window) {
    attend_window(e, mixer, kept, cache);
    mix_with_window(e, mixer, w.state_logit, kept, !cache);
  }
  if (mixer.output_glu) {
    kept.gate = linear_forward(e, w.output_gate, kept.a), kept.up = linear_forward(e, w.output_up, kept.a);
    kept.gated = e.arena.allocate<float>(N, x.shape(1));
    e.backend.run(GatedProduct{.h = kept.gated, .gate = kept.gate, .up = kept.up, .function = Function::sigmoid});
  }
  const auto branch = linear_forward(e, w.o, mixer.output_glu ? kept.gated : kept.a);
  scale_branch(e, branch);
  return branch;
}

namespace {

struct HeadGradients {
  Out<float, 2> q, k, v;
};
void add(const Execution& e, const HeadGradients& d, const HeadGradients& other) {
  e.backend.run(Add{.y = d.q, .a = d.q, .b = other.q});
  e.backend.run(Add{.y = d.k, .a = d.k, .b = other.k});
  e.backend.run(Add{.y = d.v, .a = d.v, .b = other.v});
}

// Gradients of what the output projection read (N, H D).
Out<float, 2> output_backward(const Execution& e, const LogSumExpAttention& mixer, const AttentionParams<Matrix>& w,
                              const AttentionParams<Out<float, 2>>& dw, const LogSumExpActivations& kept,
                              In<float, 2> dbranch) {
  const i64 N = dbranch.shape(0), C = dbranch.shape(1);
  const auto da = e.arena.zeros<float>(N, kept.a.shape(1));
  // in the forward pass this was: branch = scale linear(o, a)
  if (!mixer.output_glu) {
    linear_backward(e, w.o, dw.o, kept.a, scaled_gradient(e, dbranch), da);
    return da;
  }
  // or gate, up = linear(gate, a), linear(up, a)    branch = scale linear(o, sigmoid(gate) up)
  const auto dgated = e.arena.zeros<float>(N, C), dgate = e.arena.allocate<float>(N, C);
  const auto dup = e.arena.allocate<float>(N, C);
  linear_backward(e, w.o, dw.o, kept.gated, scaled_gradient(e, dbranch), dgated);
  e.backend.run(GatedProductBackward{
      .dgate = dgate, .dup = dup, .dh = dgated, .gate = kept.gate, .up = kept.up, .function = Function::sigmoid});
  linear_backward(e, w.output_gate, dw.output_gate, kept.a, dgate, da);
  linear_backward(e, w.output_up, dw.output_up, kept.a, dup, da);
  return da;
}

// What the backward passes of state and window start from. With a shared window each is a part of one average, whose
// result and whose lse they get; else the mixture's share of it.
struct Sources {
  Out<float, 2> dstate, dwindow, state, window;  // (N, H D)
  Out<float, 3> lse, window_lse;                 // (B, H, T)
};
Sources mix_backward(const Execution& e, const LogSumExpAttention& mixer, const Matrix& logit,
                     const Out<float, 2>& dlogit, const LogSumExpActivations& kept, Out<float, 2> da) {
  if (!mixer.window) return {da, {}, kept.state, {}, kept.lse, {}};
  const i64 N = da.shape(0), H = mixer.heads, D = mixer.head_dim;
  HeadMixBackward mix{.da = {},
                      .db = {},
                      .dlogit = vector_sum(dlogit),
                      .dy = da.as(N, H, D),
                      .a = kept.state.as(N, H, D),
                      .b = kept.window.as(N, H, D),
                      .logit = as_vector(logit)};
  if (mixer.shared_window) {
    mix.a_lse = kept.lse, mix.b_lse = kept.window_lse;
    e.backend.run(mix);
    return {da, da, kept.a, kept.a, kept.joint, kept.window_joint};
  }
  const auto dstate = e.arena.allocate<float>(N, H * D), dwindow = e.arena.allocate<float>(N, H * D);
  mix.da = dstate.as(N, H, D), mix.db = dwindow.as(N, H, D);
  e.backend.run(mix);
  return {dstate, dwindow, kept.state, kept.window, kept.lse, kept.window_lse};
}

// Gradients of turned queries and keys and of values through the window.
HeadGradients window_backward(const Execution& e, const LogSumExpAttention& mixer, const LogSumExpActivations& kept,
                              const Sources& from) {
  const i64 B = e.sequences, T = e.length, N = B * T, H = mixer.heads, G = mixer.kv_heads, E = mixer.head_dim;
  const HeadGradients d{e.arena.allocate<float>(N, H * E), e.arena.allocate<float>(N, G * E),
                        e.arena.allocate<float>(N, G * E)};
  // in the forward pass this was: window = attention(q_turned, k_turned, v)
  e.backend.run(AttentionBackward{.dq = d.q.as(B, T, H, E),
                                  .dk = d.k.as(B, T, G, E),
                                  .dv = d.v.as(B, T, G, E),
                                  .dy = from.dwindow.as(B, T, H, E),
                                  .y = from.window.as(B, T, H, E),
                                  .q = kept.q_turned.as(B, T, H, E),
                                  .k = kept.k_turned.as(B, T, G, E),
                                  .v = kept.v.as(B, T, G, E),
                                  .lse = from.window_lse,
                                  .scale = window_scale(mixer),
                                  .causal = true,
                                  .window = mixer.window,
                                  .compute = e.compute});
  return d;
}

// Gradients of the state's queries, keys and values and of the decays.
HeadGradients state_backward(const Execution& e, const LogSumExpAttention& mixer, const LogSumExpActivations& kept,
                             const Sources& from, Out<float, 2>& ddecay) {
  const i64 H = mixer.heads, G = mixer.kv_heads, F = mixer.features();
  HeadGradients d{e.mixed_rows(H * F), e.mixed_rows(G * F), e.mixed_rows(G * mixer.values_of_head())};
  if (mixer.decay) ddecay = e.mixed_rows(G * F);
  // in the forward pass this was: state = log_attention(q_state, k_read, v_read, decay_read)
  e.for_each_run([&](const SequenceRun& run) {
    LogAttentionBackward attention{.dq = run.heads(d.q, H),
                                   .dk = run.heads(d.k, G),
                                   .dv = run.heads(d.v, G),
                                   .dy = run.heads(from.dstate, H),
                                   .y = run.heads(from.state, H),
                                   .lse = run.lse(from.lse),
                                   .q = run.heads(kept.q_state, H),
                                   .k = run.heads(kept.k_read, G),
                                   .v = run.heads(kept.v_read, G),
                                   .causal = e.config.causal,
                                   .log_values = mixer.log_values};
    if (mixer.decay) attention.gate = run.heads(kept.decay_read, G), attention.dgate = run.heads(ddecay, G);
    e.backend.run(attention);
  });
  // k_read, v_read, decay_read = delay(k_state, v, decay)
  if (mixer.shared_window) {
    d.k = delay_backward(e, mixer.window, d.k), d.v = delay_backward(e, mixer.window, d.v);
    if (mixer.decay) ddecay = delay_backward(e, mixer.window, ddecay);
  }
  return d;
}

}  // namespace

void log_sum_exp_backward(const Execution& e, const LogSumExpAttention& mixer, const AttentionParams<Matrix>& w,
                          const AttentionParams<Out<float, 2>>& dw, const LogSumExpActivations& kept, In<float, 2> x,
                          In<float, 2> dbranch, Sum<float, 2> dx) {
  const i64 H = mixer.heads, G = mixer.kv_heads, E = mixer.head_dim;
  const auto da = output_backward(e, mixer, w, dw, kept, dbranch);
  const Sources from = mix_backward(e, mixer, w.state_logit, dw.state_logit, kept, da);
  Out<float, 2> ddecay;
  HeadGradients d = state_backward(e, mixer, kept, from, ddecay);
  // q_state, k_state = scale(q_map), cap(scale(k_map))
  scale_heads_backward(e, w.q_scale, dw.q_scale, 0, H, kept.q_map, kept.q_state, d.q);
  scale_heads_backward(e, w.k_scale, dw.k_scale, mixer.key_cap, G, kept.k_map, kept.k_state, d.k);
  // q_map, k_map = map(q_turned), map(k_turned)
  if (mixer.feature_dim) {
    d.q = map_heads_backward(e, w.q_map, dw.q_map, H, kept.q_turned, d.q);
    d.k = map_heads_backward(e, w.k_map, dw.k_map, G, kept.k_turned, d.k);
  }
  // q_turned, k_turned = rope(q), rope(k)
  const auto turn_back = [&](const HeadGradients& turned) {
    rotate(e, turned.q, E, true);
    rotate(e, turned.k, E, true);
  };
  if (mixer.window) {
    const HeadGradients through_window = window_backward(e, mixer, kept, from);
    if (!mixer.feature_dim) turn_back(through_window);
    add(e, d, through_window);
  }
  if (mixer.feature_dim) turn_back(d);
  // q, k, v = q + conv(q), k + conv(k), v + conv(v)
  if (mixer.convolution) {
    d.q = convolve_backward(e, w.q_conv, dw.q_conv, kept.q_in, d.q);
    d.k = convolve_backward(e, w.k_conv, dw.k_conv, kept.k_in, d.k);
    d.v = convolve_backward(e, w.v_conv, dw.v_conv, kept.v_in, d.v);
  }
  const auto dn = e.arena.zeros<float>(x.shape(0), x.shape(1));
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
