// The number formats in which weights and caches are stored: plain ones, and GGML's quantised ones, in which blocks of
// elements share scales (blocks.h).
#pragma once

#include <array>
#include <bit>
#include <optional>
#include <string_view>

#include "base/error.h"
#include "base/types.h"

namespace sparsam {

// clang-format off
enum class DType : u8 {
  f32, f16, bf16, f64, u8, u16, u32, i32, i64,                         // one number an element
  q8_0, q4_0, q4_1, q5_0, q5_1, q2_k, q3_k, q4_k, q5_k, q6_k, iq4_nl,  // blocks of elements
};
// clang-format on

namespace detail {
struct DTypeFacts {
  std::string_view name;
  sparsam::i64 block_size, block_bytes;
};
inline constexpr std::array<DTypeFacts, 20> dtype_facts{{
    {"f32", 1, 4},      {"f16", 1, 2},      {"bf16", 1, 2},     {"f64", 1, 8},      {"u8", 1, 1},
    {"u16", 1, 2},      {"u32", 1, 4},      {"i32", 1, 4},      {"i64", 1, 8},      {"q8_0", 32, 34},
    {"q4_0", 32, 18},   {"q4_1", 32, 20},   {"q5_0", 32, 22},   {"q5_1", 32, 24},   {"q2_k", 256, 84},
    {"q3_k", 256, 110}, {"q4_k", 256, 144}, {"q5_k", 256, 176}, {"q6_k", 256, 210}, {"iq4_nl", 32, 18},
}};
constexpr const DTypeFacts& facts_of(DType dtype) { return dtype_facts[static_cast<size_t>(dtype)]; }
}  // namespace detail

constexpr std::string_view name_of(DType dtype) { return detail::facts_of(dtype).name; }  // "f32", "q4_k", ...
std::optional<DType> dtype_from_name(std::string_view name);                              // of those names

constexpr i64 block_size(DType dtype) { return detail::facts_of(dtype).block_size; }    // elements; plain: 1
constexpr i64 block_bytes(DType dtype) { return detail::facts_of(dtype).block_bytes; }  // bytes of that many elements
constexpr bool is_quantised(DType dtype) { return block_size(dtype) > 1; }
// Bytes of one element; a quantised format has no such number.
constexpr i64 size_of(DType dtype) {
  if (is_quantised(dtype)) check(false, "size_of({}): elements of a block have no size", name_of(dtype));
  return block_bytes(dtype);
}
// Bytes of `elements` elements, which are whole blocks: rows of a file are checked to be, by their reader.
constexpr i64 bytes_for(DType dtype, i64 elements) {
  if (elements % block_size(dtype) != 0)
    check(false, "{} elements of {}: blocks have {}", elements, name_of(dtype), block_size(dtype));
  return elements / block_size(dtype) * block_bytes(dtype);
}

// Scalar conversions; round to nearest even. NaN stays NaN, overflow of f16 becomes infinity.
constexpr float bf16_to_float(u16 bits) { return std::bit_cast<float>(static_cast<u32>(bits) << 16); }
constexpr u16 float_to_bf16(float value) {
  const u32 bits = std::bit_cast<u32>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<u16>((bits >> 16) | 0x40);  // keep NaN quiet
  return static_cast<u16>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}
float f16_to_float(u16 bits);
u16 float_to_f16(float value);

}  // namespace sparsam
