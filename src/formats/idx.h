// IDX: arrays of numbers as MNIST is published in, plain or packed with gzip.
//   bytes 0..3   0, 0, type, axes          type: 8 u8, 12 i32, 13 f32, 14 f64
//   then         a length for each axis, u32 big endian, then the numbers, row-major, big endian
// Source: "The IDX file format", yann.lecun.com/exdb/mnist.
#pragma once

#include <vector>

#include "base/files.h"
#include "formats/safetensors.h"

namespace sparsam {

struct IdxArray {
  DType dtype = DType::u8;
  std::vector<i64> shape;
  std::vector<std::byte> bytes;  // row-major, little endian

  TensorEntry entry() const { return {.name = "data", .dtype = dtype, .shape = shape, .bytes = bytes}; }
};

// Errors name the file and what was found; the numbers must be as many as the shape says, to the byte. Memory stays
// within what the file holds: of a packed one, no more is unpacked than the shape says, and no more than gzip can pack.
IdxArray read_idx(const fs::path& path);

}  // namespace sparsam
