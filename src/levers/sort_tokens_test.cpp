#include "levers/sort_tokens.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "base/test_support.h"
#include "infer/session.h"
#include "infer/test_support.h"
#include "levers/grow.h"
#include "model/neuron_sites.h"

namespace sparsam {
namespace {

using testing::HasSubstr;

const auto ids = random_ids(40, 300, 3);

Architecture tiny() {
  Architecture a = tiny_llama_like;
  a.attention_tokens = 200, a.mlp_tokens = 330, a.hidden = 0, a.gated = false;
  return a;
}

std::vector<float> logits_of(const Model& model) {
  const auto backend = make_backend("cpu");
  Session session(model, *backend, {.cache = DType::f32});
  std::vector<float> all;
  for (const i32 id : ids) {
    const In<float, 1> logits = session.step(id);
    all.insert(all.end(), logits.begin(), logits.end());
  }
  return all;
}
double greatest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double greatest = 0;
  for (size_t i = 0; i < a.size(); ++i) greatest = std::max(greatest, std::abs(double{a[i]} - double{b[i]}));
  return greatest;
}

// Directions that were shuffled are found again, and what is left makes a smaller block.
TEST(SortTokens, BlocksAreOfLikeVectors) {
  const i64 groups = 9, size = 8, D = 40, P = (groups - 1) * size + 3;
  Random random(1);
  std::vector<float> directions(static_cast<size_t>(groups * D)), vectors;
  for (float& value : directions) value = static_cast<float>(random.normal());
  const auto group_of = [&](i64 p) { return p * 7 % P / size; };
  for (i64 p = 0; p < P; ++p)
    for (i64 i = 0; i < D; ++i)
      vectors.push_back((1 + static_cast<float>(p)) * directions[static_cast<size_t>(group_of(p) * D + i)] +
                        0.01f * static_cast<float>(random.normal()));
  const auto backend = make_backend("cpu");
  const auto order = order_in_blocks({vectors.data(), {P, D}}, size, *backend, Random(2));
  std::vector<i64> sorted = order;
  std::sort(sorted.begin(), sorted.end());
  for (i64 p = 0; p < P; ++p) ASSERT_EQ(sorted[static_cast<size_t>(p)], p);
  double alike = 0;  // pairs of neighbours that belong together
  for (size_t i = 0; i + 1 < order.size(); ++i) alike += group_of(order[i]) == group_of(order[i + 1]);
  EXPECT_GT(alike / static_cast<double>(P - groups), 0.8);
  EXPECT_EQ(order, order_in_blocks({vectors.data(), {P, D}}, size, *backend, Random(2)));
}

TEST(SortTokens, TheOrderDoesNotChangeTheFunction) {
  TinyModel model = tiny_model(tiny());
  const auto backend = make_backend("cpu");
  const auto before = logits_of(model.model);
  std::get<ParameterTokens>(model.model.config.layers[0].mlp).old = 100;
  const Model sorted = sort_tokens(model.model, 16, *backend, 1);
  EXPECT_LT(greatest_difference(logits_of(sorted), before), 5e-5);
  EXPECT_EQ(std::get<ParameterTokens>(sorted.config.layers[0].mlp).old, 0);
  EXPECT_FALSE(std::ranges::equal(sorted.weights.layers[1].mlp.tokens.keys.bytes,
                                  model.model.weights.layers[1].mlp.tokens.keys.bytes));
}

// Keys of directions at right angles, of which each input has one, in blocks: the other blocks' scores are 0, and what
// is not read is not missed.
TEST(SortTokens, BlocksThatScoreNothingAreNotMissed) {
  Architecture architecture = tiny();
  architecture.attention_tokens = 0, architecture.layers = 1;
  TinyModel model = tiny_model(architecture);
  auto& mlp = model.flat->views.layers[0].mlp.tokens;
  const i64 d = mlp.keys.shape(1), P = mlp.keys.shape(0), size = 22;
  std::fill(mlp.keys.begin(), mlp.keys.end(), 0.0f);
  // Inputs are of unit mean square, so that the greatest of each is above 0.5: keys along it and all others.
  for (i64 p = 0; p < P; ++p) mlp.keys(p, p * 7 % 15) = 1 + 0.01f * static_cast<float>(p % 5);
  for (i64 id = 0; id < 300; ++id)
    for (i64 i = 0; i < d; ++i)
      model.flat->views.token_embedding(id, i) = i == id % 15 ? 20 : i >= 15 ? static_cast<float>((id * i) % 7 - 3) : 0;
  const auto o = model.flat->views.layers[0].attention.o.weight;  // attention adds nothing
  std::fill(o.begin(), o.end(), 0.0f);
  const auto before = logits_of(model.model);
  const auto backend = make_backend("cpu");
  Model sorted = sort_tokens(model.model, size, *backend, 1);
  sorted.config = with_blocks(sorted, size, 1.0 / 15);
  ASSERT_EQ(std::get<ParameterTokens>(sorted.config.layers[0].mlp).blocks, (TokenBlocks{.size = size, .read = 1}));
  EXPECT_LT(greatest_difference(logits_of(sorted), before), 5e-4);
  // In the order that they had, blocks hold tokens of all directions.
  Model unsorted = model.model;
  unsorted.config = sorted.config;
  EXPECT_GT(greatest_difference(logits_of(unsorted), before), 0.1);
}

TEST(SortTokens, ProjectionsThatWouldSaveNothingAreReadWhole) {
  const TinyModel model = tiny_model(tiny());
  for (const NeuronSite site : neuron_sites(with_blocks(model.model, 16, 1)))
    EXPECT_FALSE(tokens_at(with_blocks(model.model, 16, 1), site)->blocks.active());
  const Config some = with_blocks(model.model, 16, 0.25);
  EXPECT_EQ(std::get<ParameterTokens>(some.layers[0].mlp).blocks, (TokenBlocks{.size = 16, .read = 5}));
  EXPECT_EQ(std::get<SoftmaxAttention>(some.layers[2].mixer).q.blocks, (TokenBlocks{.size = 16, .read = 3}));
}

TEST(SortTokens, WhatCannotBeSortedIsRefusedByName) {
  const auto backend = make_backend("cpu");
  const auto refusal = [&](const Model& model) { return error_of([&] { sort_tokens(model, 16, *backend, 1); }); };
  EXPECT_THAT(refusal(tiny_model().model), HasSubstr("no projection of 16 parameter tokens"));
  Architecture softmax = tiny();
  softmax.theta = Theta::softmax;
  EXPECT_THAT(refusal(tiny_model(softmax).model), HasSubstr("no projection"));
  Architecture quantised = tiny();
  quantised.attention_tokens = quantised.mlp_tokens = 64;
  EXPECT_THAT(refusal(random_model(make_config(quantised), DType::q8_0, 1)),
              HasSubstr("0.q: its values are quantised (q8_0)"));
  const TinyModel model = tiny_model(tiny());
  const Model ramp = grow(model.model, with_parameters(model.model.config, 1.5), NewTokens::ramp, 1);
  EXPECT_THAT(refusal(ramp), HasSubstr("0.q: its new tokens are masked by 0"));
  Model blocks = model.model;
  blocks.config = with_blocks(blocks, 16, 0.25);
  EXPECT_THAT(error_of([&] { grow(blocks, with_parameters(blocks.config, 1.5), NewTokens::zero_keys, 1); }),
              HasSubstr("read in blocks"));
}

}  // namespace
}  // namespace sparsam
