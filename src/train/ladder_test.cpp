#include "train/ladder.h"

#include <gmock/gmock.h>

#include <cmath>

#include "base/test_support.h"
#include "train/mup.h"
#include "train/test_support.h"

namespace sparsam {
namespace {

using ::testing::HasSubstr;

class LadderTest : public TrainTest {
 protected:
  LadderTest() {
    write_text(directory_ / "train.txt", embedded_corpus(40'000, 1).text);
    write_text(directory_ / "calibration.txt", embedded_corpus(4'000, 2).text);
    write_text(directory_ / "held-out.txt", embedded_corpus(4'000, 3).text);
  }
  Json spec() const {
    return {{"data", {(directory_ / "train.txt").string()}},
            {"calibration", (directory_ / "calibration.txt").string()},
            {"held_out", (directory_ / "held-out.txt").string()},
            {"architecture", {{"vocab", 300}, {"context", 16}, {"head-dim", 8}}},
            {"models", {{{"dim", 16}, {"layers", 1}}, {{"dim", 24}, {"layers", 2}}}},
            {"activations", {"relu", "silu"}},
            {"checkpoints", {500, 1000}},
            {"recipe", {{"batch", 4}, {"warmup", 4}, {"lr", 0.01}, {"mup-base", 16}}},
            {"calibration_tokens", 300},
            {"held_out_tokens", 300}};
  }
  std::string error(const Json& json) const {
    return error_of([&] { ladder_from_json(json, "spec.json"); });
  }
  std::string points(const char* out) const { return read_text(directory_ / out / "points.jsonl"); }

  TemporaryDirectory directory_;
};

TEST_F(LadderTest, MeasuresEveryModelAtEveryCheckpointOnce) {
  i64 measured = 0;
  LadderEvents events;
  events.on_point = [&](const LawPoint&) { ++measured; };
  ASSERT_TRUE(run_ladder(spec(), "spec.json", directory_ / "a", events));
  EXPECT_EQ(measured, 8);
  const auto points = read_law_points(directory_ / "a" / "points.jsonl");
  EXPECT_EQ(points[0].model, "relu-16x1");
  EXPECT_EQ(points[0].tokens, 512);  // the first whole step of 64 tokens
  EXPECT_EQ(points[7].model, "silu-24x2");
  EXPECT_EQ(points[7].parameters, 2 * (4 * 24 * 24 + 3 * 24 * 60 + 2 * 24) + 24);
  for (const LawPoint& point : points) {
    EXPECT_LE(perplexity_at(point, point.cett), 1.01 * point.perplexity * (1 + 1e-9));
    EXPECT_NEAR(point.nonzero_ratio, point.activation == "relu" ? 0.5 : 1, 0.15);
  }
  ASSERT_TRUE(run_ladder(spec(), "spec.json", directory_ / "a", events));
  EXPECT_EQ(measured, 8);
}

TEST_F(LadderTest, AnInterruptedLadderEndsLikeAnotherBitForBit) {
  Json one = spec();
  one["models"].erase(0);
  ASSERT_TRUE(run_ladder(one, "spec.json", directory_ / "whole", {}));
  int asked = 0, calls = 0;
  LadderEvents events;
  events.stop = [&] { return ++asked % 7 == 0; };
  while (!run_ladder(one, "spec.json", directory_ / "parts", events)) ASSERT_LT(++calls, 30);
  EXPECT_GE(calls, 4);
  EXPECT_EQ(points("whole"), points("parts"));
}

TEST_F(LadderTest, ModelsMayBeAddedButTheRestMustAgree) {
  Json first = spec();
  first["models"].erase(1), first["activations"] = {"relu"}, first["checkpoints"] = {500};
  ASSERT_TRUE(run_ladder(first, "spec.json", directory_ / "b", {}));
  Json more = first;
  more["activations"] = {"relu", "silu"};
  ASSERT_TRUE(run_ladder(more, "spec.json", directory_ / "b", {}));
  EXPECT_EQ(read_law_points(directory_ / "b" / "points.jsonl").size(), 2u);
  more["percent"] = 5;
  EXPECT_THAT(error_of([&] { run_ladder(more, "spec.json", directory_ / "b", {}); }),
              HasSubstr("percent is 5, but the points beside"));
  Json same = first;
  same["held_out"] = same["calibration"];
  EXPECT_THAT(error_of([&] { run_ladder(same, "spec.json", directory_ / "c", {}); }),
              HasSubstr("stands in the calibration text"));
}

TEST_F(LadderTest, WrongSpecsAreRefusedByName) {
  const auto with = [&](const char* name, const Json& value) {
    Json json = spec();
    json[name] = value;
    return error(json);
  };
  EXPECT_EQ(error(spec()), "no error");
  EXPECT_THAT(with("modells", 1), HasSubstr("modells"));
  EXPECT_THAT(with("models", {{{"dim", 16}, {"layer", 1}}}), HasSubstr("models[0]: unknown field 'layer'"));
  EXPECT_THAT(with("models", {{{"dim", 20}, {"layers", 1}}}), HasSubstr("dim 20 is not a multiple of head-dim 8"));
  EXPECT_THAT(with("models", {{{"dim", 16}, {"layers", 1}}, {{"dim", 16}, {"layers", 1}}}), HasSubstr("there twice"));
  EXPECT_THAT(with("models", Json::array()), HasSubstr("no models"));
  EXPECT_THAT(with("activations", {"rellu"}), HasSubstr("did you mean relu"));
  EXPECT_THAT(with("checkpoints", {1000, 500}), HasSubstr("expected ascending"));
  EXPECT_THAT(with("checkpoints", {200}), HasSubstr("after the warm-up"));
  EXPECT_THAT(with("recipe", {{"tokens", 5}}), HasSubstr("follow from checkpoints"));
  EXPECT_THAT(with("recipe", {{"schedule", "cosine"}}), HasSubstr("expected constant"));
  EXPECT_THAT(with("recipe", {{"batch", 4}, {"warmup", 4}, {"lr", -1}}), HasSubstr("lr"));
  EXPECT_THAT(with("percent", -1), HasSubstr("percent"));
}

TEST(Mup, ScalesModelDeviationsAndRates) {
  const Architecture shape{.vocab = 100, .layers = 4, .dim = 64, .heads = 2};
  Config config = make_config(shape);
  apply_mup_scales(config, 32);
  EXPECT_FLOAT_EQ(config.embedding_scale, 12);
  EXPECT_FLOAT_EQ(config.branch_scale, 0.7f);
  EXPECT_FLOAT_EQ(config.logit_scale, 0.5f);
  auto specs = parameter_specs(config);
  apply_mup_deviations(specs, config.dim);
  EXPECT_FLOAT_EQ(specs.token_embedding.deviation, 0.1f);
  EXPECT_FLOAT_EQ(specs.layers[1].mlp.down.weight.deviation, 0.2f);  // 0.1 sqrt(256 / 64)
  const auto rate = [&](const char* name, const ParameterSpec& spec) { return mup_rate(name, spec, 64, 32); };
  EXPECT_EQ(rate("model.layers.1.mlp.down_proj.weight", specs.layers[1].mlp.down.weight), 0.5);
  EXPECT_EQ(rate("model.layers.1.input_layernorm.weight", specs.layers[1].attention.norm.gain), 1);
  EXPECT_EQ(rate("model.embed_tokens.weight", specs.token_embedding), 1);
  EXPECT_EQ(mup_rate("model.layers.1.mlp.down_proj.weight", specs.layers[1].mlp.down.weight, 64, 0), 1);
}

// The loss after some steps of learning which token follows which.
double loss_after(i64 dim, i64 base, double learning_rate) {
  const Architecture shape{
      .vocab = 64, .context = 16, .layers = 2, .dim = dim, .heads = dim / 16, .hidden = 5 * dim / 2};
  Config config = make_config(shape);
  if (base > 0) apply_mup_scales(config, base);
  auto specs = parameter_specs(config);
  if (base > 0) apply_mup_deviations(specs, dim);
  const auto weights = std::make_shared<FlatParams>(specs);
  initialize(specs, weights->views, 1);
  const auto backend = make_backend("cpu");
  Recipe recipe{.batch = 8, .sequence = 16, .precision = Compute::f32};
  recipe.mup_base = base;
  Trainer trainer(config, weights, recipe, *backend);
  const WindowSource windows = [](i64 sample, std::span<i32> window) {
    Random random(static_cast<u64>(sample));
    window[0] = static_cast<i32>(random.below(64));
    for (size_t i = 1; i < window.size(); ++i)
      window[i] = static_cast<i32>((5 * window[i - 1] + 3 + static_cast<i32>(random.below(4))) % 64);
  };
  constexpr int steps = 80, last = 10;
  double sum = 0;
  for (int i = 0; i < steps; ++i)
    if (const double loss = trainer.step(windows, learning_rate * std::min(1.0, (i + 1) / 10.0)).loss;
        i >= steps - last)
      sum += loss;
  return sum / last;
}

// Of learning rates a factor of four apart, the best for a narrow model is the best for one of four times its width;
// without muP that one wants a smaller one.
TEST(Mup, OneLearningRateServesAllWidths) {
  set_threads(1);
  const auto best = [](i64 dim, i64 base) {
    double least = INFINITY, rate = 0;
    for (const double learning_rate : {0.004, 0.016, 0.064})
      if (const double loss = loss_after(dim, base, learning_rate); loss < least) least = loss, rate = learning_rate;
    return rate;
  };
  EXPECT_EQ(best(32, 32), 0.016);
  EXPECT_EQ(best(128, 32), 0.016);
  EXPECT_EQ(best(32, 0), 0.016);
  EXPECT_EQ(best(128, 0), 0.004);
  set_threads(0);
}

}  // namespace
}  // namespace sparsam
