// Activation sparsity against PyTorch (tools/write_sparsity_goldens.py) and against models whose live neurons are
// known.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "measure/sparsity_search.h"
#include "measure/sparsity_test_support.h"

namespace sparsam {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

class SparsityGolden : public ::testing::TestWithParam<const char*> {
 protected:
  Golden golden_ = golden(GetParam());
  std::unique_ptr<Backend> backend_ = make_backend("cpu");
  Transformer transformer_{golden_.model, *backend_, Compute::f32, 64};
};

TEST_P(SparsityGolden, CurvesAreTorchs) {
  ProfileOptions options{.context = golden_.length, .tokens = 0, .at = {}};
  for (const Json& layer : golden_.json["layers"]) options.at.push_back(layer["thresholds"].get<std::vector<float>>());
  const ActivationProfile profile = profile_activations(transformer_, golden_.calibration, options);
  ASSERT_EQ(profile.layers.size(), options.at.size());
  for (size_t l = 0; l < profile.layers.size(); ++l) {
    const Json& expected = golden_.json["layers"][l];
    const LayerCurve& curve = profile.layers[l];
    EXPECT_NEAR(curve.exact_zeros, expected["exact_zeros"].get<double>(), 1e-4);
    EXPECT_NEAR(curve.gate_zeros, expected["gate_zeros"].get<double>(), 1e-4);
    for (size_t k = 0; k < curve.cett.size(); ++k) {
      EXPECT_NEAR(curve.cett[k], expected["cett"][k].get<double>(), 1e-4) << "layer " << l;
      EXPECT_NEAR(curve.sparsity[k], expected["sparsity"][k].get<double>(), 1e-4) << "layer " << l;
    }
  }
}

TEST_P(SparsityGolden, PerplexityOfGivenThresholdsIsTorchs) {
  const SparsitySearch search(golden_.model, *backend_, Compute::f32, 64,
                              [&](const Transformer& model) { return mean_loss(golden_, model); });
  EXPECT_NEAR(search.dense_perplexity() / golden_.json["dense_perplexity"].get<double>(), 1, 1e-4);
  for (const Json& point : golden_.json["points"]) {
    std::vector<Truncation> layers;
    for (const Json& threshold : point["thresholds"])
      layers.push_back({.measure = Truncation::Measure::output, .threshold = threshold.get<float>(), .keep = 0});
    const SparsityPoint found = search.measure(layers);
    EXPECT_NEAR(found.perplexity / point["perplexity"].get<double>(), 1, 1e-4);
    EXPECT_NEAR(found.sparsity, point["sparsity"].get<double>(), 1e-4);
    for (size_t l = 0; l < layers.size(); ++l)
      EXPECT_NEAR(found.site_sparsity[l], point["layer_sparsity"][l].get<double>(), 1e-4);
  }
}

TEST_P(SparsityGolden, PplPointsAreTorchs) {
  SparsitySearch search(golden_.model, *backend_, Compute::f32, 64,
                        [&](const Transformer& model) { return mean_loss(golden_, model); });
  // The script has no list of thresholds but each search's own, to the last bit. The test's list is fine where those
  // ended: perplexity is not monotone, and another neuron in or out there ends the search elsewhere.
  ProfileOptions options{.context = golden_.length, .tokens = 0, .at = {}};
  for (size_t l = 0; l < golden_.json["layers"].size(); ++l) {
    std::vector<float> at;
    for (int k = 0; k <= 16384; ++k) at.push_back(static_cast<float>(std::exp(-12 + 16.0 * k / 16384)));
    for (const Json& point : golden_.json["points"])
      for (int k = -1000; k <= 1000; ++k)
        at.push_back(static_cast<float>(point["thresholds"][l].get<double>() * (1 + 1e-5 * k)));
    std::sort(at.begin(), at.end());
    options.at.push_back(at);
  }
  const ActivationProfile profile = profile_activations(transformer_, golden_.calibration, options);
  const TruncationRule rule = cett_rule(profile);
  for (const Json& point : golden_.json["points"]) {
    const double percent = point["percent"].get<double>();
    const SparsityPoint found = search.at_rise(rule, percent, std::exp2(-20));  // the script's 20 rounds
    EXPECT_LE(found.perplexity, search.dense_perplexity() * (1 + percent / 100));
    EXPECT_NEAR(found.at, point["cett"].get<double>(), 1e-4) << percent << " %";
    EXPECT_NEAR(found.sparsity, point["sparsity"].get<double>(), 1e-4) << percent << " %";
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, SparsityGolden, ::testing::Values("silu", "relu", "gelu_plain", "relu2_plain"));

// A plain ReLU MLP whose neurons answer to known tokens only: neuron i lives where the embedding's channel i is
// positive.
struct Planted {
  std::shared_ptr<FlatParams> flat;
  Model model;
};
Planted planted_model() {
  constexpr i64 channels = 8;
  Config config = make_config({.vocab = 4,
                               .context = 16,
                               .layers = 1,
                               .dim = channels,
                               .heads = 1,
                               .hidden = channels,
                               .gated = false,
                               .activation = Function::relu,
                               .norm_gain = false,
                               .positions = Positions::none});
  config.layers[0].mixer = std::monostate{};
  Planted planted{std::make_shared<FlatParams>(parameter_specs(config)), {}};
  auto& views = planted.flat->views;
  for (i64 token = 0; token < 4; ++token)
    for (i64 c = 0; c < channels; ++c) views.token_embedding(token, c) = c < 2 * token ? 1.f : -1.f;  // 0, 2, 4, 6 live
  for (i64 c = 0; c < channels; ++c) {
    views.layers[0].mlp.up.weight(c, c) = 1;
    views.layers[0].mlp.down.weight(c, c) = static_cast<float>(1 + c);
  }
  planted.model = model_of(config, planted.flat);
  return planted;
}

TEST(Sparsity, APlantedModelIsMeasuredExactly) {
  const Planted planted = planted_model();
  const auto backend = make_backend("reference");
  const Transformer transformer(planted.model, *backend, Compute::f32, 16);
  const std::vector<i32> tokens{0, 1, 2, 3};
  const ActivationProfile profile = profile_activations(transformer, tokens, {.context = 4, .tokens = 0, .at = {}});
  EXPECT_DOUBLE_EQ(profile.exact_zeros(), 1 - (0 + 2 + 4 + 6) / 32.0);
  EXPECT_DOUBLE_EQ(profile.gate_zeros(), 0);  // nothing decides before fc1 is read

  // Live neuron c adds a vector of length 1 + c: below 2.5 are the first two of each token.
  const ActivationProfile at =
      profile_activations(transformer, tokens, {.context = 4, .tokens = 0, .at = {{0.5f, 2.5f, 100.f}}});
  EXPECT_THAT(at.layers[0].sparsity, ElementsAre(20 / 32.0, 26 / 32.0, 1));
  const double two = std::sqrt(1. + 4), four = std::sqrt(1. + 4 + 9 + 16), six = std::sqrt(91.);
  EXPECT_NEAR(at.layers[0].cett[1], (0 + 1 + two / four + two / six) / 4, 1e-6);
  EXPECT_DOUBLE_EQ(at.layers[0].cett[2], 3 / 4.0);  // the first token's MLP answers nothing and loses nothing
}

TEST(Sparsity, ThresholdsGrowWithTheCett) {
  LayerCurve curve{0, 0, 0, {1e-9f, 1, 2, 4}, {0, 0.1, 0.2, 0.8}, {0, 0, 0, 0}};
  EXPECT_FLOAT_EQ(curve.threshold_at(0), 1e-9f);
  EXPECT_FLOAT_EQ(curve.threshold_at(0.1), 1);
  EXPECT_FLOAT_EQ(curve.threshold_at(0.4), std::sqrt(8.f));  // halfway on both logarithmic axes
  EXPECT_FLOAT_EQ(curve.threshold_at(1), 4);
}

TEST(Sparsity, RefusesWhatCannotBeMeasured) {
  const Planted planted = planted_model();
  const auto backend = make_backend("reference");
  const Transformer transformer(planted.model, *backend, Compute::f32, 16);
  EXPECT_THAT([&] { profile_activations(transformer, {}, {.at = {}}); }, ThrowsMessage<Error>(HasSubstr("no tokens")));
  planted.flat->views.token_embedding(1, 0) = NAN;
  EXPECT_THAT([&] { profile_activations(transformer, std::vector<i32>{1}, {.at = {}}); },
              ThrowsMessage<Error>(HasSubstr("not finite")));
}

}  // namespace
}  // namespace sparsam
