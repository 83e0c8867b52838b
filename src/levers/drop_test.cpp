#include "levers/drop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/test_support.h"
#include "infer/session.h"
#include "infer/test_support.h"

namespace sparsam {
namespace {

using testing::HasSubstr;

std::vector<float> logits_of(const Model& model, const std::vector<i32>& ids) {
  const auto backend = make_backend("cpu");
  Session session(model, *backend, {.cache = DType::f32});
  const auto logits = session.prefill(ids);
  return {logits.begin(), logits.end()};
}

const auto ids = random_ids(20, 300, 11);

TEST(Drop, ASublayerThatDoesNothingChangesNoLogit) {
  const TinyModel tiny = tiny_model();
  for (float& value : tiny.flat->views.layers[1].attention.o.weight.span()) value = 0;
  for (float& value : tiny.flat->views.layers[0].mlp.down.weight.span()) value = 0;
  const Model thinner = drop(tiny.model, {.attention = {1}, .mlp = {0}});
  EXPECT_EQ(logits_of(thinner, ids), logits_of(tiny.model, ids));  // bit for bit: x + 0 = x
  EXPECT_FALSE(has_attention(thinner.config.layers[1]));
  EXPECT_TRUE(has_mlp(thinner.config.layers[1]));
  EXPECT_EQ(logits_of(drop(tiny.model, {}), ids), logits_of(tiny.model, ids));
}

TEST(Drop, ParametersAndCacheAreGone) {
  const TinyModel tiny = tiny_model();
  const Model thinner = drop(tiny.model, {.attention = {2}, .mlp = {0}});
  // Attention: norm 32, q and o 32 x 32, k and v 16 x 32. MLP: norm 32, three of 48 x 32.
  const i64 attention = 32 + 2 * 32 * 32 + 2 * 16 * 32, mlp = 32 + 3 * 48 * 32;
  EXPECT_EQ(parameter_count(thinner.config), parameter_count(tiny.model.config) - attention - mlp);
  EXPECT_EQ(weight_bytes(thinner), weight_bytes(tiny.model) - 4 * (attention + mlp));
  EXPECT_EQ(cache_elements_per_token(thinner.config), 2 * 2 * 2 * 8);
}

TEST(Drop, AnEmptyLayerIsRemovedAndLaterOnesMoveUp) {
  const TinyModel tiny = tiny_model();
  for (float& value : tiny.flat->views.layers[1].attention.o.weight.span()) value = 0;
  for (float& value : tiny.flat->views.layers[1].mlp.down.weight.span()) value = 0;
  const Model thinner = drop(tiny.model, {.attention = {1}, .mlp = {1}});
  ASSERT_EQ(thinner.config.layers.size(), 2u);
  EXPECT_EQ(thinner.weights.layers[1].mlp.up.weight.bytes.data(),
            tiny.model.weights.layers[2].mlp.up.weight.bytes.data());
  EXPECT_EQ(logits_of(thinner, ids), logits_of(tiny.model, ids));
  const Model empty = drop(tiny.model, {.attention = {0, 1, 2}, .mlp = {0, 1, 2}});
  EXPECT_TRUE(empty.config.layers.empty());
  EXPECT_EQ(logits_of(empty, ids).size(), 300u);
}

TEST(Drop, SurvivesSavingAndLoading) {
  const fs::path directory = fs::path(testing::TempDir()) / "sparsam_drop_test";
  for (const Architecture& architecture : {tiny_llama_like, tiny_gpt_like}) {
    const TinyModel tiny = tiny_model(architecture);
    for (const Drops& drops : {Drops{{0}, {1}}, Drops{{1}, {1}}, Drops{{0, 1}, {}}}) {
      const Model thinner = drop(tiny.model, drops);
      fs::remove_all(directory);
      fs::create_directories(directory);
      save_model(thinner, directory);
      const Model loaded = load_model(directory);
      EXPECT_EQ(loaded.config, thinner.config);
      EXPECT_EQ(logits_of(loaded, ids), logits_of(thinner, ids));
      const Model again = drop(loaded, {.mlp = {0}});  // a dropped model drops again
      EXPECT_EQ(parameter_count(again.config), parameter_count(drop(thinner, {.mlp = {0}}).config));
    }
  }
  fs::remove_all(directory);
}

TEST(Drop, RefusesWhatIsNotThere) {
  const TinyModel tiny = tiny_model();
  EXPECT_THAT(error_of([&] { drop(tiny.model, {.attention = {3}}); }), HasSubstr("out of range"));
  EXPECT_THAT(error_of([&] { drop(tiny.model, {.mlp = {-1}}); }), HasSubstr("out of range"));
  EXPECT_THAT(error_of([&] { drop(tiny.model, {.mlp = {1, 1}}); }), HasSubstr("named twice"));
  const Model thinner = drop(tiny.model, {.attention = {1}});
  EXPECT_THAT(error_of([&] { drop(thinner, {.attention = {1}}); }), HasSubstr("layer 1 has no attention"));
}

TEST(ParseDrops, ReadsLists) {
  const Config config = tiny_model().model.config;
  EXPECT_EQ(parse_drops("attn:2,mlp:0,attention:1", config), (Drops{{1, 2}, {0}}));
  EXPECT_EQ(parse_drops("block:1,mlp:2", config), (Drops{{1}, {1, 2}}));
  for (const char* wrong : {"", "attn", "attn:", "attn:x", "attn:1,", "atn:1", "attn:3", "attn:1,attn:1", "attn:1.5",
                            "mlp:1,block:1", "attn:-1", "attn:99999999999999999999"})
    EXPECT_THROW(parse_drops(wrong, config), Error) << wrong;
}

// Attention 0.5 0.1 0.3, MLP 0.2 0.1 0.9, blocks 0.4 0.6 0.4.
std::vector<SublayerScore> scores() {
  using enum Sublayer;
  return {{0, attention, 0.5}, {0, mlp, 0.2},       {0, block, 0.4}, {1, attention, 0.1}, {1, mlp, 0.1},
          {1, block, 0.6},     {2, attention, 0.3}, {2, mlp, 0.9},   {2, block, 0.4}};
}

TEST(SelectDrops, TakesTheLowestScores) {
  const Config config = tiny_model().model.config;
  EXPECT_EQ(select_drops(config, scores(), {.attention = 2}), (Drops{{1, 2}, {}}));
  EXPECT_EQ(select_drops(config, scores(), {.attention = 1, .mlp = 2}), (Drops{{1}, {0, 1}}));
  EXPECT_EQ(select_drops(config, scores(), {.joint = 3}), (Drops{{1}, {0, 1}}));
  EXPECT_EQ(select_drops(config, scores(), {.block = 1}), (Drops{{2}, {2}}));  // equal scores: the later
  EXPECT_EQ(select_drops(config, scores(), {.block = 3}), (Drops{{0, 1, 2}, {0, 1, 2}}));
  EXPECT_EQ(select_drops(config, {}, {}), Drops{});
}

TEST(SelectDrops, RefusesWhatCannotBe) {
  Config config = tiny_model().model.config;
  EXPECT_THAT(error_of([&] { select_drops(config, scores(), {.attention = 4}); }), HasSubstr("expected 0 to 3"));
  EXPECT_THAT(error_of([&] { select_drops(config, scores(), {.joint = 7}); }), HasSubstr("expected 0 to 6"));
  EXPECT_THAT(error_of([&] { select_drops(config, scores(), {.attention = 1, .joint = 1}); }), HasSubstr("--joint"));
  EXPECT_THAT(error_of([&] { select_drops(config, scores(), {.mlp = 1, .block = 1}); }), HasSubstr("--block"));
  EXPECT_THAT(error_of([&] { select_drops(config, {}, {.mlp = 1}); }), HasSubstr("the scores lack mlp:0"));
  config.layers[1].mixer = std::monostate{};
  EXPECT_THAT(error_of([&] { select_drops(config, scores(), {.attention = 3}); }), HasSubstr("expected 0 to 2"));
  EXPECT_EQ(select_drops(config, scores(), {.attention = 1}), (Drops{{2}, {}}));
}

}  // namespace
}  // namespace sparsam
