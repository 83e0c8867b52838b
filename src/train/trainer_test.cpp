#include "train/trainer.h"

#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "train/test_support.h"

namespace sparsam {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

Config tiny_config() { return make_config({.vocab = 13, .context = 8, .layers = 1, .dim = 16, .heads = 2}); }

Recipe tiny_recipe() {
  Recipe recipe;
  recipe.batch = 4, recipe.sequence = 8, recipe.precision = Compute::f32;
  return recipe;
}

std::shared_ptr<FlatParams> initial(const Config& config, u64 seed = 1) {
  const auto specs = parameter_specs(config);
  auto weights = std::make_shared<FlatParams>(specs);
  initialize(specs, weights->views, seed);
  return weights;
}

void random_window(i64 sample, std::span<i32> window) {
  Random random(9, static_cast<u64>(sample));
  for (i32& id : window) id = static_cast<i32>(random.below(13));
}

double norm(const FlatParams& params) {
  double squared = 0;
  for (const float value : params.all().span()) squared += static_cast<double>(value) * static_cast<double>(value);
  return std::sqrt(squared);
}

using TrainerTest = TrainTest;

TEST_F(TrainerTest, LearnsACycle) {
  const Config config = tiny_config();
  const auto backend = make_backend("reference");
  Recipe recipe = tiny_recipe();
  Trainer trainer(config, initial(config), recipe, *backend);
  const WindowSource cycle = [](i64 sample, std::span<i32> window) {
    for (size_t t = 0; t < window.size(); ++t) window[t] = static_cast<i32>((static_cast<size_t>(sample) + 3 * t) % 13);
  };
  const double first = trainer.step(cycle, 0.01).loss;
  StepMetrics last;
  for (int i = 0; i < 60; ++i) last = trainer.step(cycle, 0.01);
  EXPECT_NEAR(first, std::log(13.0), 0.1);  // small weights: all tokens are alike
  EXPECT_LT(last.loss, 0.1);
  EXPECT_EQ(last.step, 61);
  EXPECT_EQ(last.tokens, 61 * 32);
}

TEST_F(TrainerTest, AccumulationIsALargerBatch) {
  const Config config = tiny_config();
  const auto backend = make_backend("reference");
  Recipe whole = tiny_recipe(), parts = tiny_recipe();
  parts.batch = 1, parts.accumulate = 4;
  Trainer a(config, initial(config), whole, *backend), b(config, initial(config), parts, *backend);
  const StepMetrics ma = a.step(random_window, 1e-3), mb = b.step(random_window, 1e-3);
  EXPECT_NEAR(ma.loss, mb.loss, 1e-6);
  EXPECT_NEAR(ma.gradient_norm, mb.gradient_norm, 1e-5 * ma.gradient_norm);
  EXPECT_EQ(ma.tokens, mb.tokens);
  // The first moment is (1 - beta1) times the gradient.
  for (i64 i = 0; i < a.first_moments().all().size(); ++i)
    EXPECT_NEAR(a.first_moments().all()[i], b.first_moments().all()[i], 1e-7f);
}

TEST_F(TrainerTest, ClipsTheGradient) {
  const Config config = tiny_config();
  const auto backend = make_backend("reference");
  Recipe recipe = tiny_recipe();
  recipe.clip = 0.01;
  Trainer trainer(config, initial(config), recipe, *backend);
  const StepMetrics metrics = trainer.step(random_window, 1e-3);
  ASSERT_GT(metrics.gradient_norm, recipe.clip);
  EXPECT_NEAR(norm(trainer.first_moments()), (1 - recipe.beta1) * recipe.clip, 1e-8);
}

TEST_F(TrainerTest, DecaysMatricesOnly) {
  const Config config = tiny_config();
  const auto specs = parameter_specs(config);
  const auto backend = make_backend("reference");
  Recipe with = tiny_recipe(), without = tiny_recipe();
  with.weight_decay = 0.5, without.weight_decay = 0;
  const auto before = initial(config), a = initial(config), b = initial(config);
  constexpr double lr = 0.01;
  Trainer(config, a, with, *backend).step(random_window, lr);
  Trainer(config, b, without, *backend).step(random_window, lr);
  for_each_parameter(
      specs,
      [&](const std::string& name, const ParameterSpec& spec, const Out<float, 2>& w, const Out<float, 2>& decayed,
          const Out<float, 2>& plain) {
        const double decay = spec.is_vector ? 0 : lr * with.weight_decay;
        for (i64 i = 0; i < w.size(); ++i)
          EXPECT_NEAR(plain.data()[i] - decayed.data()[i], decay * static_cast<double>(w.data()[i]), 3e-7) << name;
      },
      before->views, a->views, b->views);
}

TEST_F(TrainerTest, StopsBeforeANumberThatIsNotFinite) {
  const Config config = tiny_config();
  const auto backend = make_backend("reference");
  const auto weights = initial(config);
  Trainer trainer(config, weights, tiny_recipe(), *backend);
  trainer.step(random_window, 1e-3);
  weights->all()[5] = std::numeric_limits<float>::quiet_NaN();  // of the embedding of token 0
  const std::vector<float> before(weights->all().begin(), weights->all().end());
  EXPECT_THAT([&] { trainer.step(random_window, 1e-3); }, ThrowsMessage<Error>(HasSubstr("step 2: loss is nan")));
  EXPECT_EQ(trainer.steps_done(), 1);
  for (size_t i = 0; i < before.size(); ++i)
    if (i != 5) {
      EXPECT_EQ(weights->all()[static_cast<i64>(i)], before[i]);
    }
}

TEST_F(TrainerTest, EvaluatesEveryTokenOnce) {
  const TemporaryDirectory directory;
  const Config config = tiny_config();
  const auto backend = make_backend("reference");
  // Weights of zero: every token has probability 1 / 13.
  Trainer trainer(config, std::make_shared<FlatParams>(parameter_specs(config)), tiny_recipe(), *backend);
  const std::vector<i32> bytes(13, 3);
  for (const i64 n : {2, 9, 10, 75, 80}) {  // a rest alone, one window, with a rest, many
    std::vector<i32> ids(static_cast<size_t>(n), 4);
    write_token_file(directory / "valid.tokens", ids, 13, 0);
    const TokenFile tokens = TokenFile::open(directory / "valid.tokens");
    const Evaluation all = trainer.evaluate(tokens, 0, bytes);
    EXPECT_EQ(all.tokens, n - 1);
    EXPECT_NEAR(all.perplexity(), 13, 1e-5);
    EXPECT_NEAR(all.bits_per_byte(), std::log2(13.0) / 3, 1e-6);
    EXPECT_EQ(trainer.evaluate(tokens, 5, bytes).tokens, std::min<i64>(5, n - 1));
  }
}

TEST_F(TrainerTest, EvaluationAgreesWithTheTrainingLoss) {
  const TemporaryDirectory directory;
  const Config config = tiny_config();
  const auto backend = make_backend("reference");
  std::vector<i32> ids(4 * 8 + 1);
  random_window(0, ids);
  write_token_file(directory / "valid.tokens", ids, 13, 0);
  const TokenFile tokens = TokenFile::open(directory / "valid.tokens");
  const WindowSource windows = [&](i64 sample, std::span<i32> window) {
    tokens.copy(sample % 4 * 8, 9, window.data());
  };
  Trainer trainer(config, initial(config), tiny_recipe(), *backend);
  const double evaluated = trainer.evaluate(tokens, 0, std::vector<i32>(13, 1)).loss;
  EXPECT_NEAR(trainer.step(windows, 1e-3).loss, evaluated, 1e-6);
}

}  // namespace
}  // namespace sparsam
