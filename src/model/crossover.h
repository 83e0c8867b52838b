// Where skipping rows of a weight stops being faster than reading all of it.
#pragma once

#include <span>

#include "ops/ops.h"

namespace sparsam {

// The fraction of live rows above which Matmul is faster than SelectedMatmul for `rows` rows of x; 1: nowhere. Measured
// on weights of one shape, which are read in turns: dense and sparse products in pairs, medians of their ratios at a
// few fractions, interpolated. It takes about thirty readings of one weight.
float selection_crossover(std::span<const Matrix> weights, i64 rows, Backend& backend);

}  // namespace sparsam
