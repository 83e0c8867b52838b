// Where skipping what does not count of a weight stops being faster than reading all of it.
#pragma once

#include <span>
#include <utility>

#include "model/config.h"
#include "ops/ops.h"

namespace sparsam {

// The fraction of live rows above which Matmul is faster than SelectedMatmul for `rows` rows of x; 1: nowhere. Measured
// on weights of one shape, which are read in turns: the least seconds of dense and of sparse products at a few
// fractions, interpolated. It takes about forty readings of one weight.
float selection_crossover(std::span<const Matrix> weights, i64 rows, Backend& backend);

// The same for the fraction of live inputs, Matmul and SkippingMatmul.
float skipping_crossover(std::span<const std::pair<Matrix, InputMajor>> weights, i64 rows, Backend& backend);

// That which the model brings with it for such a weight; else a rule, made from measurements on two cores of a Xeon
// (docs/sparsity.md): skipping reads on where rows are long, and for several rows of x, of which it needs less
// arithmetic. Nothing that is measured anew: the two products add in different orders, and results repeat bit for bit.
float skipping_crossover(const Config& config, const InputMajor& weight, i64 rows);

}  // namespace sparsam
