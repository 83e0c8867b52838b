#include "measure/finite.h"

#include <algorithm>
#include <vector>

#include "base/threads.h"

namespace sparsam {

namespace {

// Index of the first element whose exponent is all ones, or `size`. T: the bits of one element.
template <class T>
i64 first_not_finite(const T* bits, i64 size, T exponent) {
  std::vector<i64> found(static_cast<size_t>(threads()), size);
  parallel_ranges(size, i64{1} << 16, [&](int thread, i64 begin, i64 end) {
    constexpr i64 block = 1024;  // a branch a block lets the inner loop become vector code
    for (i64 i = begin; i < end; i += block) {
      const i64 stop = std::min(end, i + block);
      bool bad = false;
      for (i64 j = i; j < stop; ++j) bad |= (bits[j] & exponent) == exponent;
      if (!bad) continue;
      found[static_cast<size_t>(thread)] =
          std::find_if(bits + i, bits + stop, [=](T b) { return (b & exponent) == exponent; }) - bits;
      return;
    }
  });
  return *std::min_element(found.begin(), found.end());
}

i64 first_not_finite(const Matrix& m) {
  switch (m.dtype) {
    case DType::f32:
      return first_not_finite<u32>(m.as<u32>(), m.size(), 0x7f800000);
    case DType::f16:
      return first_not_finite<u16>(m.as<u16>(), m.size(), 0x7c00);
    case DType::bf16:
      return first_not_finite<u16>(m.as<u16>(), m.size(), 0x7f80);
    default:
      return m.size();  // integers
  }
}

}  // namespace

void check_finite(const Model& model, std::string_view where) {
  for_each_parameter(
      parameter_specs(model.config),
      [&](const std::string& name, const ParameterSpec&, const Matrix& matrix) {
        const i64 place = first_not_finite(matrix);
        if (place < matrix.size())
          fail("{}: tensor {} holds {} at ({}, {}), expected finite numbers", where, name,
               matrix.at(place / matrix.cols, place % matrix.cols), place / matrix.cols, place % matrix.cols);
      },
      model.weights);
}

}  // namespace sparsam
