// Training for sparsity against PyTorch: gradients of a loss with the L1 penalty, in double precision by
// tools/write_l1_goldens.py, which shares no code with the sources.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "formats/safetensors.h"
#include "train/checkpoint.h"
#include "train/test_support.h"

namespace sparsam {
namespace {

In<float, 1> floats(const SafetensorsFile& file, const std::string& name) {
  const TensorEntry& entry = file.at(name);
  return {reinterpret_cast<const float*>(entry.bytes.data()), {entry.elements()}};
}

class L1Golden : public ::testing::TestWithParam<std::tuple<const char*, const char*>> {
 protected:
  const fs::path directory_ = fs::path(SPARSAM_TEST_DATA) / "golden/l1" / std::get<0>(GetParam());
  const std::unique_ptr<Backend> backend_ = make_backend(std::get<1>(GetParam()));
  const SafetensorsFile golden_ = SafetensorsFile::open(directory_ / "golden.safetensors");
  const Model model_ = load_model(directory_);
};

// The first moment after one step without clipping is (1 - beta1) times the gradient.
TEST_P(L1Golden, TheStepIsTorchs) {
  constexpr double lambda = 0.75;  // the script's
  const TensorEntry& entry = golden_.at("tokens");
  Recipe recipe;
  recipe.batch = entry.shape[0], recipe.sequence = entry.shape[1] - 1;
  recipe.precision = Compute::f32, recipe.clip = 0, recipe.beta1 = 0.5;
  const auto specs = parameter_specs(model_.config);
  auto weights = std::make_shared<FlatParams>(specs);
  read_weights(model_, *weights);
  Trainer trainer(model_.config, weights, recipe, *backend_);
  const auto* tokens = reinterpret_cast<const i32*>(entry.bytes.data());
  const StepMetrics metrics = trainer.step(
      [&](i64 sample, std::span<i32> window) {
        std::copy_n(tokens + sample * entry.shape[1], window.size(), window.data());
      },
      1e-3, lambda);

  constexpr double tolerance = 1e-5;  // some tens of half ulps of the largest value
  EXPECT_NEAR(metrics.loss, floats(golden_, "loss")[0], tolerance * metrics.loss);  // the language model's alone
  EXPECT_NEAR(l1_penalty(metrics.activity), floats(golden_, "penalty")[0], tolerance);
  EXPECT_EQ(metrics.l1, lambda);
  for (const LayerActivity& layer : metrics.activity) {
    EXPECT_FLOAT_EQ(static_cast<float>(layer.activation_ratio), floats(golden_, "activation_ratio")[layer.layer]);
    EXPECT_FLOAT_EQ(static_cast<float>(layer.dead_neurons), floats(golden_, "dead_neurons")[layer.layer]);
  }
  for_each_parameter(
      specs,
      [&](const std::string& name, const ParameterSpec&, const Out<float, 2>& moment) {
        const In<float, 1> expected = floats(golden_, "gradient." + name);
        ASSERT_EQ(moment.size(), expected.size()) << name;
        double difference = 0, largest = 1e-3;
        for (i64 i = 0; i < expected.size(); ++i) {
          const double gradient = static_cast<double>(moment.data()[i]) / (1 - recipe.beta1);
          difference = std::max(difference, std::abs(gradient - static_cast<double>(expected[i])));
          largest = std::max(largest, std::abs(static_cast<double>(expected[i])));
        }
        EXPECT_LT(difference / largest, 2 * tolerance) << name;
      },
      trainer.first_moments().views);
}

INSTANTIATE_TEST_SUITE_P(
    Models, L1Golden,
    ::testing::Combine(::testing::Values("silu", "relu", "relu2_plain", "gelu_plain", "drelu", "fatrelu"),
                       ::testing::Values("reference", "cpu")),
    [](const auto& info) { return std::string(std::get<0>(info.param)) + "_" + std::get<1>(info.param); });

}  // namespace
}  // namespace sparsam
