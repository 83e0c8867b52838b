// Training over growth: moments are kept, old tokens frozen, masks taken off, and runs resume bit for bit.
#include <gmock/gmock.h>

#include "levers/deepen.h"
#include "levers/grow.h"
#include "levers/widen.h"
#include "model/neuron_sites.h"
#include "train/test_support.h"

namespace sparsam {
namespace {

using ::testing::HasSubstr;

Config token_config() {
  return make_config(
      {.vocab = 13, .context = 8, .layers = 2, .dim = 16, .heads = 2, .attention_tokens = 10, .mlp_tokens = 24});
}

Recipe growth_recipe() {
  Recipe recipe;
  recipe.batch = 4, recipe.sequence = 8, recipe.precision = Compute::f32, recipe.clip = 0;
  return recipe;
}

void random_window(i64 sample, std::span<i32> window) {
  Random random(9, static_cast<u64>(sample));
  for (i32& id : window) id = static_cast<i32>(random.below(13));
}

std::shared_ptr<FlatParams> weights_of(const Model& model) {
  auto weights = std::make_shared<FlatParams>(parameter_specs(model.config));
  read_weights(model, *weights);
  return weights;
}

OptimizerState state_of(Trainer& trainer) {
  const auto copy = [&](const FlatParams& params) {
    auto flat = std::make_shared<FlatParams>(parameter_specs(trainer.model().config));
    std::copy(params.all().begin(), params.all().end(), flat->all().begin());
    return model_of(trainer.model().config, flat);
  };
  return {copy(trainer.first_moments()), copy(trainer.second_moments()), trainer.updates()};
}

using GrowthTest = TrainTest;

// With keys of zeros the old parameters have the gradients that they had; with their moments they make the same step.
TEST_F(GrowthTest, KeptMomentsMakeTheStepThatWouldHaveBeen) {
  const auto backend = make_backend("cpu");
  const auto weights = std::make_shared<FlatParams>(parameter_specs(token_config()));
  initialize(parameter_specs(token_config()), weights->views, 1);
  Trainer before(token_config(), weights, growth_recipe(), *backend);
  for (int i = 0; i < 5; ++i) before.step(random_window, 1e-2);
  const Model small = model_of(token_config(), weights);
  const Config to = with_tokens(small.config, {.q = 18, .k = 18, .v = 18, .o = 18, .mlp = 40});
  const Model grown = grow(small, to, NewTokens::zero_keys, 2);
  const auto kept = weights_of(grown), reset = weights_of(grown);
  const OptimizerState old = state_of(before);
  const auto grown_moments = [&](const Model& m, Numbers n) { return grow(m, to, NewTokens::zero_keys, 2, n); };
  const OptimizerState state{grown_moments(old.first, Numbers::first_moments),
                             grown_moments(old.second, Numbers::second_moments), old.updates};
  Trainer with(grown.config, kept, growth_recipe(), *backend), without(grown.config, reset, growth_recipe(), *backend);
  take_up(state, with, 5);
  without.go_on_from(5, 0);
  EXPECT_EQ(with.updates(), 5);
  EXPECT_EQ(without.updates(), 0);
  for (Trainer* trainer : {&before, &with, &without}) trainer->step(random_window, 1e-2);
  const auto difference = [&](const FlatParams& other) {  // of old parameters
    double largest = 0;
    for_each_parameter(
        parameter_specs(small.config),
        [&](const std::string&, const ParameterSpec& spec, const Out<float, 2>& a, const Out<float, 2>& b) {
          for (i64 r = 0; r < spec.rows; ++r)
            for (i64 c = 0; c < spec.cols; ++c)
              largest = std::max(largest, std::abs(double{a(r, c)} - double{b(r, c)}));
        },
        weights->views, other.views);
    return largest;
  };
  EXPECT_LT(difference(*kept), 2e-5);  // a step moves a weight by about 1e-2
  EXPECT_GT(difference(*reset), 3e-3);
}

TEST_F(GrowthTest, FrozenPartsStayBitForBit) {
  const auto backend = make_backend("cpu");
  const auto small = std::make_shared<FlatParams>(parameter_specs(token_config()));
  initialize(parameter_specs(token_config()), small->views, 1);
  const Config to = with_tokens(token_config(), {.v = 30, .mlp = 40});
  const Model grown = grow(model_of(token_config(), small), to, NewTokens::zero_keys, 2);
  const auto weights = weights_of(grown), before = weights_of(grown);
  Recipe recipe = growth_recipe();
  recipe.freeze = Freeze::old, recipe.weight_decay = 0.5;
  Trainer trainer(grown.config, weights, recipe, *backend);
  const double first = trainer.step(random_window, 1e-2).loss;
  for (int i = 0; i < 20; ++i) trainer.step(random_window, 1e-2);
  const auto parts = trained_parts(grown.config, Freeze::old);
  i64 moved = 0;
  for_each_parameter(
      parameter_specs(grown.config),
      [&](const std::string& name, const ParameterSpec& spec, const TrainedPart& part, const Out<float, 2>& was,
          const Out<float, 2>& is) {
        const bool keys = name.ends_with(".keys") && !part.all(), values = name.ends_with(".values") && !part.all();
        for (i64 r = 0; r < spec.rows; ++r)
          for (i64 c = 0; c < spec.cols; ++c) {
            const bool trained = (keys && r >= part.row) || (values && part.col > 0 && c >= part.col);
            if (!trained) {
              EXPECT_EQ(was(r, c), is(r, c)) << name << " " << r << " " << c;
            }
            moved += was(r, c) != is(r, c);
          }
      },
      parts, before->views, weights->views);
  EXPECT_EQ(moved, 2 * 2 * 16 * (20 + 16));  // layers, keys and values, width, new tokens of v and of the MLP
  const double last = trainer.step([](i64, std::span<i32> w) { random_window(0, w); }, 0).loss;
  EXPECT_TRUE(std::isfinite(last) && last < first + 0.5);
  EXPECT_THAT([&] { trained_parts(token_config(), Freeze::old); },
              testing::ThrowsMessage<Error>(HasSubstr("no parameter token of the model came with growth")));
}

class GrowthRunTest : public TrainTest {
 protected:
  // A model of 20 steps, grown together with its moments.
  fs::path grown(const std::function<Model(const Model&, Numbers)>& grow) {
    RunOptions options = tiny_run(directory_, "small");
    options.architecture.attention_tokens = 12, options.architecture.mlp_tokens = 32;
    start_run(options, {});
    const fs::path from = directory_with_optimizer(options.out), to = directory_ / "grown";
    const Model model = load_model(from);
    const OptimizerState state = load_optimizer(from, model.config);
    EXPECT_EQ(state.updates, 20);
    fs::create_directories(to);
    save_model(grow(model, Numbers::weights), to);
    save_optimizer(
        {grow(state.first, Numbers::first_moments), grow(state.second, Numbers::second_moments), state.updates}, to);
    fs::copy_file(from / "tokenizer.json", to / "tokenizer.json");
    return to;
  }
  RunOptions on(const fs::path& from, std::string_view out) {
    RunOptions options = tiny_run(directory_, out);
    options.sources.from = from.string(), options.recipe.optimizer = OptimizerStart::keep;
    return options;
  }
  std::string bytes_of(std::string_view out) {
    const fs::path checkpoint = *newest_checkpoint(directory_ / out);
    return read_text(checkpoint / "model.safetensors") + read_text(checkpoint / "config.json") +
           read_text(checkpoint / "training/optimizer.safetensors");
  }
  // In one go, and with a stop after 7 of 20 steps.
  void expect_resumes(const fs::path& from) {
    start_run(on(from, "whole"), {});
    RunOptions parts = on(from, "parts");
    parts.upkeep.stop_after = 7;
    EXPECT_TRUE(start_run(parts, {}).stopped);
    parts.upkeep.stop_after = 0;
    EXPECT_FALSE(resume_run(parts, {}).stopped);
    EXPECT_EQ(bytes_of("whole"), bytes_of("parts"));
    EXPECT_EQ(load_optimizer(*newest_checkpoint(directory_ / "parts"), load_model(directory_ / "parts").config).updates,
              40);
  }
  static Model with_more_tokens(const Model& model, NewTokens how, Numbers numbers) {
    return grow(model, with_tokens(model.config, {.q = 20, .k = 20, .v = 20, .o = 20, .mlp = 50}), how, 3, numbers);
  }

  TemporaryDirectory directory_;
};

TEST_F(GrowthRunTest, ResumesOverTheGrowthOfTokens) {
  expect_resumes(grown([](const Model& m, Numbers n) { return with_more_tokens(m, NewTokens::zero_keys, n); }));
}

TEST_F(GrowthRunTest, ResumesOverTheGrowthOfWidthAndDepth) {
  expect_resumes(grown([](const Model& m, Numbers n) {
    const Model wide = widen(m, widened(m.config, {.dim = 2}), {.seed = 1}, n);
    return deepen(wide, deepened(wide.config, 3), Stacking::zeros, n);
  }));
}

// Half of the run: steps 1 to 10 of 20.
TEST_F(GrowthRunTest, TheMaskIsTakenOff) {
  const fs::path from = grown([](const Model& m, Numbers n) { return with_more_tokens(m, NewTokens::ramp, n); });
  const auto mask = [](const fs::path& model) { return tokens_of(load_model(model).config.layers[1])[0]->mask; };
  EXPECT_EQ(mask(from), 0);
  RunOptions options = on(from, "ramp");
  options.recipe.ramp = 10, options.upkeep.stop_after = 5;
  start_run(options, {});
  EXPECT_FLOAT_EQ(mask(directory_ / "ramp"), 0.5f);
  options.upkeep.stop_after = 0;
  resume_run(options, {});
  EXPECT_EQ(mask(directory_ / "ramp"), 1);
  RunOptions whole = on(from, "whole");
  whole.recipe.ramp = 10;
  start_run(whole, {});
  EXPECT_EQ(bytes_of("ramp"), bytes_of("whole"));
}

TEST_F(GrowthRunTest, SaysWhatIsMissing) {
  RunOptions options = tiny_run(directory_, "small");
  options.recipe.freeze = Freeze::old;
  EXPECT_THAT([&] { start_run(options, {}); }, testing::ThrowsMessage<Error>(HasSubstr("--freeze old")));
  options.recipe.freeze = Freeze::none, options.recipe.optimizer = OptimizerStart::keep;
  EXPECT_THAT([&] { start_run(options, {}); }, testing::ThrowsMessage<Error>(HasSubstr("--optimizer keep")));
  options.recipe.optimizer = OptimizerStart::reset;
  start_run(options, {});
  remove_checkpoints(options.out);
  EXPECT_THAT([&] { start_run(on(directory_ / "small", "next"), {}); },
              testing::ThrowsMessage<Error>(HasSubstr("has no state of the optimizer to keep")));
}

}  // namespace
}  // namespace sparsam
