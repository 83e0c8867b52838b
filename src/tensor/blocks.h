// Quantised blocks, byte for byte GGML's (ggml-common.h), so that rows of a GGUF file are used as they lie in it. All
// numbers are little-endian; `half` is an IEEE f16. Element e of a block has the value written beside its struct, in
// float32, each product and sum rounded in the order written: the same bits as llama.cpp's.
//   32 elements, one scale       q8_0 q4_0 q5_0 iq4_nl         y = d q
//   32 elements, scale and base  q4_1 q5_1                     y = d q + m
//   256 elements, 8 or 16 groups with scales of their own, whose unit is the block's:
//                                q3_k q6_k                     y = (d s) q
//                                q2_k q4_k q5_k                y = (d s) q - (dmin m)
// Files may hold any bytes: an infinite or NaN scale makes the block's elements infinite or NaN, nothing else.
#pragma once

#include <array>
#include <cstring>
#include <span>

#include "tensor/dtype.h"

namespace sparsam {

struct Half {
  u8 low, high;  // no alignment: rows lie anywhere
  u16 bits() const { return static_cast<u16>(low | high << 8); }
  float value() const { return f16_to_float(bits()); }
  static Half of(float value) {
    const u16 bits = float_to_f16(value);
    return {static_cast<u8>(bits & 0xff), static_cast<u8>(bits >> 8)};
  }
};

struct BlockQ8_0 {  // q = q[e]
  static constexpr DType dtype = DType::q8_0;
  Half d;
  std::array<i8, 32> q;
};
struct BlockQ4_0 {  // q = nibble - 8; nibble e: the low half of q[e], or the high half of q[e - 16]
  static constexpr DType dtype = DType::q4_0;
  Half d;
  std::array<u8, 16> q;
};
struct BlockQ4_1 {  // q = nibble, as in q4_0
  static constexpr DType dtype = DType::q4_1;
  Half d, m;
  std::array<u8, 16> q;
};
struct BlockQ5_0 {  // q = nibble + 16 (bit e of high) - 16
  static constexpr DType dtype = DType::q5_0;
  Half d;
  std::array<u8, 4> high;
  std::array<u8, 16> q;
};
struct BlockQ5_1 {  // q = nibble + 16 (bit e of high)
  static constexpr DType dtype = DType::q5_1;
  Half d, m;
  std::array<u8, 4> high;
  std::array<u8, 16> q;
};
struct BlockIq4Nl {  // q = iq4_values[nibble], as in q4_0
  static constexpr DType dtype = DType::iq4_nl;
  Half d;
  std::array<u8, 16> q;
};
inline constexpr std::array<i8, 16> iq4_values{-127, -104, -83, -65, -49, -35, -22, -10,
                                               1,    13,   25,  38,  53,  69,  89,  113};

// In the blocks of 256, "two bits e" are bits 2 (e / 32 % 4) of byte e / 128 * 32 + e % 32, and "nibble e" is the low
// (e / 32 even) or high half of byte e / 64 * 32 + e % 32.
struct BlockQ2K {  // q = two bits e; group e / 16: s = low half of scales[], m = high half
  static constexpr DType dtype = DType::q2_k;
  std::array<u8, 16> scales;
  std::array<u8, 64> q;
  Half d, dmin;
};
struct BlockQ3K {  // q = two bits e + 4 (bit e / 32 of high[e % 32]) - 4; group e / 16: s of 6 bits, less 32
  static constexpr DType dtype = DType::q3_k;
  std::array<u8, 32> high;
  std::array<u8, 64> q;
  std::array<u8, 12> scales;  // see group_scales()
  Half d;
};
struct BlockQ4K {  // q = nibble e; group e / 32: s and m of 6 bits
  static constexpr DType dtype = DType::q4_k;
  Half d, dmin;
  std::array<u8, 12> scales;  // see group_scales()
  std::array<u8, 128> q;
};
struct BlockQ5K {  // q = nibble e + 16 (bit e / 32 of high[e % 32]); groups as in q4_k
  static constexpr DType dtype = DType::q5_k;
  Half d, dmin;
  std::array<u8, 12> scales;
  std::array<u8, 32> high;
  std::array<u8, 128> q;
};
struct BlockQ6K {  // q = four bits + 16 (two bits e) - 32, where the four bits are the low (e / 64 even) or high half
                   // of
  static constexpr DType dtype = DType::q6_k;  // byte e / 128 * 64 + e % 64; group e / 16: s = scales[]
  std::array<u8, 128> q;
  std::array<u8, 64> high;
  std::array<i8, 16> scales;
  Half d;
};

// The packed 6-bit numbers. q4_k, q5_k: bytes 0-3 hold s of groups 0-3 in their low six bits, bytes 4-7 m of these;
// bytes 8-11 hold the low four bits of s (low half) and m (high half) of groups 4-7, whose upper two bits are the upper
// two bits of bytes 0-3 (s) and 4-7 (m). q3_k: the low four bits of s of groups 0-7 are the low halves of bytes 0-7, of
// groups 8-15 the high halves; the upper two of group g are bits 2 (g / 4) of byte 8 + g % 4.
struct GroupScales {
  std::array<u8, 8> s, m;
};
inline GroupScales group_scales(const std::array<u8, 12>& packed) {  // of q4_k and q5_k
  std::array<u32, 3> p;                                              // four bytes at a time
  std::memcpy(p.data(), packed.data(), sizeof p);
  const std::array<u32, 2> s{p[0] & 0x3f3f3f3f, (p[2] & 0x0f0f0f0f) | (p[0] >> 2 & 0x30303030)};
  const std::array<u32, 2> m{p[1] & 0x3f3f3f3f, (p[2] >> 4 & 0x0f0f0f0f) | (p[1] >> 2 & 0x30303030)};
  return {std::bit_cast<std::array<u8, 8>>(s), std::bit_cast<std::array<u8, 8>>(m)};
}
std::array<u8, 12> packed_scales(const GroupScales& scales);     // the reverse
std::array<i8, 16> q3_scales(const std::array<u8, 12>& packed);  // of q3_k, less 32
std::array<u8, 12> packed_q3_scales(const std::array<i8, 16>& scales);

// Calls body(block type) with a value of the block's struct; `dtype` is quantised.
template <class Body>
decltype(auto) with_block(DType dtype, Body&& body) {
  switch (dtype) {
    case DType::q8_0:
      return body(BlockQ8_0{});
    case DType::q4_0:
      return body(BlockQ4_0{});
    case DType::q4_1:
      return body(BlockQ4_1{});
    case DType::q5_0:
      return body(BlockQ5_0{});
    case DType::q5_1:
      return body(BlockQ5_1{});
    case DType::q2_k:
      return body(BlockQ2K{});
    case DType::q3_k:
      return body(BlockQ3K{});
    case DType::q4_k:
      return body(BlockQ4K{});
    case DType::q5_k:
      return body(BlockQ5K{});
    case DType::q6_k:
      return body(BlockQ6K{});
    default:
      check(dtype == DType::iq4_nl, "{} has no blocks", name_of(dtype));
      return body(BlockIq4Nl{});
  }
}

// A row of blocks as numbers; its elements are y.size(), whole blocks.
void dequantize_row(DType dtype, const std::byte* row, std::span<float> y);
// One of them.
float block_element(DType dtype, const std::byte* row, i64 index);

// The blocks of a row of numbers, whole blocks of them; writes bytes_for(dtype, x.size()) bytes. The scales are
// searched so that sum_e w_e (x_e - y_e)^2 is small, where w_e is the importance of the column (its mean squared input;
// at least 0) or, without any, the same for all. Numbers must be finite: others are the caller's to refuse.
void quantize_row(DType dtype, std::span<const float> x, std::span<const float> importance, std::byte* row);

}  // namespace sparsam
