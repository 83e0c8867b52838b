// Random numbers that are a pure function of (seed, stream): no hidden state, so a resumed run draws what it would
// have. Generator: xoshiro256** (Blackman & Vigna 2018), seeded through splitmix64.
#pragma once

#include <cmath>
#include <numbers>

#include "base/types.h"

namespace sparsam {

// splitmix64: a bijective mix of 64 bits; also used as a hash of counters.
constexpr u64 mix64(u64 x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

class Random {
 public:
  explicit Random(u64 seed, u64 stream = 0) {
    u64 x = mix64(seed) ^ mix64(stream * 2 + 1);
    for (u64& s : state_) s = x = mix64(x);
  }
  u64 next() {
    const u64 result = rotl(state_[1] * 5, 7) * 9, t = state_[1] << 17;
    state_[2] ^= state_[0], state_[3] ^= state_[1], state_[1] ^= state_[2], state_[0] ^= state_[3];
    state_[2] ^= t, state_[3] = rotl(state_[3], 45);
    return result;
  }
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }  // [0, 1)
  // Uniform in [0, n): multiply-shift with rejection (Lemire 2019), exactly unbiased.
  u64 below(u64 n) {
    for (;;) {
      const unsigned __int128 product = static_cast<unsigned __int128>(next()) * n;
      if (static_cast<u64>(product) >= (0 - n) % n) return static_cast<u64>(product >> 64);
    }
  }
  double normal() {  // Box-Muller, one of the pair
    const double u = 1.0 - uniform(), v = uniform();
    return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
  }

 private:
  static constexpr u64 rotl(u64 x, int k) { return (x << k) | (x >> (64 - k)); }
  u64 state_[4];
};

}  // namespace sparsam
