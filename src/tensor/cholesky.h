// The triangular root of a Gram matrix.
#pragma once

#include <vector>

#include "base/types.h"

namespace sparsam {

// R (d, d), upper triangular, with R^T R = G for a positive semidefinite G, of which the upper triangle is read
// (Cholesky's): |R x|^2 = x^T G x. Where a pivot is 0 up to rounding, as beyond the rank of G, its row is 0.
std::vector<double> cholesky(std::vector<double> gram, size_t d);

}  // namespace sparsam
