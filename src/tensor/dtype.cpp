#include "tensor/dtype.h"

#include <cmath>

namespace sparsam {

std::optional<DType> dtype_from_name(std::string_view name) {
  for (size_t i = 0; i < detail::dtype_facts.size(); ++i)
    if (detail::dtype_facts[i].name == name) return static_cast<DType>(i);
  return std::nullopt;
}

float f16_to_float(u16 bits) {
  const u32 sign = static_cast<u32>(bits & 0x8000) << 16, exponent = (bits >> 10) & 31, fraction = bits & 0x3ff;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (fraction << 13));
  if (exponent == 0) {  // zero and subnormals: fraction * 2^-24
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (fraction << 13));
}

u16 float_to_f16(float value) {
  const u32 bits = std::bit_cast<u32>(value);
  const u16 sign = static_cast<u16>((bits >> 16) & 0x8000);
  const u32 magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<u16>(sign | 0x7e00);   // NaN
  if (magnitude >= 0x477ff000u) return static_cast<u16>(sign | 0x7c00);  // rounds to 65520 or more: infinity
  if (magnitude < 0x38800000u) {                                         // below 2^-14: a multiple of 2^-24
    const float scaled = std::bit_cast<float>(magnitude) * 0x1p24f;
    return static_cast<u16>(sign | static_cast<u16>(std::nearbyint(scaled)));
  }
  const u32 rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1);
  return static_cast<u16>(sign | ((rounded - 0x38000000u) >> 13));
}

}  // namespace sparsam
