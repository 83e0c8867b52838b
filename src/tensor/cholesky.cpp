#include "tensor/cholesky.h"

#include <algorithm>
#include <cmath>

#include "base/threads.h"

namespace sparsam {

std::vector<double> cholesky(std::vector<double> G, size_t d) {
  double largest = 0;
  for (size_t i = 0; i < d; ++i) largest = std::max(largest, G[i * d + i]);
  std::vector<double> R(d * d);
  for (size_t j = 0; j < d; ++j) {
    const double pivot = G[j * d + j];
    if (pivot <= 1e-12 * largest) continue;  // rounding of what is 0
    double* row = &R[j * d];
    for (size_t i = j; i < d; ++i) row[i] = G[j * d + i] / std::sqrt(pivot);
    parallel_ranges(static_cast<i64>(d - j), 64, [&](int, i64 begin, i64 end) {
      for (size_t i = j + static_cast<size_t>(begin); i < j + static_cast<size_t>(end); ++i)
        for (size_t l = i; l < d; ++l) G[i * d + l] -= row[i] * row[l];
    });
  }
  return R;
}

}  // namespace sparsam
