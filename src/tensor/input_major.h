// InputMajor: a weight stored input by input, so that what one input adds to a product lies together: decoding with
// sparse inputs reads the rows of live ones alone. The numbers are the weight's own, bit for bit. Rows are whole: in
// narrower strips reading all of them is faster, but reading few, which this is for, a third slower.
//   f32 bf16 f16  row i is column i of the weight
//   q8_0 q4_0     each 32 inputs are the f16 scales of all outputs, then a row of integers for each input. Rows have
//                 room for a multiple of 32 outputs; a byte holds one of q8_0, or of q4_0 the nibbles of outputs e and
//                 e + 16 of each 32, as in its blocks. As many bytes as the weight where it has whole 32 outputs.
// The other quantised formats keep scales of several levels, or bases, and are not stored so.
#pragma once

#include "tensor/matrix.h"

namespace sparsam {

struct InputMajor {
  static constexpr i64 block = 32;  // inputs that share a scale, and outputs whose nibbles lie together

  DType dtype = DType::f32;
  i64 rows = 0, cols = 0;  // inputs, outputs
  std::span<const std::byte> bytes;

  static bool holds(DType dtype);
  static i64 bytes_for(DType dtype, i64 rows, i64 cols);

  bool empty() const { return bytes.data() == nullptr; }
  i64 row_bytes() const {  // without scales
    return is_quantised(dtype) ? room() * (dtype == DType::q8_0 ? 2 : 1) / 2 : cols * size_of(dtype);
  }
  const std::byte* row(i64 index) const { return bytes.data() + index * row_bytes() + scale_bytes(index / block + 1); }
  const std::byte* scales(i64 index) const {  // those of the block of 32 inputs
    return bytes.data() + index * block * row_bytes() + scale_bytes(index);
  }
  // Bytes of one input and its share of the scales.
  double bytes_per_row() const { return static_cast<double>(bytes.size()) / static_cast<double>(rows); }
  i64 room() const { return (cols + block - 1) / block * block; }  // outputs of a row, with its padding
  float at(i64 row, i64 col) const;

 private:
  i64 scale_bytes(i64 blocks) const { return is_quantised(dtype) ? blocks * room() * 2 : 0; }
};

// The weight (out, in) in `bytes`, which has room for bytes_for(dtype, in, out).
InputMajor input_major(const Matrix& weight, std::span<std::byte> bytes);

}  // namespace sparsam
