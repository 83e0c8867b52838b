// Curves of the sparsing law (Luo et al. 2024, arXiv 2411.02335, section 4) fitted by least squares:
// Levenberg-Marquardt from several starts, with an analytic Jacobian; alpha, c of exponential, A0 and k stay above 0.
//   power        A0 - c / D^alpha             activation ratio of SiLU against data; c < 0 where it falls
//   exponential  A0 + exp(-c D^alpha + b)     of ReLU against data: a power law of the logarithm, falling
//   plateau      a + s min(x, k)              limit against width / depth: linear up to a bottleneck k
//   linear       a + s x                      logarithmic  a + s ln x                      constant  a
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/types.h"

namespace sparsam {

enum class LawForm : u8 { constant, linear, logarithmic, power, exponential, plateau };
std::string_view name_of(LawForm form);
std::vector<std::string> parameter_names(LawForm form);  // power: alpha, c, A0; exponential: alpha, c, b, A0

struct Curve {
  LawForm form = LawForm::constant;
  std::vector<double> parameters;  // in the order of parameter_names()
  double at(double x) const;
};

struct Fit {
  Curve curve;
  i64 points = 0;
  double squares = 0;  // sum of squared residuals
  // Akaike's information criterion with its correction for small samples (Hurvich & Tsai 1989), for p parameters and
  // the residuals' variance, q = p + 1:
  //   n ln(squares / n) + 2 q + 2 q (q + 1) / (n - q - 1)        infinite for n <= q + 1
  // The form with the least value is preferred; differences below 2 say little.
  double aicc() const;
};
// x above 0. Error: fewer points than parameters, numbers that are not finite.
Fit fit_curve(LawForm form, std::span<const double> x, std::span<const double> y);

struct Interval {
  double low = 0, high = 0;
};
struct Bands {
  std::vector<Interval> parameters;  // of the curve
  std::vector<Interval> values;      // of the curve at the places asked for
};
// 95 % bands by bootstrap of the residuals (Efron & Tibshirani 1993, chapter 9): centred, lengthened by
// sqrt(n / (n - p)), which a fit of p parameters took from them, and by t(n - p, 97.5 %) / 1.96, since so few of them
// do not know their own size; drawn with replacement, added to the fitted curve, fitted again; percentiles of the
// result. Nothing where n <= p, which leaves no residuals.
std::optional<Bands> bootstrap(const Fit& fit, std::span<const double> x, std::span<const double> y,
                               std::span<const double> at, i64 resamples, u64 seed);

}  // namespace sparsam
