// Plain types that forward, backward and step of log-sum-exp attention share.
#pragma once

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <limits>

#include "ops/cpu/workspace.h"
#include "ops/log_attention.h"

namespace sparsam::cpu {

constexpr i64 chunk_tokens = 64;     // tokens whose products with one another are computed
constexpr float greatest_rise = 40;  // of a channel's largest key within a chunk: e^-40 is far from vanishing

// Columns of a panel: whole vectors of any target.
constexpr i64 padded_columns(i64 columns) { return (columns + 15) / 16 * 16; }

// The keys, values and gates of one group of one sequence: rows that lie `stride` elements apart.
struct GroupTokens {
  const float *k, *v, *gate;  // gate: null if there is none
  i64 time, groups, key_dim, value_dim;

  const float* key(i64 t) const { return k + t * groups * key_dim; }
  const float* gate_of(i64 t) const { return gate + t * groups * key_dim; }
  const float* value(i64 t) const { return v + t * groups * value_dim; }
};
template <class O>
GroupTokens group_tokens(const O& op, i64 b, i64 g) {
  const auto [batch, time, heads, groups, key_dim, value_dim] = op.shape();
  return {&op.k(b, 0, g, 0), &op.v(b, 0, g, 0), op.gate.empty() ? nullptr : &op.gate(b, 0, g, 0), time, groups,
          key_dim,           value_dim};
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

// Values in log space are stored relative to the largest of their channel, an initial state's means included: shift
// (padded D).
template <class O>
void value_shift(const O& op, i64 b, i64 g, float* shift) {
  const auto [batch, time, heads, groups, key_dim, value_dim] = op.shape();
  constexpr float none = -std::numeric_limits<float>::infinity();
  std::fill_n(shift, padded_columns(value_dim), none);
  for (i64 t = 0; t < time; ++t)
    for (i64 d = 0; d < value_dim; ++d) shift[d] = std::max(shift[d], op.v(b, t, g, d));
  for (i64 a = 0; !op.initial_sums.empty() && a < key_dim; ++a)
    for (i64 d = 0; d < value_dim; ++d)
      if (const float sum = op.initial_sums(b, g, a, d), mass = op.initial_mass(b, g, a); sum > 0 && mass > 0)
        shift[d] = std::max(shift[d], std::log(sum) - std::log(mass));
  for (i64 d = 0; d < padded_columns(value_dim); ++d)
    if (shift[d] == none) shift[d] = 0;
}

// The initial state, or an empty one, in panels: sums (E, padded D), mass and scale (padded E).
template <class O>
void load_state(const O& op, i64 b, i64 g, const float* shift, float* sums, float* mass, float* scale) {
  const auto [batch, time, heads, groups, key_dim, value_dim] = op.shape();
  const i64 padded = padded_columns(value_dim);
  std::fill_n(sums, key_dim * padded, 0.0f);
  std::fill_n(mass, padded_columns(key_dim), 0.0f);
  std::fill_n(scale, padded_columns(key_dim), -std::numeric_limits<float>::infinity());
  if (op.initial_sums.empty()) return;
  for (i64 a = 0; a < key_dim; ++a) {
    mass[a] = op.initial_mass(b, g, a);
    if (mass[a] > 0) scale[a] = op.initial_scale(b, g, a);
    for (i64 d = 0; d < value_dim; ++d)
      sums[a * padded + d] = op.initial_sums(b, g, a, d) * (shift ? std::exp(-shift[d]) : 1);
  }
}

}  // namespace sparsam::cpu
