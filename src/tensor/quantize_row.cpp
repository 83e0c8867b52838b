#include <algorithm>
#include <cstring>

#include "tensor/block_fits.h"
#include "tensor/blocks.h"

namespace sparsam {

namespace {

template <size_t Size>
using Numbers = std::span<const float, Size>;

float divided(float x, float d) { return d != 0 ? x / d : 0; }

// Writes q of element e in the orders that blocks.h names.
void put_nibble_of_32(std::array<u8, 16>& to, size_t e, int q) {
  u8& byte = to[e % 16];
  byte = static_cast<u8>(byte | (q & 15) << (e < 16 ? 0 : 4));
}
void put_nibble_of_256(std::array<u8, 128>& to, size_t e, int q) {
  u8& byte = to[e / 64 * 32 + e % 32];
  byte = static_cast<u8>(byte | (q & 15) << (e / 32 % 2 ? 4 : 0));
}
void put_two_bits(std::array<u8, 64>& to, size_t e, int q) {
  u8& byte = to[e / 128 * 32 + e % 32];
  byte = static_cast<u8>(byte | (q & 3) << (2 * (e / 32 % 4)));
}
void put_bit(std::array<u8, 4>& to, size_t e, int bit) { to[e / 8] = static_cast<u8>(to[e / 8] | bit << (e % 8)); }
void put_bit(std::array<u8, 32>& to, size_t e, int bit) { to[e % 32] = static_cast<u8>(to[e % 32] | bit << (e / 32)); }

// Calls put(e, q) for the elements of y = d q + base.
template <class Levels, class Put>
void round_all(std::span<const float> x, const Levels& levels, float d, float base, size_t first, Put&& put) {
  for (size_t e = 0; e < x.size(); ++e) put(first + e, static_cast<int>(levels.nearest(divided(x[e] - base, d))));
}

void quantize(Numbers<32> x, Numbers<32> w, BlockQ8_0& b) {
  const Integers levels{-127, 127};
  const float d = fit_scale(x, w, levels);
  b.d = Half::of(d);
  round_all(x, levels, d, 0, 0, [&](size_t e, int q) { b.q[e] = static_cast<i8>(q); });
}
void quantize(Numbers<32> x, Numbers<32> w, BlockQ4_0& b) {
  const Integers levels{-8, 7};
  const float d = fit_scale(x, w, levels);
  b.d = Half::of(d);
  round_all(x, levels, d, 0, 0, [&](size_t e, int q) { put_nibble_of_32(b.q, e, q + 8); });
}
void quantize(Numbers<32> x, Numbers<32> w, BlockQ4_1& b) {
  const Integers levels{0, 15};
  const Line line = fit_line(x, w, levels);
  b.d = Half::of(line.d), b.m = Half::of(line.base);
  round_all(x, levels, line.d, line.base, 0, [&](size_t e, int q) { put_nibble_of_32(b.q, e, q); });
}
void quantize(Numbers<32> x, Numbers<32> w, BlockQ5_0& b) {
  const Integers levels{-16, 15};
  const float d = fit_scale(x, w, levels);
  b.d = Half::of(d);
  round_all(x, levels, d, 0, 0,
            [&](size_t e, int q) { put_nibble_of_32(b.q, e, q + 16), put_bit(b.high, e, (q + 16) >> 4); });
}
void quantize(Numbers<32> x, Numbers<32> w, BlockQ5_1& b) {
  const Integers levels{0, 31};
  const Line line = fit_line(x, w, levels);
  b.d = Half::of(line.d), b.m = Half::of(line.base);
  round_all(x, levels, line.d, line.base, 0,
            [&](size_t e, int q) { put_nibble_of_32(b.q, e, q), put_bit(b.high, e, q >> 4); });
}
void quantize(Numbers<32> x, Numbers<32> w, BlockIq4Nl& b) {
  const Iq4Levels levels;
  const float d = fit_scale(x, w, levels);
  b.d = Half::of(d);
  round_all(x, levels, d, 0, 0, [&](size_t e, int q) {
    const auto place = std::find(iq4_values.begin(), iq4_values.end(), static_cast<i8>(q));
    put_nibble_of_32(b.q, e, static_cast<int>(place - iq4_values.begin()));
  });
}

template <class Put>
void round_groups(Numbers<256> x, const GroupLayout& layout, const GroupFit& fit, Put&& put) {
  for (size_t g = 0; g < x.size() / layout.size; ++g)
    round_all(x.subspan(g * layout.size, layout.size), layout.q, fit.d * fit.s[g], -(fit.dmin * fit.m[g]),
              g * layout.size, put);
}

void quantize(Numbers<256> x, Numbers<256> w, BlockQ2K& b) {
  const GroupLayout layout{.size = 16, .q = {0, 3}, .s = {0, 15}, .bases = true};
  const GroupFit fit = fit_groups(x, w, layout);
  b.d = Half::of(fit.d), b.dmin = Half::of(fit.dmin);
  for (size_t g = 0; g < 16; ++g)
    b.scales[g] = static_cast<u8>(static_cast<int>(fit.s[g]) | static_cast<int>(fit.m[g]) << 4);
  round_groups(x, layout, fit, [&](size_t e, int q) { put_two_bits(b.q, e, q); });
}
void quantize(Numbers<256> x, Numbers<256> w, BlockQ3K& b) {
  const GroupLayout layout{.size = 16, .q = {-4, 3}, .s = {-32, 31}, .bases = false};
  const GroupFit fit = fit_groups(x, w, layout);
  b.d = Half::of(fit.d);
  std::array<i8, 16> scales;
  for (size_t g = 0; g < 16; ++g) scales[g] = static_cast<i8>(fit.s[g]);
  b.scales = packed_q3_scales(scales);
  round_groups(x, layout, fit, [&](size_t e, int q) { put_two_bits(b.q, e, q + 4), put_bit(b.high, e, (q + 4) >> 2); });
}
std::array<u8, 12> packed(const GroupFit& fit) {
  GroupScales scales;
  for (size_t g = 0; g < 8; ++g) scales.s[g] = static_cast<u8>(fit.s[g]), scales.m[g] = static_cast<u8>(fit.m[g]);
  return packed_scales(scales);
}
void quantize(Numbers<256> x, Numbers<256> w, BlockQ4K& b) {
  const GroupLayout layout{.size = 32, .q = {0, 15}, .s = {0, 63}, .bases = true};
  const GroupFit fit = fit_groups(x, w, layout);
  b.d = Half::of(fit.d), b.dmin = Half::of(fit.dmin), b.scales = packed(fit);
  round_groups(x, layout, fit, [&](size_t e, int q) { put_nibble_of_256(b.q, e, q); });
}
void quantize(Numbers<256> x, Numbers<256> w, BlockQ5K& b) {
  const GroupLayout layout{.size = 32, .q = {0, 31}, .s = {0, 63}, .bases = true};
  const GroupFit fit = fit_groups(x, w, layout);
  b.d = Half::of(fit.d), b.dmin = Half::of(fit.dmin), b.scales = packed(fit);
  round_groups(x, layout, fit, [&](size_t e, int q) { put_nibble_of_256(b.q, e, q), put_bit(b.high, e, q >> 4); });
}
void quantize(Numbers<256> x, Numbers<256> w, BlockQ6K& b) {
  const GroupLayout layout{.size = 16, .q = {-32, 31}, .s = {-128, 127}, .bases = false};
  const GroupFit fit = fit_groups(x, w, layout);
  b.d = Half::of(fit.d);
  for (size_t g = 0; g < 16; ++g) b.scales[g] = static_cast<i8>(fit.s[g]);
  round_groups(x, layout, fit, [&](size_t e, int q) {
    u8& byte = b.q[e / 128 * 64 + e % 64];
    byte = static_cast<u8>(byte | ((q + 32) & 15) << (e / 64 % 2 ? 4 : 0));
    put_two_bits(b.high, e, (q + 32) >> 4);
  });
}

// Weights of mean 1. Columns that no input reached keep a little, so that they are not left to chance.
template <size_t Size>
std::array<float, Size> weights_of(std::span<const float> importance) {
  std::array<float, Size> w;
  w.fill(1);
  double sum = 0;
  for (const float value : importance) sum += value;
  const double mean = sum / Size;
  for (size_t i = 0; i < importance.size() && mean > 0; ++i) w[i] = static_cast<float>(importance[i] / mean) + 1e-4f;
  return w;
}

}  // namespace

void quantize_row(DType dtype, std::span<const float> x, std::span<const float> importance, std::byte* row) {
  check(importance.empty() || importance.size() == x.size(), "{} elements with {} weights", x.size(),
        importance.size());
  with_block(dtype, [&]<class Block>(Block) {
    constexpr size_t size = static_cast<size_t>(block_size(Block::dtype));
    check(x.size() % size == 0, "a row of {} elements of {}", x.size(), name_of(dtype));
    for (size_t i = 0; i < x.size(); i += size, row += sizeof(Block)) {
      const auto w = weights_of<size>(importance.empty() ? importance : importance.subspan(i, size));
      Block block{};
      quantize(Numbers<size>(x.subspan(i).template first<size>()), Numbers<size>(w), block);
      std::memcpy(row, &block, sizeof block);
    }
  });
}

}  // namespace sparsam
