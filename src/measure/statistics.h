// Means with their uncertainty.
#pragma once

#include <span>
#include <vector>

#include "base/types.h"

namespace sparsam {

struct Estimate {
  double mean = 0, standard_error = 0;
  double low = 0, high = 0;  // 95 % confidence interval
};

// One cluster of observations: neighbours in a text are not independent, windows of it nearly are.
struct Cluster {
  double sum = 0;
  i64 count = 0;
};

// The mean of all observations, m = S / N, as a ratio estimator over C clusters (Cochran 1977, eq. 6.12):
//   variance = C / (C - 1) sum_c (S_c - m N_c)^2 / N^2       interval: m +- t(C - 1, 97.5 %) sqrt(variance)
// With a single cluster the uncertainty is unknown: infinite. At least one observation.
Estimate clustered_mean(std::span<const Cluster> clusters);

// The 97.5 % quantile of Student's t distribution with `freedom` >= 1 degrees of freedom, within 0.2 % (Hill 1970 for
// 3 and more, exact for 1 and 2).
double student_t_975(i64 freedom);

// The value below which the fraction `q` of the values lies, with linear interpolation; sorts its argument.
double quantile(std::vector<float>& values, double q);

}  // namespace sparsam
