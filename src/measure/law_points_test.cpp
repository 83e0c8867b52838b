#include "measure/law_points.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "base/test_support.h"
#include "measure/law_fit.h"

namespace sparsam {
namespace {

using ::testing::HasSubstr;

class LawPoints : public ::testing::Test {
 protected:
  LawPoints() { fs::create_directories(directory_); }
  ~LawPoints() override { fs::remove_all(directory_); }
  std::string error(const std::string& text) {
    write_text(path_, text);
    return error_of([&] { read_law_points(path_); });
  }
  fs::path directory_ =
               fs::path(::testing::TempDir()) / ::testing::UnitTest::GetInstance()->current_test_info()->name(),
           path_ = directory_ / "points.jsonl";
};

TEST_F(LawPoints, ComeBackAsTheyWereWritten) {
  const LawPoint point{.model = "relu-64x2",
                       .activation = "relu",
                       .tokens = 1e6,
                       .activation_ratio = 0.2,
                       .dim = 64,
                       .layers = 2,
                       .parameters = 94528,
                       .percent = 1,
                       .cett = 0.1,
                       .perplexity = 34.5,
                       .nonzero_ratio = 0.4,
                       .tried = {{0, 0.4, 34.5}, {0.1, 0.2, 34.8}}};
  LawPoint later = point;
  later.tokens = 2e6;
  write_law_points(path_, std::vector{point, later});
  const auto read = read_law_points(path_);
  ASSERT_EQ(read.size(), 2u);
  EXPECT_EQ(to_json(read[0]), to_json(point));
  EXPECT_EQ(to_json(read[1]), to_json(later));
  EXPECT_TRUE(read_law_points(directory_ / "none.jsonl").empty());
}

TEST_F(LawPoints, DamageIsNamedByItsLine) {
  const std::string good = R"({"model": "m", "activation": "silu", "tokens": 10, "activation_ratio": 0.5})"
                           "\n";
  EXPECT_EQ(error(good + "\n"), "no error");
  EXPECT_THAT(error(good + good.substr(0, 30)), HasSubstr("points.jsonl line 2"));
  EXPECT_THAT(error(good + good), HasSubstr("line 2: a second point of m silu at 10 tokens"));
  EXPECT_THAT(error(R"({"model": "m", "activation": "silu", "tokens": 10})"), HasSubstr("activation_ratio"));
  EXPECT_THAT(error(R"({"model": "m", "activation": "silu", "tokens": 10, "activation_ratio": 1.5})"),
              HasSubstr("line 1: field 'activation_ratio': found 1.5"));
  EXPECT_THAT(error(R"({"model": "m", "activation": "silu", "tokens": 10, "activation_ratio": 0.5, "token": 1})"),
              HasSubstr("token"));
  EXPECT_THAT(error(R"({"model": "m", "activation": "silu", "tokens": 10, "activation_ratio": 0.5, "tried": 3})"),
              HasSubstr("tried is number, expected an array"));
}

TEST_F(LawPoints, OneCettRaisesTheMeanPerplexityOfTheLastPoints) {
  // Perplexity 10 exp(s c^2) rises by 1 % at c = sqrt(ln 1.01 / s); the ratio is -0.1 ln c.
  const auto point = [](double tokens, double s) {
    LawPoint p{.model = "m", .activation = "relu", .tokens = tokens, .activation_ratio = 0.5};
    for (const double c : {0.0, 0.05, 0.1, 0.2, 0.5, 1.0})
      p.tried.push_back({c, c > 0 ? -0.1 * std::log(c) : 0.5, 10 * std::exp(s * c * c)});
    return p;
  };
  const std::vector<LawPoint> points{point(1, 9), point(2, 1), point(3, 1)};
  const double expected = std::sqrt(std::log(1.01));
  EXPECT_NEAR(shared_cett(points, 2, 1).value(), expected, 1e-8);
  EXPECT_LT(shared_cett(points, 3, 1).value(), expected);
  EXPECT_NEAR(activation_ratio_at(points[0], expected), -0.1 * std::log(expected), 1e-8);
  EXPECT_NEAR(perplexity_at(points[0], 0.07), 10 * std::exp(9 * 0.07 * 0.07), 1e-10);
  EXPECT_NEAR(activation_ratio_at(points[0], 0.03), -0.1 * std::log(0.03), 1e-12);  // below those tried
  EXPECT_EQ(activation_ratio_at(points[0], 1e-9), 0.5);
  std::vector<LawPoint> without = points;
  without[1].tried.clear();
  EXPECT_FALSE(shared_cett(without, 2, 1));
}

// bench/results/ladder.points.jsonl is what docs/law.md tells of.
TEST(LawPointsMeasuredHere, FallWithReluAndRiseWithSilu) {
  std::map<std::string, std::vector<LawPoint>> models;
  for (const LawPoint& point : read_law_points(SPARSAM_TEST_DATA "/../../bench/results/ladder.points.jsonl"))
    models[point.model].push_back(point);
  ASSERT_EQ(models.size(), 8u);
  for (const auto& [name, points] : models) {
    constexpr i64 last = 5, resamples = 100;
    const double cett = shared_cett(points, last, 1).value();
    std::vector<double> tokens, ratios;
    for (const LawPoint& point : points)
      tokens.push_back(point.tokens), ratios.push_back(activation_ratio_at(point, cett));
    const Fit fit = fit_curve(LawForm::logarithmic, tokens, ratios);
    const Interval slope = bootstrap(fit, tokens, ratios, tokens, resamples, 0)->parameters[1];
    if (points.front().activation == "relu")
      EXPECT_LT(slope.high, 0) << name;
    else
      EXPECT_GT(slope.low, 0) << name;
  }
}

}  // namespace
}  // namespace sparsam
