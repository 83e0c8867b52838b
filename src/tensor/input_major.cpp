#include "tensor/input_major.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/threads.h"

namespace sparsam {

namespace {

// The integers of one block of each of `outputs` rows, from `first` on: to[input][output], and their scales.
struct BlockColumn {
  std::vector<std::array<i8, InputMajor::block>> integers;
  std::vector<u16> scales;
};
template <class Block>
void read_block_column(const Matrix& w, i64 block, BlockColumn& column) {
  for (i64 o = 0; o < w.rows; ++o) {
    Block b;
    std::memcpy(&b, w.row(o) + block * static_cast<i64>(sizeof(Block)), sizeof(Block));
    column.scales[static_cast<size_t>(o)] = b.d.bits();
    auto& integers = column.integers[static_cast<size_t>(o)];
    if constexpr (Block::dtype == DType::q8_0)
      integers = b.q;
    else
      for (size_t e = 0; e < 16; ++e)
        integers[e] = static_cast<i8>(b.q[e] & 15), integers[e + 16] = static_cast<i8>(b.q[e] >> 4);
  }
}

void write_block(const BlockColumn& column, const InputMajor& to, std::byte* data, i64 block) {
  const auto put = [data, &to](const std::byte* at) { return data + (at - to.bytes.data()); };
  std::memcpy(put(to.scales(block)), column.scales.data(), column.scales.size() * 2);
  for (i64 i = 0; i < InputMajor::block; ++i) {
    auto* row = reinterpret_cast<u8*>(put(to.row(block * InputMajor::block + i)));
    const auto integer = [&](size_t o) { return static_cast<u8>(column.integers[o][static_cast<size_t>(i)]); };
    if (to.dtype == DType::q8_0)
      for (size_t o = 0; o < column.integers.size(); ++o) row[o] = integer(o);
    else
      for (size_t o = 0; o < column.integers.size(); o += 32)
        for (size_t e = 0; e < 16; ++e) row[o / 2 + e] = static_cast<u8>(integer(o + e) | integer(o + e + 16) << 4);
  }
}

template <class Element>
void transpose(const Matrix& w, std::byte* bytes) {
  auto* to = reinterpret_cast<Element*>(bytes);
  constexpr i64 at_once = 16;  // inputs: a cache line of each row
  parallel_ranges(w.cols, at_once, [&](int, i64 begin, i64 end) {
    for (i64 first = begin; first < end; first += at_once)
      for (i64 o = 0; o < w.rows; ++o)
        for (i64 i = first; i < std::min(first + at_once, end); ++i)
          to[i * w.rows + o] = w.as<Element>()[o * w.cols + i];
  });
}

}  // namespace

bool InputMajor::holds(DType dtype) {
  constexpr std::array held{DType::f32, DType::bf16, DType::f16, DType::q8_0, DType::q4_0};
  return std::find(held.begin(), held.end(), dtype) != held.end();
}

i64 InputMajor::bytes_for(DType dtype, i64 rows, i64 cols) {
  const InputMajor shape{dtype, rows, cols, {}};
  return rows * shape.row_bytes() + shape.scale_bytes((rows + block - 1) / block);
}

float InputMajor::at(i64 row_, i64 col) const {
  const std::byte* at = row(row_);
  if (!is_quantised(dtype)) return Matrix{dtype, 1, cols, {at, static_cast<size_t>(row_bytes())}}.at(0, col);
  u16 d = 0;
  std::memcpy(&d, scales(row_ / block) + col * 2, 2);
  const auto byte = [at](i64 i) { return std::to_integer<u8>(at[i]); };
  const int q = dtype == DType::q8_0 ? static_cast<i8>(byte(col))
                                     : (byte(col / 32 * 16 + col % 16) >> (col % 32 < 16 ? 0 : 4) & 15) - 8;
  return f16_to_float(d) * static_cast<float>(q);
}

InputMajor input_major(const Matrix& weight, std::span<std::byte> bytes) {
  const InputMajor result{weight.dtype, weight.cols, weight.rows, bytes};
  check(InputMajor::holds(weight.dtype) &&
            static_cast<i64>(bytes.size()) == InputMajor::bytes_for(weight.dtype, weight.cols, weight.rows),
        "a weight ({}, {}) of dtype {} by inputs in {} bytes", weight.rows, weight.cols, name_of(weight.dtype),
        bytes.size());
  if (!is_quantised(weight.dtype)) {
    size_of(weight.dtype) == 2 ? transpose<u16>(weight, bytes.data()) : transpose<u32>(weight, bytes.data());
    return result;
  }
  const auto room = static_cast<size_t>(result.room());
  parallel_ranges(weight.cols / InputMajor::block, 1, [&](int, i64 begin, i64 end) {
    BlockColumn column{std::vector<std::array<i8, InputMajor::block>>(room), std::vector<u16>(room)};
    for (i64 b = begin; b < end; ++b) {
      if (weight.dtype == DType::q8_0)
        read_block_column<BlockQ8_0>(weight, b, column);
      else
        read_block_column<BlockQ4_0>(weight, b, column);
      write_block(column, result, bytes.data(), b);
    }
  });
  return result;
}

}  // namespace sparsam
