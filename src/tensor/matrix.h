// Matrix: a stored weight (or cache) of any dtype, row-major. It owns nothing: the bytes lie in a mapped file, in the
// flat buffer of the weights being trained, or in a cache. Of a quantised dtype each row is whole blocks.
#pragma once

#include <span>

#include "base/error.h"
#include "tensor/blocks.h"
#include "tensor/dtype.h"
#include "tensor/view.h"

namespace sparsam {

struct Matrix {
  DType dtype = DType::f32;
  i64 rows = 0, cols = 0;
  std::span<const std::byte> bytes;

  bool empty() const { return bytes.data() == nullptr; }
  i64 size() const { return empty() ? 0 : rows * cols; }
  template <class T>
  const T* as() const {
    return reinterpret_cast<const T*>(bytes.data());
  }
  i64 row_bytes() const { return bytes_for(dtype, cols); }
  const std::byte* row(i64 index) const { return bytes.data() + index * row_bytes(); }
  // Rows [begin, begin + length).
  Matrix slice(i64 begin, i64 length) const {
    return {dtype, length, cols,
            bytes.subspan(static_cast<size_t>(begin * row_bytes()), static_cast<size_t>(length * row_bytes()))};
  }
  // One element, converted: for reference code and small tensors.
  template <class Real = float>
  Real at(i64 row, i64 col) const {
    const i64 i = row * cols + col;
    switch (dtype) {
      case DType::f32:
        return static_cast<Real>(as<float>()[i]);
      case DType::f64:
        return static_cast<Real>(as<double>()[i]);
      case DType::bf16:
        return static_cast<Real>(bf16_to_float(as<u16>()[i]));
      case DType::f16:
        return static_cast<Real>(f16_to_float(as<u16>()[i]));
      default:
        check(is_quantised(dtype), "matrix of dtype {} read as real numbers", name_of(dtype));
        return static_cast<Real>(block_element(dtype, this->row(row), col));
    }
  }
};

// One row as floats; y has m.cols of them.
inline void read_row(const Matrix& m, i64 row, std::span<float> y) {
  if (is_quantised(m.dtype)) return dequantize_row(m.dtype, m.row(row), y);
  for (size_t i = 0; i < y.size(); ++i) y[i] = m.at(row, static_cast<i64>(i));
}

// A Matrix that may be written: the key-value cache.
struct MutableMatrix {
  DType dtype = DType::f32;
  i64 rows = 0, cols = 0;
  std::span<std::byte> bytes;

  operator Matrix() const { return {dtype, rows, cols, bytes}; }  // NOLINT(google-explicit-constructor)
  bool empty() const { return bytes.data() == nullptr; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(bytes.data());
  }
  template <class Real>
  void set(i64 row, i64 col, Real value) const {
    const i64 i = row * cols + col;
    switch (dtype) {
      case DType::f32:
        as<float>()[i] = static_cast<float>(value);
        break;
      case DType::f64:
        as<double>()[i] = static_cast<double>(value);
        break;
      case DType::bf16:
        as<u16>()[i] = float_to_bf16(static_cast<float>(value));
        break;
      case DType::f16:
        as<u16>()[i] = float_to_f16(static_cast<float>(value));
        break;
      default:
        check(false, "matrix of dtype {} written as real numbers", name_of(dtype));
    }
  }
};

template <class T>
constexpr DType dtype_of();
template <>
constexpr DType dtype_of<float>() {
  return DType::f32;
}
template <>
constexpr DType dtype_of<double>() {
  return DType::f64;
}

// A view of floats or doubles as a matrix; a vector (n) is one row (1, n).
template <class T>
Matrix as_matrix(View<T, 2> view) {
  return {dtype_of<std::remove_const_t<T>>(), view.shape(0), view.shape(1), std::as_bytes(view.span())};
}
template <class T>
Matrix as_matrix(View<T, 1> view) {
  return as_matrix(view.as(1, view.shape(0)));
}
// An f32 matrix as a view; check() when it is of another dtype.
inline In<float, 2> as_view(const Matrix& m) {
  check(m.dtype == DType::f32, "matrix of dtype {} viewed as f32", name_of(m.dtype));
  return {m.as<float>(), {m.rows, m.cols}};
}
inline In<float, 1> as_vector(const Matrix& m) {
  if (m.empty()) return {};
  check(m.dtype == DType::f32 && m.rows == 1, "matrix ({}, {}) of dtype {} viewed as an f32 vector", m.rows, m.cols,
        name_of(m.dtype));
  return {m.as<float>(), {m.cols}};
}

}  // namespace sparsam
