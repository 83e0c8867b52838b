#include "measure/redundancy.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/threads.h"
#include "infer/test_support.h"

namespace sparsam {
namespace {

double score_of(const Redundancy& r, i64 layer, Sublayer kind) {
  for (const SublayerScore& s : r.scores)
    if (s.layer == layer && s.kind == kind) return s.score;
  ADD_FAILURE() << "no score of layer " << layer;
  return NAN;
}

Redundancy measure(const Model& model, const std::vector<i32>& ids, const RedundancyOptions& options = {}) {
  const auto backend = make_backend("cpu");
  const Transformer transformer(model, *backend, Compute::f32, 64);
  return measure_redundancy(transformer, ids, options);
}

void fill(const Out<float, 2>& weights, float value) { std::fill(weights.begin(), weights.end(), value); }

TEST(Cosine, ByHand) {
  const float u[] = {3, 4}, v[] = {4, 3}, zero[] = {0, 0}, minus[] = {-3, -4};
  EXPECT_DOUBLE_EQ(cosine({u, {2}}, {v, {2}}), 24.0 / 25);
  EXPECT_EQ(cosine({u, {2}}, {u, {2}}), 1);
  EXPECT_EQ(cosine({u, {2}}, {minus, {2}}), -1);
  EXPECT_EQ(cosine({u, {2}}, {zero, {2}}), 0);
}

TEST(Redundancy, ASublayerWhoseOutputIsZeroScoresExactlyZero) {
  const TinyModel tiny = tiny_model();
  fill(tiny.flat->views.layers[1].attention.o.weight, 0);
  fill(tiny.flat->views.layers[2].mlp.down.weight, 0);
  const Redundancy r = measure(tiny.model, random_ids(100, 300, 1));
  EXPECT_EQ(r.scores.size(), 9u);
  EXPECT_EQ(r.tokens, 100);
  for (const SublayerScore& s : r.scores) {
    const bool planted = (s.layer == 1 && s.kind == Sublayer::attention) || (s.layer == 2 && s.kind == Sublayer::mlp);
    if (planted)
      EXPECT_EQ(s.score, 0);
    else
      EXPECT_GT(s.score, 1e-4) << name_of(s.kind) << " " << s.layer;
  }
}

TEST(Redundancy, EqualsAHandComputation) {
  // dim 2, one layer whose MLP is off, one head: at the first position attention returns its value, so that
  // y = x + Wo Wv n, n = x / rms(x). With Wo Wv = a turn by 90 degrees, |n| = sqrt 2 and y = x + sqrt(2) turn(x) / |x|:
  // cos = 1 / sqrt(1 + 2 / |x|^2).
  const Architecture architecture{.vocab = 3,
                                  .context = 4,
                                  .layers = 1,
                                  .dim = 2,
                                  .heads = 1,
                                  .hidden = 4,
                                  .norm_eps = 0,
                                  .positions = Positions::none};
  const TinyModel tiny = tiny_model(architecture);
  const auto& w = tiny.flat->views;
  const float table[] = {3, 4, 0, 2, -1, 0}, turn[] = {0, -1, 1, 0}, one[] = {1, 0, 0, 1};
  std::copy(std::begin(table), std::end(table), w.token_embedding.begin());
  std::copy(std::begin(turn), std::end(turn), w.layers[0].attention.v.weight.begin());
  std::copy(std::begin(one), std::end(one), w.layers[0].attention.o.weight.begin());
  fill(w.layers[0].mlp.down.weight, 0);
  const Redundancy r = measure(tiny.model, {0, 1, 2}, {.context = 1});  // each token is a sequence of its own
  const auto cosine_of = [](double square) { return 1 / std::sqrt(1 + 2 / square); };
  const double expected = 1 - (cosine_of(25) + cosine_of(4) + cosine_of(1)) / 3;
  EXPECT_NEAR(score_of(r, 0, Sublayer::attention), expected, 1e-6);
  EXPECT_EQ(score_of(r, 0, Sublayer::mlp), 0);
  EXPECT_NEAR(score_of(r, 0, Sublayer::block), expected, 1e-6);
}

TEST(Redundancy, DoesNotDependOnBatchesOrThreads) {
  const TinyModel tiny = tiny_model();
  const auto ids = random_ids(150, 300, 2);
  const Redundancy one = measure(tiny.model, ids, {.context = 16, .batch_tokens = 16});
  const Redundancy many = measure(tiny.model, ids, {.context = 16, .batch_tokens = 1000});
  ASSERT_EQ(one.scores.size(), many.scores.size());
  for (size_t i = 0; i < one.scores.size(); ++i) EXPECT_NEAR(one.scores[i].score, many.scores[i].score, 1e-6);
  EXPECT_EQ(one.tokens, 150);
}

TEST(Redundancy, LimitsTokensAndSkipsWhatIsNotThere) {
  TinyModel tiny = tiny_model();
  tiny.model.config.layers[0].mlp = std::monostate{};
  const Redundancy r = measure(tiny.model, random_ids(150, 300, 2), {.context = 16, .tokens = 33});
  EXPECT_EQ(r.tokens, 33);
  EXPECT_EQ(r.scores.size(), 8u);
  EXPECT_EQ(score_of(r, 0, Sublayer::attention), score_of(r, 0, Sublayer::block));
}

TEST(Redundancy, ParallelResidualsAreMeasuredEachAlone) {
  TinyModel tiny = tiny_model(tiny_gpt_like);
  fill(tiny.flat->views.layers[1].mlp.down.weight, 0);
  fill(tiny.flat->views.layers[1].mlp.down.bias, 0);
  const Redundancy r = measure(tiny.model, random_ids(60, 300, 3));
  EXPECT_EQ(score_of(r, 1, Sublayer::mlp), 0);
  EXPECT_GT(score_of(r, 1, Sublayer::attention), 1e-4);
  EXPECT_NEAR(score_of(r, 1, Sublayer::attention), score_of(r, 1, Sublayer::block), 1e-9);
}

TEST(Redundancy, RefusesNoTokensAndTooLongContexts) {
  const TinyModel gpt = tiny_model(tiny_gpt_like);
  EXPECT_THROW(measure(gpt.model, {}), Error);
  EXPECT_THROW(measure(gpt.model, {1, 2}, {.context = 65}), Error);
}

}  // namespace
}  // namespace sparsam
