#include "tensor/block_fits.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "tensor/blocks.h"
#include "tensor/dtype.h"

namespace sparsam {

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

float total(Four v) { return (v[0] + v[1]) + (v[2] + v[3]); }
Four four(const float* x) {
  Four v;
  std::memcpy(&v, x, sizeof v);
  return v;
}

// The nearest f16 that is a number.
float to_half(float value) { return f16_to_float(float_to_f16(std::clamp(value, -65504.0f, 65504.0f))); }
// Its neighbour away from zero (1) or towards it (-1).
float next_half(float value, int direction) {
  const u16 bits = float_to_f16(value), magnitude = bits & 0x7fff;
  if (direction > 0 ? magnitude >= 0x7bff : magnitude == 0) return value;
  return f16_to_float(static_cast<u16>(bits + direction));
}

// Sums of w, w x, w x^2 over the elements, and the range of x.
struct Moments {
  float w = 0, x = 0, xx = 0, least, largest;
};
Moments moments_of(std::span<const float> x, std::span<const float> w) {
  Moments m{.least = x[0], .largest = x[0]};
  for (size_t i = 0; i < x.size(); ++i) {
    m.w += w[i], m.x += w[i] * x[i], m.xx += w[i] * x[i] * x[i];
    m.least = std::min(m.least, x[i]), m.largest = std::max(m.largest, x[i]);
  }
  return m;
}

// With q = nearest((x - base) / d): sums of w q, w q^2, w q x and w (x - d q - base)^2.
struct Sums {
  float q, qq, qx, error;
};
template <class Levels>
Sums sums_of(std::span<const float> x, std::span<const float> w, const Levels& levels, const Line& line) {
  const float inverse = line.d != 0 ? 1 / line.d : 0;
  Four q_sum{}, qq_sum{}, qx_sum{}, error{};
  for (size_t i = 0; i < x.size(); i += 4) {
    const Four value = four(&x[i]), weight = four(&w[i]);
    const Four q = levels.nearest((value - line.base) * inverse), wq = weight * q;
    const Four off = value - (line.d * q + line.base);
    q_sum += wq, qq_sum += wq * q, qx_sum += wq * value, error += weight * off * off;
  }
  return {total(q_sum), total(qq_sum), total(qx_sum), total(error)};
}

struct Best {
  Line line;
  float error = infinity;
};

template <class Levels>
float best_scale(std::span<const float> x, std::span<const float> w, const Levels& levels) {
  const Moments m = moments_of(x, w);
  const float slack = 1e-7f * m.xx;
  Best best{.line = {}, .error = m.xx};
  const auto descend = [&](float d, int rounds) {
    for (int i = 0; i < rounds; ++i) {
      const Sums sums = sums_of(x, w, levels, {d, 0});
      if (sums.error < best.error - slack) best = {{d, 0}, sums.error};
      if (!(sums.qq > 0)) return;
      d = sums.qx / sums.qq;
    }
  };
  // The largest number at an end of the levels; or they reach less or more far. Fine levels leave little to choose.
  constexpr std::array parts{1.0f, 0.97f, 1.04f, 0.92f, 1.1f, 0.85f, 1.2f, 0.7f, 0.55f, 0.4f};
  const std::span tried = std::span(parts).first(levels.hi == 127 ? 3 : parts.size());
  const float most = std::max(-m.least, m.largest);
  for (const float end : {levels.lo, levels.hi}) {
    if (end == 0 || !(most > 0)) continue;
    const float d = (m.largest == most ? most : -most) / end;
    for (const float part : tried) descend(d * part, 2);
  }
  for (const float part : {1.0f, 0.5f, 0.25f})
    for (const float step : {-part, part}) {
      const float d = best.line.d;
      descend(d * (1 + step / levels.hi), 2);
    }
  return best.line.d;
}

// The f16 nearest to the best d, or one of its neighbours where that is better.
template <class Levels>
float best_half_scale(std::span<const float> x, std::span<const float> w, const Levels& levels) {
  const float d = to_half(best_scale(x, w, levels));
  Best best;
  for (const float candidate : {d, next_half(d, 1), next_half(d, -1)}) {
    const float error = sums_of(x, w, levels, {candidate, 0}).error;
    if (error < best.error) best = {{candidate, 0}, error};
  }
  return best.line.d;
}

// d >= 0 and base, which is at most 0 if `below_zero`.
Line best_line(std::span<const float> x, std::span<const float> w, const Integers& levels, bool below_zero) {
  const Moments m = moments_of(x, w);
  const float least = below_zero ? std::min(m.least, 0.0f) : m.least, range = m.largest - least;
  if (!(range > 0)) return {0, least};
  const float slack = 1e-7f * m.xx;  // what float32 cannot tell apart: the first start wins
  Best best;
  const auto descend = [&](Line line, int rounds) {
    for (int i = 0; i < rounds; ++i) {
      const Sums s = sums_of(x, w, levels, line);
      if (s.error < best.error - slack) best = {line, s.error};
      const float determinant = m.w * s.qq - s.q * s.q;
      if (!(determinant > 0)) return;
      line = {(m.w * s.qx - m.x * s.q) / determinant, (s.qq * m.x - s.q * s.qx) / determinant};
      if (below_zero && line.base > 0) line = {s.qx / s.qq, 0};
      if (!(line.d > 0)) return;
    }
  };
  // The levels reach from the least number to the largest, or leave some of either end out.
  for (const float low : {0.0f, -0.03f, 0.03f, 0.12f, 0.3f})
    for (const float high : {0.0f, -0.03f, 0.03f, 0.12f, 0.3f}) {
      const float base = least + low * range;
      if (below_zero && base > 0) continue;
      descend({(m.largest - high * range - base) / levels.hi, base}, 2);
    }
  // Steps away from the best: the ends of the levels move by parts of a level.
  for (const float part : {1.0f, 0.5f, 0.25f})
    for (const float low : {-part, 0.0f, part})
      for (const float high : {-part, 0.0f, part}) {
        const Line line = best.line;
        const float base = line.base + low * line.d;
        if (below_zero && base > 0) continue;
        descend({line.d + (high - low) * line.d / levels.hi, base}, 2);
      }
  descend(best.line, 3);
  return best.line;
}

}  // namespace

Four Iq4Levels::nearest(Four v) const {
  Four level = Four{} + static_cast<float>(iq4_values[0]);
  for (size_t k = 1; k < iq4_values.size(); ++k) {
    const float middle = 0.5f * static_cast<float>(iq4_values[k - 1] + iq4_values[k]);
    level = v > middle ? Four{} + static_cast<float>(iq4_values[k]) : level;
  }
  return level;
}

float fit_scale(std::span<const float> x, std::span<const float> w, const Integers& levels) {
  return best_half_scale(x, w, levels);
}
float fit_scale(std::span<const float> x, std::span<const float> w, const Iq4Levels& levels) {
  return best_half_scale(x, w, levels);
}

Line fit_line(std::span<const float> x, std::span<const float> w, const Integers& levels) {
  const Line line = best_line(x, w, levels, false);
  return {to_half(line.d), to_half(line.base)};
}

GroupFit fit_groups(std::span<const float> x, std::span<const float> w, const GroupLayout& layout) {
  const size_t size = layout.size, groups = x.size() / size;
  std::array<float, 16> d_of{}, base_of{}, weight_of{};
  for (size_t g = 0; g < groups; ++g) {
    const auto xs = x.subspan(g * size, size), ws = w.subspan(g * size, size);
    const Line line = layout.bases ? best_line(xs, ws, layout.q, true) : Line{best_scale(xs, ws, layout.q), 0};
    d_of[g] = line.d, base_of[g] = -line.base;
    for (const float weight : ws) weight_of[g] += weight;
  }
  const std::span<const float> weights(weight_of.data(), groups);
  float d = fit_scale({d_of.data(), groups}, weights, layout.s);
  float dmin = layout.bases ? fit_scale({base_of.data(), groups}, weights, layout.s) : 0;

  GroupFit best;
  float least = infinity;
  for (int round = 0; round < 3; ++round) {
    GroupFit fit{.d = d, .dmin = dmin};
    // The best integers near the wanted ones, group by group; and then d and dmin of least squares for them.
    double error = 0, ss = 0, sm = 0, mm = 0, sx = 0, mx = 0;
    for (size_t g = 0; g < groups; ++g) {
      const auto xs = x.subspan(g * size, size), ws = w.subspan(g * size, size);
      const float s0 = layout.s.nearest(d != 0 ? d_of[g] / d : 0);
      const float m0 = layout.s.nearest(dmin != 0 ? base_of[g] / dmin : 0);
      Sums chosen{.q = 0, .qq = 0, .qx = 0, .error = infinity};
      for (const float ds : {0.0f, -1.0f, 1.0f})
        for (const float dm : {0.0f, -1.0f, 1.0f}) {
          if (!layout.bases && dm != 0) continue;
          const float s = layout.s.nearest(s0 + ds), m = layout.bases ? layout.s.nearest(m0 + dm) : 0;
          const Sums sums = sums_of(xs, ws, layout.q, {d * s, -(dmin * m)});
          if (sums.error < chosen.error) chosen = sums, fit.s[g] = s, fit.m[g] = m;
        }
      const Moments moments = moments_of(xs, ws);
      const double s = fit.s[g], m = fit.m[g];
      error += chosen.error;
      ss += s * s * chosen.qq, sm += s * m * chosen.q, mm += m * m * moments.w, sx += s * chosen.qx,
          mx += m * moments.x;
    }
    if (error < least) least = static_cast<float>(error), best = fit;
    // sum w (x - d s q + dmin m)^2: ss d - sm dmin = sx, -sm d + mm dmin = -mx
    const double determinant = ss * mm - sm * sm;
    if (determinant > 1e-6 * ss * mm) {
      d = to_half(static_cast<float>((sx * mm - sm * mx) / determinant));
      dmin = to_half(static_cast<float>((sm * sx - ss * mx) / determinant));
    } else if (ss > 0) {
      d = to_half(static_cast<float>((sx + sm * dmin) / ss));
    }
  }
  return best;
}

}  // namespace sparsam
