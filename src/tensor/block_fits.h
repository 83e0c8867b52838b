// The search for the scales of quantised blocks, under a weight for each element: rounding and least squares in turn,
// from several starts. For quantize_row.cpp.
#pragma once

#include <array>
#include <span>

#include "base/types.h"

namespace sparsam {

using Four = float __attribute__((vector_size(16)));  // numbers side by side

// The integers of [lo, hi].
struct Integers {
  float lo, hi;
  Four nearest(Four v) const {
    v = v < lo ? Four{} + lo : v;
    v = v > hi ? Four{} + hi : v;
    return (v + 0x1.8p23f) - 0x1.8p23f;  // to even
  }
  float nearest(float v) const { return nearest(Four{v})[0]; }
};
// The values of iq4_nl.
struct Iq4Levels {
  static constexpr float lo = -127, hi = 113;
  Four nearest(Four v) const;
  float nearest(float v) const { return nearest(Four{v})[0]; }
};

// The d for y = d q, q of the levels, with the smallest sum_e w_e (x_e - y_e)^2 that was found; an f16 number.
float fit_scale(std::span<const float> x, std::span<const float> w, const Integers& levels);
float fit_scale(std::span<const float> x, std::span<const float> w, const Iq4Levels& levels);

// The same for y = d q + base; both f16.
struct Line {
  float d = 0, base = 0;
};
Line fit_line(std::span<const float> x, std::span<const float> w, const Integers& levels);

// A block of groups with integer scales: y = (d s) q - (dmin m).
struct GroupLayout {
  size_t size;    // elements of a group
  Integers q, s;  // m lies where s does
  bool bases;     // false: m = 0
};
struct GroupFit {
  float d = 0, dmin = 0;  // f16 numbers
  std::array<float, 16> s{}, m{};
};
GroupFit fit_groups(std::span<const float> x, std::span<const float> w, const GroupLayout& layout);

}  // namespace sparsam
