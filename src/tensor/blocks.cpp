#include "tensor/blocks.h"

namespace sparsam {

namespace {

template <class B>
constexpr bool as_in_files = sizeof(B) == block_bytes(B::dtype) && alignof(B) == 1;
static_assert(as_in_files<BlockQ8_0> && as_in_files<BlockQ4_0> && as_in_files<BlockQ4_1> && as_in_files<BlockQ5_0> &&
              as_in_files<BlockQ5_1> && as_in_files<BlockIq4Nl> && as_in_files<BlockQ2K> && as_in_files<BlockQ3K> &&
              as_in_files<BlockQ4K> && as_in_files<BlockQ5K> && as_in_files<BlockQ6K>);

// The bits of element e, by the orders that blocks.h names.
int nibble_of_32(const std::array<u8, 16>& q, size_t e) { return e < 16 ? q[e] & 15 : q[e - 16] >> 4; }
int nibble_of_256(const std::array<u8, 128>& q, size_t e) {
  return q[e / 64 * 32 + e % 32] >> (e / 32 % 2 ? 4 : 0) & 15;
}
int two_bits(const std::array<u8, 64>& q, size_t e) { return q[e / 128 * 32 + e % 32] >> (2 * (e / 32 % 4)) & 3; }
int bit(const std::array<u8, 4>& high, size_t e) { return high[e / 8] >> (e % 8) & 1; }
int bit(const std::array<u8, 32>& high, size_t e) { return high[e % 32] >> (e / 32) & 1; }

template <size_t Size, class Element>
void fill(float* y, Element&& element) {
  for (size_t e = 0; e < Size; ++e) y[e] = element(e);
}

void dequantize(const BlockQ8_0& b, float* y) {
  const float d = b.d.value();
  fill<32>(y, [&](size_t e) { return d * static_cast<float>(b.q[e]); });
}
void dequantize(const BlockQ4_0& b, float* y) {
  const float d = b.d.value();
  fill<32>(y, [&](size_t e) { return d * static_cast<float>(nibble_of_32(b.q, e) - 8); });
}
void dequantize(const BlockQ4_1& b, float* y) {
  const float d = b.d.value(), m = b.m.value();
  fill<32>(y, [&](size_t e) { return d * static_cast<float>(nibble_of_32(b.q, e)) + m; });
}
void dequantize(const BlockQ5_0& b, float* y) {
  const float d = b.d.value();
  fill<32>(y, [&](size_t e) { return d * static_cast<float>((nibble_of_32(b.q, e) | bit(b.high, e) << 4) - 16); });
}
void dequantize(const BlockQ5_1& b, float* y) {
  const float d = b.d.value(), m = b.m.value();
  fill<32>(y, [&](size_t e) { return d * static_cast<float>(nibble_of_32(b.q, e) | bit(b.high, e) << 4) + m; });
}
void dequantize(const BlockIq4Nl& b, float* y) {
  const float d = b.d.value();
  fill<32>(y, [&](size_t e) { return d * static_cast<float>(iq4_values[static_cast<size_t>(nibble_of_32(b.q, e))]); });
}
void dequantize(const BlockQ2K& b, float* y) {
  const float d = b.d.value(), dmin = b.dmin.value();
  fill<256>(y, [&](size_t e) {
    const float s = d * static_cast<float>(b.scales[e / 16] & 15), m = dmin * static_cast<float>(b.scales[e / 16] >> 4);
    return s * static_cast<float>(two_bits(b.q, e)) - m;
  });
}
void dequantize(const BlockQ3K& b, float* y) {
  const float d = b.d.value();
  const std::array<i8, 16> scales = q3_scales(b.scales);
  fill<256>(y, [&](size_t e) {
    return d * static_cast<float>(scales[e / 16]) * static_cast<float>((two_bits(b.q, e) | bit(b.high, e) << 2) - 4);
  });
}
void dequantize(const BlockQ4K& b, float* y) {
  const float d = b.d.value(), dmin = b.dmin.value();
  const GroupScales scales = group_scales(b.scales);
  fill<256>(y, [&](size_t e) {
    return d * static_cast<float>(scales.s[e / 32]) * static_cast<float>(nibble_of_256(b.q, e)) -
           dmin * static_cast<float>(scales.m[e / 32]);
  });
}
void dequantize(const BlockQ5K& b, float* y) {
  const float d = b.d.value(), dmin = b.dmin.value();
  const GroupScales scales = group_scales(b.scales);
  fill<256>(y, [&](size_t e) {
    return d * static_cast<float>(scales.s[e / 32]) * static_cast<float>(nibble_of_256(b.q, e) | bit(b.high, e) << 4) -
           dmin * static_cast<float>(scales.m[e / 32]);
  });
}
void dequantize(const BlockQ6K& b, float* y) {
  const float d = b.d.value();
  fill<256>(y, [&](size_t e) {
    const int low = b.q[e / 128 * 64 + e % 64] >> (e / 64 % 2 ? 4 : 0) & 15;
    return d * static_cast<float>(b.scales[e / 16]) * static_cast<float>((low | two_bits(b.high, e) << 4) - 32);
  });
}

template <class Block>
Block read(const std::byte* row, i64 index) {
  Block block;
  std::memcpy(&block, row + index * block_bytes(Block::dtype), sizeof block);
  return block;
}

}  // namespace

std::array<u8, 12> packed_scales(const GroupScales& scales) {
  std::array<u8, 12> packed;
  for (size_t g = 0; g < 4; ++g) {
    const int s = scales.s[g + 4], m = scales.m[g + 4];
    packed[g] = static_cast<u8>(scales.s[g] | s >> 4 << 6);
    packed[g + 4] = static_cast<u8>(scales.m[g] | m >> 4 << 6);
    packed[g + 8] = static_cast<u8>((s & 15) | (m & 15) << 4);
  }
  return packed;
}

std::array<i8, 16> q3_scales(const std::array<u8, 12>& packed) {
  std::array<i8, 16> scales;
  for (size_t g = 0; g < 16; ++g) {
    const int low = packed[g % 8] >> (g < 8 ? 0 : 4) & 15, high = packed[8 + g % 4] >> (2 * (g / 4)) & 3;
    scales[g] = static_cast<i8>((low | high << 4) - 32);
  }
  return scales;
}

std::array<u8, 12> packed_q3_scales(const std::array<i8, 16>& scales) {
  std::array<u8, 12> packed{};
  for (size_t g = 0; g < 16; ++g) {
    const int s = scales[g] + 32;
    packed[g % 8] = static_cast<u8>(packed[g % 8] | (s & 15) << (g < 8 ? 0 : 4));
    packed[8 + g % 4] = static_cast<u8>(packed[8 + g % 4] | s >> 4 << (2 * (g / 4)));
  }
  return packed;
}

void dequantize_row(DType dtype, const std::byte* row, std::span<float> y) {
  with_block(dtype, [&]<class Block>(Block) {
    const i64 blocks = static_cast<i64>(y.size()) / block_size(dtype);
    check(blocks * block_size(dtype) == static_cast<i64>(y.size()), "a row of {} elements of {}", y.size(),
          name_of(dtype));
    for (i64 i = 0; i < blocks; ++i) dequantize(read<Block>(row, i), y.data() + i * block_size(dtype));
  });
}

float block_element(DType dtype, const std::byte* row, i64 index) {
  return with_block(dtype, [&]<class Block>(Block) {
    std::array<float, static_cast<size_t>(block_size(Block::dtype))> y;
    dequantize(read<Block>(row, index / block_size(dtype)), y.data());
    return y[static_cast<size_t>(index % block_size(dtype))];
  });
}

}  // namespace sparsam
