#include "measure/law_fit.h"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <unsupported/Eigen/NonLinearOptimization>

#include "base/error.h"
#include "base/random.h"
#include "measure/statistics.h"

namespace sparsam {

namespace {

using Vector = Eigen::VectorXd;

struct FormInfo {
  const char* name;
  std::vector<std::string> parameters;
  std::vector<bool> positive;
};
const FormInfo& info_of(LawForm form) {
  static const std::array<FormInfo, 6> all{{{"constant", {"a"}, {false}},
                                            {"linear", {"a", "s"}, {false, false}},
                                            {"logarithmic", {"a", "s"}, {false, false}},
                                            {"power", {"alpha", "c", "A0"}, {true, false, true}},
                                            {"exponential", {"alpha", "c", "b", "A0"}, {true, true, false, true}},
                                            {"plateau", {"a", "s", "k"}, {false, false, true}}}};
  return all[static_cast<size_t>(form)];
}

// The curve at x, and its derivatives by the parameters.
double evaluate(LawForm form, const double* p, double x, double* d) {
  switch (form) {
    case LawForm::constant:
      d[0] = 1;
      return p[0];
    case LawForm::linear:
      d[0] = 1, d[1] = x;
      return p[0] + p[1] * x;
    case LawForm::logarithmic:
      d[0] = 1, d[1] = std::log(x);
      return p[0] + p[1] * d[1];
    case LawForm::power: {
      const double t = std::pow(x, -p[0]);
      d[0] = p[1] * t * std::log(x), d[1] = -t, d[2] = 1;
      return p[2] - p[1] * t;
    }
    case LawForm::exponential: {
      const double t = std::pow(x, p[0]), e = std::exp(p[2] - p[1] * t);
      d[0] = e > 0 ? -e * p[1] * t * std::log(x) : 0;  // where e vanishes, t may be infinite
      d[1] = e > 0 ? -e * t : 0;
      d[2] = e, d[3] = 1;
      return p[3] + e;
    }
    case LawForm::plateau:
      d[0] = 1, d[1] = std::min(x, p[2]), d[2] = x > p[2] ? p[1] : 0;
      return p[0] + p[1] * d[1];
  }
  return 0;
}

// Residuals as Eigen's LevenbergMarquardt wants them. Parameters that must stay above 0 are sought as their logarithms.
struct Residuals {
  using Scalar = double;
  using InputType = Vector;
  using ValueType = Vector;
  using JacobianType = Eigen::MatrixXd;
  enum { InputsAtCompileTime = Eigen::Dynamic, ValuesAtCompileTime = Eigen::Dynamic };

  LawForm form;
  const std::vector<double>& x;
  std::span<const double> y;

  int inputs() const { return static_cast<int>(info_of(form).parameters.size()); }
  int values() const { return static_cast<int>(x.size()); }
  int operator()(const Vector& sought, Vector& residuals) const {
    const Vector p = parameters(sought);
    std::array<double, 4> d;
    for (size_t i = 0; i < x.size(); ++i)
      residuals[static_cast<Eigen::Index>(i)] = evaluate(form, p.data(), x[i], d.data()) - y[i];
    return 0;
  }
  int df(const Vector& sought, Eigen::MatrixXd& jacobian) const {
    const Vector p = parameters(sought);
    std::array<double, 4> d;
    for (size_t i = 0; i < x.size(); ++i) {
      evaluate(form, p.data(), x[i], d.data());
      for (Eigen::Index k = 0; k < p.size(); ++k) {
        const auto at = static_cast<size_t>(k);
        jacobian(static_cast<Eigen::Index>(i), k) = d[at] * (info_of(form).positive[at] ? p[k] : 1);
      }
    }
    return 0;
  }
  Vector parameters(const Vector& sought) const {
    return mapped(sought, [](double v) { return std::exp(v); });
  }
  Vector sought(const Vector& parameters) const {
    return mapped(parameters, [](double v) { return std::log(v); });
  }
  double squares(const Vector& parameters) const {
    Vector residuals(values());
    (*this)(sought(parameters), residuals);
    return residuals.squaredNorm();
  }

 private:
  Vector mapped(const Vector& from, double (*f)(double)) const {
    Vector to = from;
    for (Eigen::Index k = 0; k < to.size(); ++k)
      if (info_of(form).positive[static_cast<size_t>(k)]) to[k] = f(to[k]);
    return to;
  }
};

// The least squares of y = level + factor phi(x).
struct Line {
  double level = 0, factor = 0;
};
template <class Phi>
Line line_through(const Residuals& r, const Phi& phi) {
  double n = 0, sp = 0, sy = 0, spp = 0, spy = 0;
  for (size_t i = 0; i < r.x.size(); ++i) {
    const double p = phi(r.x[i]);
    n += 1, sp += p, sy += r.y[i], spp += p * p, spy += p * r.y[i];
  }
  const double determinant = n * spp - sp * sp;
  if (!(determinant > 1e-14 * n * spp)) return {sy / n, 0};
  const double factor = (n * spy - sp * sy) / determinant;
  return {(sy - factor * sp) / n, factor};
}

Vector vector_of(std::initializer_list<double> values) {
  return Eigen::Map<const Vector>(values.begin(), static_cast<Eigen::Index>(values.size()));
}

// Every form is a level and a multiple of a function of few shape parameters: for each shape of a grid the rest is a
// straight line.
std::vector<Vector> starts(const Residuals& r) {
  constexpr double alphas[] = {0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2, 3}, rates[] = {0.01, 0.03, 0.1, 0.3, 1, 3};
  const double mean = std::accumulate(r.y.begin(), r.y.end(), 0.0) / static_cast<double>(r.y.size());
  const double least = 1e-6 * std::max(std::abs(mean), 1e-6);  // for a level that comes out below 0
  std::vector<Vector> all;
  const auto identity = [](double x) { return x; };
  const auto logarithm = [](double x) { return std::log(x); };
  switch (r.form) {
    case LawForm::constant:
      all.push_back(vector_of({mean}));
      break;
    case LawForm::linear: {
      const Line line = line_through(r, identity);
      all.push_back(vector_of({line.level, line.factor}));
      break;
    }
    case LawForm::logarithmic: {
      const Line line = line_through(r, logarithm);
      all.push_back(vector_of({line.level, line.factor}));
      break;
    }
    case LawForm::power:
      for (const double alpha : alphas) {
        const Line line = line_through(r, [&](double x) { return -std::pow(x, -alpha); });
        all.push_back(vector_of({alpha, line.factor, std::max(line.level, least)}));
      }
      break;
    case LawForm::exponential:
      for (const double alpha : alphas)
        for (const double rate : rates) {
          const Line line = line_through(r, [&](double x) { return std::exp(-rate * std::pow(x, alpha)); });
          const double b = std::log(std::max(line.factor, least));
          all.push_back(vector_of({alpha, rate, b, std::max(line.level, least)}));
        }
      break;
    case LawForm::plateau: {
      std::vector<double> x(r.x);
      std::sort(x.begin(), x.end());
      for (size_t i = 0; i + 1 < x.size(); ++i)
        for (const double k : {x[i + 1], (x[i] + x[i + 1]) / 2}) {
          const Line line = line_through(r, [&](double v) { return std::min(v, k); });
          all.push_back(vector_of({line.level, line.factor, k}));
        }
      if (all.empty()) all.push_back(vector_of({mean, 0, x.front()}));
      break;
    }
  }
  return all;
}

// Between the unit of x and one in which its values lie around 1.
Vector rescaled(LawForm form, Vector p, double unit) {
  switch (form) {
    case LawForm::constant:
      break;
    case LawForm::linear:
      p[1] /= unit;
      break;
    case LawForm::logarithmic:
      p[0] -= p[1] * std::log(unit);
      break;
    case LawForm::power:
      p[1] *= std::pow(unit, p[0]);
      break;
    case LawForm::exponential:
      p[1] /= std::pow(unit, p[0]);
      break;
    case LawForm::plateau:
      p[1] /= unit, p[2] *= unit;
      break;
  }
  return p;
}

struct Descent {
  Vector parameters;
  double squares;
};
Descent descend(const Residuals& r, const Vector& start) {
  Residuals functor = r;
  Eigen::LevenbergMarquardt<Residuals> solver(functor);
  solver.parameters.maxfev = 500;
  solver.parameters.ftol = solver.parameters.xtol = 1e-13;
  Vector sought = r.sought(start);
  solver.minimize(sought);
  const Descent end{r.parameters(sought), r.squares(r.parameters(sought))};
  const double before = r.squares(start);
  return end.parameters.allFinite() && end.squares <= before ? end : Descent{start, before};
}

Descent least_squares(const Residuals& r, std::span<const Vector> hints) {
  constexpr size_t descents = 4;
  std::vector<Descent> candidates;
  for (const Vector& start : starts(r)) candidates.push_back({start, r.squares(start)});
  std::sort(candidates.begin(), candidates.end(),
            [](const Descent& a, const Descent& b) { return a.squares < b.squares; });
  candidates.resize(std::min(candidates.size(), hints.empty() ? descents : 1));
  for (const Vector& hint : hints) candidates.push_back({hint, 0});
  Descent best{candidates.front().parameters, std::numeric_limits<double>::infinity()};
  for (const Descent& candidate : candidates)
    if (const Descent end = descend(r, candidate.parameters); end.squares < best.squares) best = end;
  return best;
}

double geometric_mean(std::span<const double> x) {
  double sum = 0;
  for (const double v : x) sum += std::log(v);
  return std::exp(sum / static_cast<double>(x.size()));
}

std::vector<double> divided(std::span<const double> x, double unit) {
  std::vector<double> result(x.begin(), x.end());
  for (double& v : result) v /= unit;
  return result;
}

Interval middle_95(std::vector<double>& values) {
  std::sort(values.begin(), values.end());
  const auto at = [&](double q) {
    const double place = q * static_cast<double>(values.size() - 1);
    const auto below = static_cast<size_t>(place);
    const size_t above = std::min(below + 1, values.size() - 1);
    return values[below] + (place - static_cast<double>(below)) * (values[above] - values[below]);
  };
  return {at(0.025), at(0.975)};
}

}  // namespace

std::string_view name_of(LawForm form) { return info_of(form).name; }
std::vector<std::string> parameter_names(LawForm form) { return info_of(form).parameters; }

double Curve::at(double x) const {
  std::array<double, 4> d;
  return evaluate(form, parameters.data(), x, d.data());
}

double Fit::aicc() const {
  const double n = static_cast<double>(points), q = static_cast<double>(curve.parameters.size()) + 1;
  if (n <= q + 1) return std::numeric_limits<double>::infinity();
  constexpr double exact = 1e-24;  // residuals of rounding alone
  return n * std::log(std::max(squares / n, exact)) + 2 * q + 2 * q * (q + 1) / (n - q - 1);
}

Fit fit_curve(LawForm form, std::span<const double> x, std::span<const double> y) {
  check(x.size() == y.size(), "fit_curve: {} x and {} y", x.size(), y.size());
  const FormInfo& info = info_of(form);
  if (x.size() < info.parameters.size())
    fail("law fit: {} points, the form {} has {} parameters", x.size(), info.name, info.parameters.size());
  for (size_t i = 0; i < x.size(); ++i)
    if (!(x[i] > 0 && std::isfinite(x[i]) && std::isfinite(y[i])))
      fail("law fit: point ({}, {}), expected x above 0 and finite numbers", x[i], y[i]);
  const double unit = geometric_mean(x);
  const std::vector<double> scaled = divided(x, unit);
  const Descent best = least_squares({form, scaled, y}, {});
  const Vector p = rescaled(form, best.parameters, unit);
  return {{form, {p.begin(), p.end()}}, static_cast<i64>(x.size()), best.squares};
}

std::optional<Bands> bootstrap(const Fit& fit, std::span<const double> x, std::span<const double> y,
                               std::span<const double> at, i64 resamples, u64 seed) {
  const LawForm form = fit.curve.form;
  const size_t n = x.size(), p = fit.curve.parameters.size();
  if (n <= p || resamples < 1) return std::nullopt;
  const double unit = geometric_mean(x);
  const std::vector<double> scaled = divided(x, unit);
  const Vector hint =
      rescaled(form, Eigen::Map<const Vector>(fit.curve.parameters.data(), static_cast<Eigen::Index>(p)), 1 / unit);
  std::vector<double> residuals(n);
  for (size_t i = 0; i < n; ++i) residuals[i] = y[i] - fit.curve.at(x[i]);
  const double mean = std::accumulate(residuals.begin(), residuals.end(), 0.0) / static_cast<double>(n);
  constexpr double normal_975 = 1.959964;
  const double longer = std::sqrt(static_cast<double>(n) / static_cast<double>(n - p)) *
                        student_t_975(static_cast<i64>(n - p)) / normal_975;
  std::vector<std::vector<double>> parameters(p), values(at.size());
  std::vector<double> drawn(n);
  Random random(seed);
  for (i64 b = 0; b < resamples; ++b) {
    for (size_t i = 0; i < n; ++i) drawn[i] = fit.curve.at(x[i]) + longer * (residuals[random.below(n)] - mean);
    const Vector again = rescaled(form, least_squares({form, scaled, drawn}, std::span(&hint, 1)).parameters, unit);
    const Curve curve{form, {again.begin(), again.end()}};
    for (size_t k = 0; k < p; ++k) parameters[k].push_back(curve.parameters[k]);
    for (size_t k = 0; k < at.size(); ++k) values[k].push_back(curve.at(at[k]));
  }
  Bands bands;
  for (auto& drawn_values : parameters) bands.parameters.push_back(middle_95(drawn_values));
  for (auto& drawn_values : values) bands.values.push_back(middle_95(drawn_values));
  return bands;
}

}  // namespace sparsam
