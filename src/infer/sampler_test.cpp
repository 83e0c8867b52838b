#include "infer/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "base/error.h"

namespace sparsam {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;
using testing::Pair;

In<float, 1> view(const std::vector<float>& logits) { return {logits.data(), {static_cast<i64>(logits.size())}}; }

// Logits whose softmax at temperature 1 are these probabilities.
std::vector<float> logits_of(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)) + 3);
  return logits;
}

std::map<i32, double> distribution(const std::vector<float>& logits, const Sampling& sampling,
                                   const std::vector<i32>& history = {}) {
  std::map<i32, double> result;
  for (const Candidate& c : candidates(view(logits), history, sampling)) result[c.token] = c.probability;
  return result;
}

const std::vector<float> five = logits_of({0.1, 0.4, 0.2, 0.25, 0.05});

auto near(i32 token, double probability) { return Pair(token, DoubleNear(probability, 1e-6)); }

TEST(Candidates, TemperatureOneIsSoftmax) {
  EXPECT_THAT(distribution(five, {.temperature = 1}),
              ElementsAre(near(0, 0.1), near(1, 0.4), near(2, 0.2), near(3, 0.25), near(4, 0.05)));
}

TEST(Candidates, TemperatureHalfSquares) {
  const double sum = 0.01 + 0.16 + 0.04 + 0.0625 + 0.0025;
  EXPECT_THAT(distribution(five, {.temperature = 0.5}),
              ElementsAre(near(0, 0.01 / sum), near(1, 0.16 / sum), near(2, 0.04 / sum), near(3, 0.0625 / sum),
                          near(4, 0.0025 / sum)));
}

TEST(Candidates, TemperatureZeroTakesTheGreatestAndTheLowestIdAmongEquals) {
  EXPECT_THAT(distribution(five, {.temperature = 0}), ElementsAre(Pair(1, 1)));
  EXPECT_THAT(distribution({1, 2, 2, 0}, {.temperature = 0}), ElementsAre(Pair(1, 1)));
}

TEST(Candidates, TopK) {
  EXPECT_THAT(distribution(five, {.temperature = 1, .top_k = 2}),
              ElementsAre(near(1, 0.4 / 0.65), near(3, 0.25 / 0.65)));
  EXPECT_EQ(distribution(five, {.temperature = 1, .top_k = 9}).size(), 5u);
}

TEST(Candidates, TopPKeepsTheFewestThatHoldTheMass) {
  EXPECT_THAT(distribution(five, {.temperature = 1, .top_p = 0.6}),
              ElementsAre(near(1, 0.4 / 0.65), near(3, 0.25 / 0.65)));
  EXPECT_THAT(distribution(five, {.temperature = 1, .top_p = 0}), ElementsAre(near(1, 1)));
  EXPECT_EQ(distribution(five, {.temperature = 1, .top_p = 0.97}).size(), 5u);
}

TEST(Candidates, TopPCountsTheMassThatTopKLeft) {
  // Of 0.4, 0.25, 0.2 the first two hold 76 %.
  EXPECT_THAT(distribution(five, {.temperature = 1, .top_k = 3, .top_p = 0.75}),
              ElementsAre(near(1, 0.4 / 0.65), near(3, 0.25 / 0.65)));
}

TEST(Candidates, MinPIsRelativeToTheFirst) {
  EXPECT_THAT(distribution(five, {.temperature = 1, .min_p = 0.49}),
              ElementsAre(near(1, 0.4 / 0.85), near(2, 0.2 / 0.85), near(3, 0.25 / 0.85)));
  EXPECT_THAT(distribution(five, {.temperature = 1, .min_p = 1}), ElementsAre(near(1, 1)));
}

TEST(Candidates, PenaltyDividesPositiveAndMultipliesNegativeLogits) {
  const std::vector<float> logits{2, -1, 1, 0.5f};
  // Tokens 0 and 1 are recent; token 2 is beyond the window of 2. Penalised: 1, -2, 1, 0.5.
  const double sum = std::exp(1) + std::exp(-2) + std::exp(1) + std::exp(0.5);
  EXPECT_THAT(distribution(logits, {.temperature = 1, .repetition_penalty = 2, .repetition_window = 2}, {2, 0, 1}),
              ElementsAre(near(0, std::exp(1) / sum), near(1, std::exp(-2) / sum), near(2, std::exp(1) / sum),
                          near(3, std::exp(0.5) / sum)));
}

TEST(Candidates, RefusesWhatIsNoNumber) {
  EXPECT_THROW(distribution({1, std::nanf("")}, {}), Error);
  EXPECT_THROW(distribution({1, std::numeric_limits<float>::infinity()}, {.temperature = 1}), Error);
}

TEST(Sampler, DrawsTheDistribution) {
  const std::vector<double> p{0.1, 0.4, 0.2, 0.25, 0.05};
  Sampler sampler({.temperature = 1, .seed = 7});
  std::vector<double> counts(5);
  constexpr double draws = 20000;
  for (int i = 0; i < draws; ++i) ++counts[static_cast<size_t>(sampler.sample(view(five), {}))];
  double chi_square = 0;
  for (size_t i = 0; i < 5; ++i) chi_square += std::pow(counts[i] - draws * p[i], 2) / (draws * p[i]);
  EXPECT_LT(chi_square, 18.47);  // 4 degrees of freedom, 99.9 %
  EXPECT_GT(chi_square, 0.09);   // 0.1 %: too good is wrong too
}

TEST(Sampler, SeedsDecide) {
  const auto draw = [](u64 seed) {
    Sampler sampler({.temperature = 1, .seed = seed});
    std::vector<i32> tokens;
    for (int i = 0; i < 50; ++i) tokens.push_back(sampler.sample(view(five), {}));
    return tokens;
  };
  EXPECT_EQ(draw(1), draw(1));
  EXPECT_NE(draw(1), draw(2));
}

TEST(Sampler, RefusesValuesOutOfRange) {
  EXPECT_THROW(Sampler({.temperature = -1}), Error);
  EXPECT_THROW(Sampler({.temperature = std::nan("")}), Error);
  EXPECT_THROW(Sampler({.top_p = 1.5}), Error);
  EXPECT_THROW(Sampler({.repetition_penalty = 0}), Error);
}

}  // namespace
}  // namespace sparsam
