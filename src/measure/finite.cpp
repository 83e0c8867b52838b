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

// The same of blocks: one is finite if its scales are. Returns the first element of a block that is not.
template <class Block>
i64 first_not_finite_block(const Block* blocks, i64 size) {
  const auto bad = [](const Block& block) {
    const auto infinite = [](const Half& half) { return (half.bits() & 0x7c00) == 0x7c00; };
    bool any = infinite(block.d);
    if constexpr (requires { block.m; }) any |= infinite(block.m);
    if constexpr (requires { block.dmin; }) any |= infinite(block.dmin);
    return any;
  };
  const i64 count = size / block_size(Block::dtype);
  std::vector<i64> found(static_cast<size_t>(threads()), size);
  parallel_ranges(count, i64{1} << 12, [&](int thread, i64 begin, i64 end) {
    const Block* place = std::find_if(blocks + begin, blocks + end, bad);
    if (place != blocks + end) found[static_cast<size_t>(thread)] = (place - blocks) * block_size(Block::dtype);
  });
  return *std::min_element(found.begin(), found.end());
}

i64 first_not_finite(const Matrix& m) {
  if (is_quantised(m.dtype))
    return with_block(m.dtype, [&]<class Block>(Block) { return first_not_finite_block(m.as<Block>(), m.size()); });
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
