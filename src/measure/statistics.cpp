#include "measure/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "base/error.h"

namespace sparsam {

Estimate clustered_mean(std::span<const Cluster> clusters) {
  double sum = 0, count = 0, used = 0;
  for (const Cluster& c : clusters) {
    sum += c.sum, count += static_cast<double>(c.count);
    used += c.count > 0;
  }
  check(count > 0, "mean of no observations");
  Estimate result;
  result.mean = sum / count;
  if (used < 2) {
    result.standard_error = std::numeric_limits<double>::infinity();
    result.low = -result.standard_error, result.high = result.standard_error;
    return result;
  }
  double squares = 0;
  for (const Cluster& c : clusters) {
    const double deviation = c.sum - result.mean * static_cast<double>(c.count);
    squares += deviation * deviation;
  }
  result.standard_error = std::sqrt(used / (used - 1) * squares) / count;
  const double reach = student_t_975(static_cast<i64>(used) - 1) * result.standard_error;
  result.low = result.mean - reach, result.high = result.mean + reach;
  return result;
}

double student_t_975(i64 freedom) {
  check(freedom >= 1, "Student's t with {} degrees of freedom", freedom);
  if (freedom == 1) return std::tan(std::numbers::pi * 0.475);
  if (freedom == 2) return 0.95 * std::sqrt(2 / (1 - 0.95 * 0.95));
  // Cornish-Fisher expansion about the normal quantile (Abramowitz & Stegun 26.7.5).
  const double z = 1.959963984540054, n = static_cast<double>(freedom), z2 = z * z;
  return z * (1 + (z2 + 1) / (4 * n) + ((5 * z2 + 16) * z2 + 3) / (96 * n * n) +
              (((3 * z2 + 19) * z2 + 17) * z2 - 15) / (384 * n * n * n) +
              ((((79 * z2 + 776) * z2 + 1482) * z2 - 1920) * z2 - 945) / (92160 * n * n * n * n));
}

double quantile(std::vector<float>& values, double q) {
  check(!values.empty() && q >= 0 && q <= 1, "quantile {} of {} values", q, values.size());
  std::sort(values.begin(), values.end());
  const double place = q * static_cast<double>(values.size() - 1);
  const size_t below = static_cast<size_t>(place), above = std::min(below + 1, values.size() - 1);
  const double part = place - static_cast<double>(below);
  return (1 - part) * static_cast<double>(values[below]) + part * static_cast<double>(values[above]);
}

}  // namespace sparsam
