#include "levers/growth.h"

#include <cmath>
#include <cstring>

namespace sparsam {

MutableMatrix GrownStorage::allocate(DType dtype, i64 rows, i64 cols) {
  return {dtype, rows, cols, made.emplace_back(bytes_for(dtype, rows * cols)).bytes()};
}

Matrix GrownStorage::zeros(DType dtype, i64 rows, i64 cols) {
  const MutableMatrix matrix = allocate(dtype, rows, cols);
  std::memset(matrix.bytes.data(), 0, matrix.bytes.size());
  return matrix;
}

Matrix GrownStorage::extended(const Matrix& old, i64 rows, i64 cols, std::span<const float> fresh) {
  const MutableMatrix result = allocate(old.dtype, rows, cols);
  const i64 size = size_of(old.dtype);
  auto next = fresh.begin();
  for (i64 r = 0; r < rows; ++r) {
    const i64 kept = r < old.rows ? old.cols : 0;
    if (kept > 0) std::memcpy(result.bytes.data() + r * cols * size, old.row(r), static_cast<size_t>(kept * size));
    for (i64 c = kept; c < cols; ++c) result.set(r, c, *next++);
  }
  return result;
}

Matrix GrownStorage::rows(const Matrix& from, std::span<const i64> which) {
  if (from.empty()) return {};
  const i64 bytes = from.row_bytes();
  const MutableMatrix to = allocate(from.dtype, static_cast<i64>(which.size()), from.cols);
  for (i64 r = 0; r < to.rows; ++r)
    std::memcpy(to.bytes.data() + r * bytes, from.row(which[static_cast<size_t>(r)]), static_cast<size_t>(bytes));
  return to;
}

Matrix GrownStorage::columns(const Matrix& from, std::span<const i64> which) {
  if (from.empty()) return {};
  const i64 cols = static_cast<i64>(which.size()), size = size_of(from.dtype);
  const MutableMatrix to = allocate(from.dtype, from.rows, cols);
  for (i64 r = 0; r < from.rows; ++r)
    for (i64 c = 0; c < cols; ++c)
      std::memcpy(to.bytes.data() + (r * cols + c) * size, from.row(r) + which[static_cast<size_t>(c)] * size,
                  static_cast<size_t>(size));
  return to;
}

std::vector<float> drawn(i64 size, double deviation, Random random) {
  std::vector<float> values(static_cast<size_t>(size));
  for (float& value : values) value = static_cast<float>(deviation * random.normal());
  return values;
}

double root_mean_square(const Matrix& matrix) {
  double squares = 0;
  std::vector<float> row(static_cast<size_t>(matrix.cols));
  for (i64 r = 0; r < matrix.rows; ++r) {
    read_row(matrix, r, row);
    for (const float x : row) squares += double{x} * x;
  }
  return std::sqrt(squares / static_cast<double>(matrix.rows * matrix.cols));
}

void require_real(const Matrix& matrix, const std::string& name) {
  if (is_quantised(matrix.dtype))
    fail("grow: {} is quantised ({}); expected f32, bf16 or f16: quantise after growing", name, name_of(matrix.dtype));
}

}  // namespace sparsam
