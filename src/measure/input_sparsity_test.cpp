// Input sparsity against PyTorch (tools/write_input_sparsity_goldens.py) and against what is known exactly.
#include "measure/input_sparsity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "measure/sparsity_test_support.h"

namespace sparsam {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

constexpr std::array<const char*, block_inputs> names{"qkv", "o", "up", "down"};

float& threshold_of(InputThresholds& thresholds, size_t input) {
  std::array<float*, block_inputs> all{&thresholds.qkv, &thresholds.o, &thresholds.up, &thresholds.down};
  return *all[input];
}

TEST(Magnitudes, QuantilesAreWithinAnInterval) {
  Random random(1);
  Magnitudes magnitudes;
  std::vector<float> values(20000);
  for (float& value : values) value = static_cast<float>(random.normal() * std::exp(3 * random.normal()));
  for (size_t i = 0; i < values.size(); i += 4) values[i] = 0;
  magnitudes.add(std::span(values).first(7000));
  magnitudes.add(std::span(values).subspan(7000));
  EXPECT_EQ(magnitudes.count(), values.size());
  for (float& value : values) value = std::abs(value);
  std::sort(values.begin(), values.end());
  for (const double fraction : {0.1, 0.25, 0.3, 0.5, 0.9, 0.999, 1.0}) {
    const float exact = values[static_cast<size_t>(std::ceil(fraction * static_cast<double>(values.size()))) - 1];
    EXPECT_NEAR(magnitudes.quantile(fraction), exact, exact / 128) << fraction;
  }
  EXPECT_EQ(magnitudes.quantile(0), 0);
  EXPECT_EQ(Magnitudes().quantile(0.5), 0);
  magnitudes.add(std::vector<float>{NAN});
  EXPECT_FALSE(magnitudes.finite());
}

class InputGolden : public ::testing::TestWithParam<const char*> {
 protected:
  InputGolden() {
    const std::string path = (fs::path(SPARSAM_TEST_DATA) / "golden/sparsity" / GetParam() / "inputs.json").string();
    json_ = parse_json(read_text(path), path);
  }
  Golden golden_ = golden(GetParam());
  Json json_;
  std::unique_ptr<Backend> backend_ = make_backend("cpu");
};

TEST_P(InputGolden, QuantilesAreTorchs) {
  const Transformer transformer(golden_.model, *backend_, Compute::f32, 64);
  const i64 dense = json_["dense_positions"].get<i64>();
  const InputProfile profile = profile_inputs(transformer, golden_.calibration,
                                              {.context = golden_.length, .tokens = 0, .dense_positions = dense});
  for (const Json& point : json_["points"]) {
    const InputSparsity found =
        input_thresholds(profile, InputAllocation(profile.layers.size()), point["fraction"].get<double>());
    for (size_t l = 0; l < found.layers.size(); ++l)
      for (size_t i = 0; i < block_inputs; ++i) {
        InputThresholds thresholds = found.layers[l];
        const double expected = point["quantiles"][l][names[i]].get<double>();
        EXPECT_NEAR(threshold_of(thresholds, i), expected, expected / 128 + 1e-7) << "layer " << l << " " << names[i];
      }
  }
}

TEST_P(InputGolden, PerplexityUnderMasksIsTorchs) {
  const InputSearch search(golden_.model, *backend_, Compute::f32, 64,
                           [&](const Transformer& model) { return mean_loss(golden_, model); });
  EXPECT_NEAR(search.dense_perplexity() / golden_.json["dense_perplexity"].get<double>(), 1, 1e-4);
  for (const Json& point : json_["points"]) {
    InputSparsity inputs{.layers = {}, .dense_positions = json_["dense_positions"].get<i64>()};
    for (const Json& layer : point["thresholds"]) {
      InputThresholds& thresholds = inputs.layers.emplace_back();
      for (size_t i = 0; i < block_inputs; ++i) threshold_of(thresholds, i) = layer[names[i]].get<float>();
    }
    const InputPoint found = search.measure(inputs);
    EXPECT_NEAR(found.perplexity / point["perplexity"].get<double>(), 1, 1e-4);
    for (size_t l = 0; l < inputs.layers.size(); ++l)
      for (size_t i = 0; i < block_inputs; ++i)
        EXPECT_NEAR(found.layers[l][i], point["left_out"][l][names[i]].get<double>(), 1e-4) << names[i];
  }
}

// Greedy shares cost the blocks' outputs, and with them the perplexity, no more than equal ones; both keep the target.
TEST_P(InputGolden, GreedySharesKeepTheTarget) {
  const Transformer transformer(golden_.model, *backend_, Compute::f32, 64);
  const InputProfile profile =
      profile_inputs(transformer, golden_.calibration, {.context = golden_.length, .tokens = 0, .dense_positions = 0});
  const InputAllocation uniform(profile.layers.size());
  const InputAllocation greedy(transformer, profile,
                               std::span(golden_.calibration).first(static_cast<size_t>(golden_.length)), {});
  for (const double target : {0.1, 0.33, 0.5})
    for (size_t l = 0; l < profile.layers.size(); ++l) {
      const auto bytes = input_bytes(golden_.model.weights.layers[l]);
      double left_out = 0, all = 0;
      const InputFractions shares = greedy.at(l, target);
      for (size_t i = 0; i < block_inputs; ++i) {
        left_out += shares[i] * bytes[i], all += bytes[i];
        EXPECT_EQ(uniform.at(l, target)[i], target);
      }
      EXPECT_NEAR(left_out / all, target, 1e-9);
    }
  const InputSearch search(golden_.model, *backend_, Compute::f32, 64,
                           [&](const Transformer& model) { return mean_loss(golden_, model); });
  const auto perplexity = [&](const InputAllocation& allocation) {
    const InputPoint point = search.measure(input_thresholds(profile, allocation, 0.4));
    EXPECT_NEAR(point.left_out, 0.4, 0.03);
    return point.perplexity;
  };
  EXPECT_LT(perplexity(greedy), 1.002 * perplexity(uniform));
  const InputPoint found = search.at_rise([&](double target) { return input_thresholds(profile, greedy, target); }, 5);
  EXPECT_LE(found.perplexity, 1.05 * search.dense_perplexity());
  EXPECT_GT(found.perplexity, 1.03 * search.dense_perplexity());  // the budget is used
}

INSTANTIATE_TEST_SUITE_P(Cases, InputGolden, ::testing::Values("silu", "relu", "gelu_plain", "relu2_plain"));

TEST(InputSparsity, RefusesWhatCannotBeMeasured) {
  const Golden g = golden("silu");
  const auto backend = make_backend("cpu");
  const Transformer transformer(g.model, *backend, Compute::f32, 64);
  EXPECT_THAT([&] { profile_inputs(transformer, {}, {}); }, ThrowsMessage<Error>(HasSubstr("no tokens")));
  Model thin = g.model;
  thin.config.inputs.layers.resize(thin.config.layers.size());
  const Transformer thinner(thin, *backend, Compute::f32, 64);
  EXPECT_THAT([&] { profile_inputs(thinner, g.calibration, {}); }, ThrowsMessage<Error>(HasSubstr("already")));
}

}  // namespace
}  // namespace sparsam
