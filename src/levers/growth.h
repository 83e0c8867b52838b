// What the ways to grow, shrink and sort a model share.
#pragma once

#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "model/model.h"

namespace sparsam {

// What the numbers of a Model are: its weights; or moments of an optimizer, shaped alike, which grow as the gradient
// (its square) of the grown model follows from that of the model. Weights that are new have moments of 0.
enum class Numbers : u8 { weights, first_moments, second_moments };

// Matrices made beside those of a model, which it keeps alive.
struct GrownStorage {
  std::shared_ptr<const void> original;
  std::deque<Buffer> made = {};

  MutableMatrix allocate(DType dtype, i64 rows, i64 cols);
  Matrix zeros(DType dtype, i64 rows, i64 cols);
  // The old matrix in the upper left corner, the new numbers beside it row by row, in its number format.
  Matrix extended(const Matrix& old, i64 rows, i64 cols, std::span<const float> fresh);
  // Some rows or columns in the order given; of an empty matrix none. Columns of plain numbers alone.
  Matrix rows(const Matrix& from, std::span<const i64> which);
  Matrix columns(const Matrix& from, std::span<const i64> which);
};

std::vector<float> drawn(i64 size, double deviation, Random random);  // normal
double root_mean_square(const Matrix& matrix);
// Error: quantised matrices do not grow.
void require_real(const Matrix& matrix, const std::string& name);

}  // namespace sparsam
