#include "measure/statistics.h"

#include <gtest/gtest.h>

#include <cmath>

namespace sparsam {
namespace {

TEST(ClusteredMean, ByHand) {
  // Sums 2, 6, 4 of 1, 2, 2 observations: mean 2.4; deviations -0.4, 1.2, -0.8; variance 3/2 2.24 / 25.
  const Cluster clusters[] = {{2, 1}, {6, 2}, {4, 2}};
  const Estimate e = clustered_mean(clusters);
  EXPECT_DOUBLE_EQ(e.mean, 2.4);
  EXPECT_NEAR(e.standard_error, std::sqrt(1.5 * 2.24 / 25), 1e-12);
  EXPECT_NEAR(e.high - e.mean, 4.302653 * e.standard_error, 1e-5);
  EXPECT_NEAR(e.mean - e.low, e.high - e.mean, 1e-12);
}

TEST(ClusteredMean, OfSingletonsIsTheTextbookError) {
  const Cluster clusters[] = {{1, 1}, {2, 1}, {3, 1}, {6, 1}};  // deviation sqrt(14 / 3)
  EXPECT_NEAR(clustered_mean(clusters).standard_error, std::sqrt(14.0 / 3 / 4), 1e-12);
}

TEST(ClusteredMean, OfOneClusterIsUncertain) {
  const Cluster clusters[] = {{5, 2}};
  const Estimate e = clustered_mean(clusters);
  EXPECT_EQ(e.mean, 2.5);
  EXPECT_TRUE(std::isinf(e.standard_error));
}

TEST(StudentT, AgreesWithTables) {  // Abramowitz & Stegun table 26.10
  const std::pair<i64, double> table[] = {{1, 12.706205}, {2, 4.302653},  {3, 3.182446},  {4, 2.776445},
                                          {5, 2.570582},  {10, 2.228139}, {30, 2.042272}, {120, 1.979930}};
  for (const auto& [freedom, value] : table) EXPECT_NEAR(student_t_975(freedom), value, 0.002 * value) << freedom;
  EXPECT_NEAR(student_t_975(1'000'000), 1.959964, 1e-5);
}

TEST(Quantile, Interpolates) {
  std::vector<float> values{4, 1, 3, 2};
  EXPECT_DOUBLE_EQ(quantile(values, 0), 1);
  EXPECT_DOUBLE_EQ(quantile(values, 0.5), 2.5);
  EXPECT_DOUBLE_EQ(quantile(values, 1), 4);
  EXPECT_NEAR(quantile(values, 0.9), 3.7, 1e-7);
}

}  // namespace
}  // namespace sparsam
