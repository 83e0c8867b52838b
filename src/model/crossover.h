// Where skipping rows of a weight stops being faster than reading all of it.
#pragma once

#include <span>

#include "ops/ops.h"

namespace sparsam {

// The fraction of live rows above which Matmul is faster than SelectedMatmul for `rows` rows of x; 1: nowhere. Measured
// on weights of one shape, which are read in turns: the least seconds of dense and of sparse products at a few
// fractions, interpolated. It takes about forty readings of one weight.
float selection_crossover(std::span<const Matrix> weights, i64 rows, Backend& backend);

}  // namespace sparsam
