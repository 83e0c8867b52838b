// The number formats in which weights and caches are stored.
#pragma once

#include <bit>
#include <optional>
#include <string_view>

#include "base/types.h"

namespace sparsam {

enum class DType : u8 { f32, f16, bf16, f64, u8, u16, u32, i32, i64 };

constexpr i64 size_of(DType dtype) {
  switch (dtype) {
    case DType::u8:
      return 1;
    case DType::f16:
    case DType::bf16:
    case DType::u16:
      return 2;
    case DType::f32:
    case DType::u32:
    case DType::i32:
      return 4;
    case DType::f64:
    case DType::i64:
      return 8;
  }
  return 0;
}
std::string_view name_of(DType dtype);                        // "f32", "bf16", ...
std::optional<DType> dtype_from_name(std::string_view name);  // of those names

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
