// Where skipping rows of a weight stops being faster than reading all of it.
#pragma once

#include <span>

#include "ops/ops.h"

namespace sparsam {

// The fraction of live rows above which Matmul is faster than SelectedMatmul for `rows` rows of x; 1: nowhere. Measured
// on weights of one shape, which are read in turns: the least seconds of dense and of sparse products at a few
// fractions, interpolated. It takes about forty readings of one weight.
float selection_crossover(std::span<const Matrix> weights, i64 rows, Backend& backend);

// The fraction of live inputs above which Matmul is faster than SkippingMatmul, 1: nowhere. The two add in different
// orders, so this is a rule and nothing that is measured anew: results repeat bit for bit. Measured on two cores of a
// Xeon (docs/sparsity.md): skipping reads on where rows are long; the dense product of q4_0, and of several rows of x,
// is bound by arithmetic, of which skipping needs less.
float skipping_crossover(const InputMajor& weight, i64 rows);

}  // namespace sparsam
