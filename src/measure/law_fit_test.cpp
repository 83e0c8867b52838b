#include "measure/law_fit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/files.h"
#include "base/random.h"
#include "base/test_support.h"
#include "formats/json.h"

namespace sparsam {
namespace {

// The published fits of arXiv 2411.02335, table 2.
struct Published {
  std::string name;
  Curve curve;
  std::vector<double> tokens, values;  // values: rounded
};
std::vector<Published> published() {
  const std::string path = SPARSAM_TEST_DATA "/sparsing_law_points.json";
  const Json json = parse_json(read_text(path), path);
  std::vector<Published> all;
  for (const Json& s : json["series"]) {
    Published p;
    p.name = s["activation"].get<std::string>() + " " + s["size"].get<std::string>();
    p.curve.form = s["activation"] == "relu" ? LawForm::exponential : LawForm::power;
    for (const std::string& name : parameter_names(p.curve.form)) p.curve.parameters.push_back(s[name].get<double>());
    p.tokens = json["tokens_billions"].get<std::vector<double>>();
    p.values = s["values"].get<std::vector<double>>();
    all.push_back(p);
  }
  return all;
}

std::vector<double> logarithmic_steps(double from, double to, int points) {
  std::vector<double> x;
  for (int i = 0; i < points; ++i) x.push_back(from * std::pow(to / from, i / (points - 1.0)));
  return x;
}
std::vector<double> values_of(const Curve& curve, const std::vector<double>& x, double deviation = 0, u64 seed = 0) {
  Random random(seed);
  std::vector<double> y;
  for (const double v : x) y.push_back(curve.at(v) + (deviation > 0 ? deviation * random.normal() : 0));
  return y;
}

TEST(LawFit, CurvesAreThePublishedOnes) {
  for (const Published& p : published())
    for (size_t i = 0; i < p.tokens.size(); ++i)
      EXPECT_NEAR(p.curve.at(p.tokens[i]), p.values[i], p.curve.form == LawForm::power ? 5.1e-4 : 5.1e-5) << p.name;
}

TEST(LawFit, ExactPointsGiveBackThePublishedParameters) {
  const auto x = logarithmic_steps(5, 800, 14);
  for (const Published& p : published()) {
    const Fit fit = fit_curve(p.curve.form, x, values_of(p.curve, x));
    for (size_t k = 0; k < p.curve.parameters.size(); ++k)
      EXPECT_NEAR(fit.curve.parameters[k], p.curve.parameters[k], 1e-3 * std::abs(p.curve.parameters[k]))
          << p.name << " " << parameter_names(p.curve.form)[k];
  }
}

TEST(LawFit, RoundedPointsGiveBackThePublishedLimits) {
  for (const Published& p : published()) {
    const Fit fit = fit_curve(p.curve.form, p.tokens, p.values);
    EXPECT_NEAR(fit.curve.parameters.back(), p.curve.parameters.back(), 2e-3) << p.name;
    EXPECT_LT(std::sqrt(fit.squares / 5), p.curve.form == LawForm::power ? 5e-4 : 5e-5) << p.name;  // the rounding
  }
}

TEST(LawFit, FindsTheLeastSquaresOfASearchOverTheExponent) {
  const Curve truth{LawForm::power, {0.6, 0.3, 0.4}};
  const auto x = logarithmic_steps(0.5, 7, 10), y = values_of(truth, x, 0.01, 3);
  double least = INFINITY, exponent = 0;
  for (double alpha = 0.01; alpha < 4; alpha += 1e-4) {  // given alpha, A0 and c are a straight line's
    double sp = 0, sy = 0, spp = 0, spy = 0, squares = 0;
    const double n = static_cast<double>(x.size());
    for (size_t i = 0; i < x.size(); ++i) {
      const double p = std::pow(x[i], -alpha);
      sp += p, sy += y[i], spp += p * p, spy += p * y[i];
    }
    const double slope = (n * spy - sp * sy) / (n * spp - sp * sp), level = (sy - slope * sp) / n;
    for (size_t i = 0; i < x.size(); ++i) squares += std::pow(level + slope * std::pow(x[i], -alpha) - y[i], 2);
    if (squares < least) least = squares, exponent = alpha;
  }
  const Fit fit = fit_curve(LawForm::power, x, y);
  EXPECT_NEAR(fit.squares, least, 1e-7 * least);
  EXPECT_NEAR(fit.curve.parameters[0], exponent, 2e-4);
}

TEST(LawFit, TheUnitOfDataDoesNotMatter) {
  for (const Curve& truth :
       {Curve{LawForm::power, {0.6, 0.3, 0.4}}, Curve{LawForm::exponential, {0.7, 0.5, -1.5, 0.1}}}) {
    const auto x = logarithmic_steps(0.5, 7, 12), y = values_of(truth, x, 0.002, 5);
    std::vector<double> tokens;
    for (const double v : x) tokens.push_back(1e6 * v);
    const Fit one = fit_curve(truth.form, x, y), other = fit_curve(truth.form, tokens, y);
    EXPECT_NEAR(one.squares, other.squares, 1e-9 * one.squares);
    EXPECT_NEAR(one.curve.parameters[0], other.curve.parameters[0], 1e-4);
    for (size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(one.curve.at(x[i]), other.curve.at(tokens[i]), 1e-6);
  }
}

TEST(LawFit, AFallingRatioIsAFallingPowerLaw) {
  const auto x = logarithmic_steps(1, 10, 10);
  const Fit fit = fit_curve(LawForm::power, x, values_of({LawForm::power, {0.5, -0.2, 0.3}}, x));
  EXPECT_NEAR(fit.curve.parameters[1], -0.2, 1e-4);
}

TEST(LawFit, LinesAndLogarithmsAreExact) {
  // Anscombe's first set (1973): y = 3.00 + 0.500 x.
  const std::vector<double> x{10, 8, 13, 9, 11, 14, 6, 4, 12, 7, 5},
      y{8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68};
  const Fit line = fit_curve(LawForm::linear, x, y);
  EXPECT_NEAR(line.curve.parameters[0], 3.0001, 1e-4);
  EXPECT_NEAR(line.curve.parameters[1], 0.5001, 1e-4);
  EXPECT_NEAR(line.squares, 13.763, 1e-3);
  const Fit logarithm = fit_curve(LawForm::logarithmic, x, values_of({LawForm::logarithmic, {0.2, -0.03}}, x));
  EXPECT_NEAR(logarithm.curve.parameters[0], 0.2, 1e-9);
  EXPECT_NEAR(logarithm.curve.parameters[1], -0.03, 1e-9);
}

TEST(LawFit, FindsTheBottleneckOfAPlateau) {
  const std::vector<double> ratios{12, 24, 36, 50, 74, 100, 150, 220, 282};
  const Curve truth{LawForm::plateau, {0.05, 2.6e-4, 114}};
  const Fit exact = fit_curve(LawForm::plateau, ratios, values_of(truth, ratios));
  EXPECT_NEAR(exact.curve.parameters[2], 114, 0.1);
  EXPECT_NEAR(exact.curve.at(200), truth.at(200), 1e-6);
  const Fit noisy = fit_curve(LawForm::plateau, ratios, values_of(truth, ratios, 5e-4, 1));
  EXPECT_NEAR(noisy.curve.parameters[2], 114, 15);
}

TEST(LawFit, TheInformationCriterionPrefersTheFormThatMadeTheData) {
  const auto x = logarithmic_steps(0.5, 100, 16);
  const std::vector<Curve> truths{
      {LawForm::constant, {0.3}}, {LawForm::power, {0.5, 0.1, 0.4}}, {LawForm::exponential, {1.2, 0.02, -2.5, 0.07}}};
  for (const Curve& truth : truths) {
    int right = 0;
    constexpr int trials = 20;
    for (u64 seed = 0; seed < trials; ++seed) {
      const auto y = values_of(truth, x, 4e-4, seed);
      LawForm best = LawForm::constant;
      double least = INFINITY;
      for (const LawForm form : {LawForm::constant, LawForm::power, LawForm::exponential})
        if (const double aicc = fit_curve(form, x, y).aicc(); aicc < least) least = aicc, best = form;
      right += best == truth.form;
    }
    EXPECT_GE(right, 17) << name_of(truth.form);
  }
}

TEST(LawFit, AiccIsItsFormula) {
  const Fit fit{{LawForm::power, {1, 1, 1}}, 10, 0.1};
  EXPECT_NEAR(fit.aicc(), 10 * std::log(0.01) + 8 + 40.0 / 5, 1e-12);
  EXPECT_EQ((Fit{{LawForm::power, {1, 1, 1}}, 5, 0.1}.aicc()), INFINITY);
}

TEST(LawFit, BandsCoverTheTruthAboutAsOftenAsTheySay) {
  const Curve truth{LawForm::power, {0.5, 0.1, 0.4}};
  const auto x = logarithmic_steps(0.5, 100, 12);
  const std::vector<double> at{0.5, 5, 100};
  constexpr int trials = 200;
  std::vector<int> covered(at.size());
  int limits = 0;
  for (u64 seed = 0; seed < trials; ++seed) {
    const auto y = values_of(truth, x, 0.003, seed);
    const Fit fit = fit_curve(truth.form, x, y);
    const auto bands = bootstrap(fit, x, y, at, 100, seed);
    ASSERT_TRUE(bands);
    for (size_t i = 0; i < at.size(); ++i)
      covered[i] += bands->values[i].low <= truth.at(at[i]) && truth.at(at[i]) <= bands->values[i].high;
    limits += bands->parameters[2].low <= 0.4 && 0.4 <= bands->parameters[2].high;
  }
  for (const int times : covered) EXPECT_GE(times, 176);  // 95 % of 200 are 190
  EXPECT_GE(limits, 176);
  EXPECT_LT(covered[0] + covered[1] + covered[2] + limits, 4 * trials - 8);  // bands that are not merely wide
}

TEST(LawFit, BandsAreAPureFunctionOfTheSeed) {
  const auto x = logarithmic_steps(1, 10, 8), y = values_of({LawForm::power, {0.5, 0.1, 0.4}}, x, 0.003, 1);
  const Fit fit = fit_curve(LawForm::power, x, y);
  const auto low = [&](u64 seed) { return bootstrap(fit, x, y, x, 50, seed)->values[0].low; };
  EXPECT_EQ(low(1), low(1));
  EXPECT_NE(low(1), low(2));
  EXPECT_FALSE(bootstrap(fit, std::span(x).first(3), std::span(y).first(3), x, 50, 1));
}

TEST(LawFit, RefusesWhatCannotBeFitted) {
  const auto error = [](LawForm form, std::vector<double> x, std::vector<double> y) {
    return error_of([&] { fit_curve(form, x, y); });
  };
  EXPECT_EQ(error(LawForm::power, {1, 2}, {1, 2}), "law fit: 2 points, the form power has 3 parameters");
  EXPECT_THAT(error(LawForm::linear, {1, 0}, {1, 2}), testing::HasSubstr("expected x above 0"));
  EXPECT_THAT(error(LawForm::linear, {1, 2}, {1, NAN}), testing::HasSubstr("finite"));
}

}  // namespace
}  // namespace sparsam
