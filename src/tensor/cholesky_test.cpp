#include "tensor/cholesky.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/random.h"

namespace sparsam {
namespace {

// G = A^T A of A (rows, d): R^T R is G, of full rank and not, and below the diagonal R is 0.
TEST(Cholesky, IsTheRootOfAGramMatrix) {
  const size_t d = 23;
  for (const size_t rows : {size_t{1}, size_t{7}, size_t{23}, size_t{60}}) {
    Random random(rows);
    std::vector<double> a(rows * d), gram(d * d);
    for (double& value : a) value = random.normal();
    for (size_t r = 0; r < rows; ++r)
      for (size_t i = 0; i < d; ++i)
        for (size_t j = 0; j < d; ++j) gram[i * d + j] += a[r * d + i] * a[r * d + j];
    const auto root = cholesky(gram, d);
    for (size_t i = 0; i < d; ++i)
      for (size_t j = 0; j < d; ++j) {
        double product = 0;
        for (size_t k = 0; k < d; ++k) product += root[k * d + i] * root[k * d + j];
        EXPECT_NEAR(product, gram[i * d + j], 1e-10 * static_cast<double>(rows)) << i << " " << j;
        EXPECT_TRUE(i <= j || root[i * d + j] == 0);
      }
  }
}

}  // namespace
}  // namespace sparsam
