// Plain types that forward, backward and step of log-sum-exp attention share.
#pragma once

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <vector>

#include "base/threads.h"
#include "ops/cpu/workspace.h"
#include "ops/log_attention.h"

namespace sparsam::cpu {

constexpr i64 chunk_tokens = 64;     // tokens whose products with one another are computed
constexpr float greatest_rise = 40;  // of a channel's largest key within a chunk: e^-40 is far from vanishing

// Columns of a panel: whole vectors of any target.
constexpr i64 padded_columns(i64 columns) { return (columns + 15) / 16 * 16; }

// The keys, values and gates of one group of one sequence: the first `time` of its tokens.
struct GroupTokens {
  const float *k, *v, *gate;  // gate: null if there is none
  i64 time, groups, key_dim, value_dim;

  const float* key(i64 t) const { return k + t * groups * key_dim; }
  const float* gate_of(i64 t) const { return gate + t * groups * key_dim; }
  const float* value(i64 t) const { return v + t * groups * value_dim; }
};
template <class O>
GroupTokens group_tokens(const O& op, i64 b, i64 g, i64 time) {
  const LogAttentionShape s = op.shape();
  const float* gate = op.gate.empty() ? nullptr : &op.gate(b, 0, g, 0);
  return {&op.k(b, 0, g, 0), &op.v(b, 0, g, 0), gate, time, s.groups, s.key_dim, s.value_dim};
}

// Hands out aligned parts of one allocation.
class Scratch {
 public:
  explicit Scratch(float* memory) : next_(memory) {}
  float* take(i64 floats) {
    float* part = next_;
    next_ += padded_columns(floats);
    return part;
  }
  static i64 floats_for(std::initializer_list<i64> parts) {
    i64 total = 0;
    for (const i64 part : parts) total += padded_columns(part);
    return total;
  }

 private:
  float* next_;
};

// Tokens that all groups go through before any goes on: their rows stay in cache, of which each group reads a part.
constexpr i64 segment_tokens = 2 * chunk_tokens;

// What a group carries from segment to segment: its state; in a backward pass also that state's gradient.
struct GroupState {
  float *sums, *mass, *scale;  // (E, padded D), (padded E), (padded E)
  float* shift;                // (padded D)  of values in log space, else null
  float *dsums, *dmass;        // (E, padded D), (padded E)
  double* dgate;               // (E)  sums from the last token on
};
inline i64 state_floats(const LogAttentionShape& s, bool backward) {
  const i64 e = padded_columns(s.key_dim), d = padded_columns(s.value_dim);
  return e * d + 2 * e + d + (backward ? e * d + 3 * e : 0);
}
inline GroupState group_state(const LogAttentionShape& shape, bool log_values, bool backward, float* memory) {
  const i64 e = padded_columns(shape.key_dim), d = padded_columns(shape.value_dim);
  Scratch s(memory);
  GroupState state{};
  state.sums = s.take(e * d), state.mass = s.take(e), state.scale = s.take(e);
  float* shift = s.take(d);
  if (log_values) state.shift = shift;
  if (backward) {
    state.dsums = s.take(e * d), state.dmass = s.take(e);
    state.dgate = reinterpret_cast<double*>(s.take(2 * e));
  }
  return state;
}

// Where a backward's first pass cut a group's chunks, and what their scales were.
struct ChunkRecord {
  std::vector<i64> begins;
  std::vector<float> scales, factors;  // (chunks, padded E) twice
};

// Values in log space are stored relative to the largest of their channel, an initial state's means included: `shift`
// of the groups [first, last), whose states lie one after the other from `memory` on.
template <class O>
void value_shifts(const O& op, i64 b, i64 first, i64 last, bool backward, float* memory) {
  const LogAttentionShape shape = op.shape();
  const i64 T = shape.time, E = shape.key_dim, D = shape.value_dim, d = padded_columns(D);
  constexpr float none = -std::numeric_limits<float>::infinity();
  const auto shift_of = [&](i64 g) {
    return group_state(shape, true, backward, memory + (g - first) * state_floats(shape, backward)).shift;
  };
  for (i64 g = first; g < last; ++g) std::fill_n(shift_of(g), d, none);
  for (i64 t = 0; t < T; ++t)
    for (i64 g = first; g < last; ++g) {
      const float* v = &op.v(b, t, g, 0);
      float* shift = shift_of(g);
      for (i64 c = 0; c < D; ++c) shift[c] = std::max(shift[c], v[c]);
    }
  for (i64 g = first; g < last; ++g) {
    float* shift = shift_of(g);
    for (i64 a = 0; !op.initial_sums.empty() && a < E; ++a)
      for (i64 c = 0; c < D; ++c)
        if (const float sum = op.initial_sums(b, g, a, c), mass = op.initial_mass(b, g, a); sum > 0 && mass > 0)
          shift[c] = std::max(shift[c], std::log(sum) - std::log(mass));
    for (i64 c = 0; c < d; ++c)
      if (shift[c] == none) shift[c] = 0;
  }
}

// The initial state, or an empty one.
template <class O>
void load_state(const O& op, i64 b, i64 g, const GroupState& state) {
  const auto [batch, time, heads, groups, key_dim, value_dim] = op.shape();
  const i64 padded = padded_columns(value_dim);
  std::fill_n(state.sums, key_dim * padded, 0.0f);
  std::fill_n(state.mass, padded_columns(key_dim), 0.0f);
  std::fill_n(state.scale, padded_columns(key_dim), -std::numeric_limits<float>::infinity());
  if (op.initial_sums.empty()) return;
  for (i64 a = 0; a < key_dim; ++a) {
    state.mass[a] = op.initial_mass(b, g, a);
    if (state.mass[a] > 0) state.scale[a] = op.initial_scale(b, g, a);
    for (i64 d = 0; d < value_dim; ++d)
      state.sums[a * padded + d] = op.initial_sums(b, g, a, d) * (state.shift ? std::exp(-state.shift[d]) : 1);
  }
}

// The states of all groups, and what calls body(thread, b, g, begin, end, state) for all groups, segment by segment: a
// whole sequence at once where it is not causal.
template <class O>
class SegmentedGroups {
 public:
  SegmentedGroups(const O& op, bool backward, Workspace& workspace)
      : op_(op), backward_(backward), shape_(op.shape()), floats_(state_floats(shape_, backward)) {
    memory_ = workspace.arena.allocate<float>(shape_.batch * shape_.groups, floats_);
    if (op.log_values)
      parallel_ranges(shape_.groups, 8, [&](int, i64 first, i64 last) {
        for (i64 b = 0; b < shape_.batch; ++b)
          value_shifts(op_, b, first, last, backward_, memory_[b * shape_.groups + first].data());
      });
  }
  i64 segments() const {
    return op_.causal ? (shape_.time + segment_tokens - 1) / segment_tokens : std::min<i64>(shape_.time, 1);
  }
  void run(i64 segment, auto&& body) const {
    const i64 length = op_.causal ? segment_tokens : shape_.time, begin = segment * length;
    const i64 end = std::min(begin + length, shape_.time);
    parallel_dynamic(shape_.batch * shape_.groups, [&](int thread, i64 i) {
      body(thread, i / shape_.groups, i % shape_.groups, begin, end,
           group_state(shape_, op_.log_values, backward_, memory_[i].data()));
    });
  }

 private:
  const O& op_;
  bool backward_;
  LogAttentionShape shape_;
  i64 floats_;
  View<float, 2> memory_;
};

}  // namespace sparsam::cpu
