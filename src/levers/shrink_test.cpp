#include "levers/shrink.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "base/files.h"
#include "base/test_support.h"
#include "infer/test_support.h"
#include "model/gguf.h"

namespace sparsam {
namespace {

using testing::HasSubstr;

Architecture tiny(Theta theta = Theta::l2_gelu) {
  Architecture a = preset("tokenformer-nano");
  a.vocab = 300, a.layers = 2, a.dim = 24, a.attention_tokens = 20, a.mlp_tokens = 40, a.theta = theta;
  return a;
}

const auto ids = random_ids(48, 300, 3);

std::vector<Contributions> contributions_of(const Model& model, Score score = Score::peak) {
  const auto backend = make_backend("cpu");
  const Transformer transformer(model, *backend, Compute::f32, 24);
  return measure_contributions(transformer, ids, {.context = 24, .tokens = 0, .score = score});
}

std::vector<float> logits_of(const Model& model) {
  const auto backend = make_backend("cpu");
  const Transformer transformer(model, *backend, Compute::f32, 24);
  Arena arena;
  const auto logits = transformer.logits(transformer.forward({.ids = {ids.data(), {24}}}, arena), arena);
  return {logits.begin(), logits.end()};
}

double relative_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference = std::max(difference, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
    largest = std::max(largest, std::abs(static_cast<double>(a[i])));
  }
  return difference / largest;
}

bool same_weights(const Model& a, const Model& b) {
  bool same = true;
  for_each_parameter(
      parameter_specs(a.config),
      [&](const std::string&, const ParameterSpec&, const Matrix& left, const Matrix& right) {
        same = same && std::ranges::equal(left.bytes, right.bytes);
      },
      a.weights, b.weights);
  return same;
}

// Bit for bit where keys are zeros; where values are, tau has been there and back.
TEST(Shrink, AfterGrowingIsTheIdentity) {
  for (const auto& [how, theta] : std::vector<std::pair<NewTokens, Theta>>{{NewTokens::zero_keys, Theta::l2_gelu},
                                                                           {NewTokens::zero_keys, Theta::gelu_l2},
                                                                           {NewTokens::zero_values, Theta::l2_gelu}})
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const Model small = random_model(make_config(tiny(theta)), dtype, 5);
      Model grown = grow(small, with_tokens(small.config, {.q = 44, .k = 44, .v = 44, .o = 44, .mlp = 96}), how, 1);
      const auto counts = counts_for(small.config, 1.0);
      Model again = shrink(grown, contributions_of(grown), counts);
      EXPECT_TRUE(same_weights(again, small));
      EXPECT_LT(relative_difference(logits_of(again), logits_of(small)), how == NewTokens::zero_keys ? 1e-30 : 1e-3);
      for (const NeuronSite site : neuron_sites(small.config)) {
        const float was = tokens_at(small.config, site)->tau, is = tokens_at(again.config, site)->tau;
        if (how == NewTokens::zero_keys)
          EXPECT_EQ(is, was);
        else
          EXPECT_NEAR(is / was, 1, dtype == DType::f32 ? 1e-5 : 2e-3);  // keys of 16 bits are not what was drawn
      }
      if (how == NewTokens::zero_values) again.config = small.config;  // tau was compared
      EXPECT_TRUE(again.config == small.config);
    }
}

// tools/write_token_sparsity_goldens.py: which tokens go, and how tau is repaired.
TEST(Shrink, LossOfWhatStaysIsTorchs) {
  for (const char* name : {"tokenformer_l2_norm_gelu", "tokenformer_gelu_l2_norm", "tokenformer_softmax"}) {
    SCOPED_TRACE(name);
    const fs::path directory = fs::path(SPARSAM_TEST_DATA) / "golden" / name;
    const Model model = load_model(directory);
    const std::string path = (directory / "sparsity.json").string();
    const Json golden = parse_json(read_text(path), path);
    std::vector<i32> inputs, targets;
    for (const Json& sequence : golden["tokens"])
      for (size_t t = 0; t + 1 < sequence.size(); ++t)
        inputs.push_back(sequence[t].get<i32>()), targets.push_back(sequence[t + 1].get<i32>());
    const i64 sequences = static_cast<i64>(golden["tokens"].size()), N = static_cast<i64>(inputs.size());
    const auto backend = make_backend("cpu");
    const auto loss = [&](const Model& m) {
      const Transformer transformer(m, *backend, Compute::f32, N / sequences);
      Arena arena;
      const auto hidden = transformer.forward({{inputs.data(), {N}}, sequences}, arena);
      double sum = 0;
      for (const float l : transformer.losses(hidden, {targets.data(), {N}}, arena)) sum += l;
      return sum / static_cast<double>(N);
    };
    const Transformer transformer(model, *backend, Compute::f32, N / sequences);
    const auto contributions = measure_contributions(
        transformer, inputs, {.context = N / sequences, .tokens = 0, .score = Score::mean_square});
    const i64 attention = golden["kept"]["attention"].get<i64>(), mlp = golden["kept"]["mlp"].get<i64>();
    const auto counts = counts_for(model.config, TokenTargets{attention, attention, attention, attention, mlp});
    const Model smaller = shrink(model, contributions, counts);
    EXPECT_EQ(tokens_at(smaller.config, {1, SitePlace::mlp})->tokens, mlp);
    EXPECT_NEAR(loss(smaller), golden["shrunk_loss"].get<double>(), 1e-5);
    EXPECT_GT(std::abs(loss(smaller) - loss(model)), 1e-2);
  }
}

// Neurons whose output is nothing, and those that nothing excites, go without a trace, with gates and biases or
// without.
TEST(Shrink, NeuronsThatAddNothing) {
  for (Architecture architecture : {tiny_llama_like, tiny_gpt_like}) {
    architecture.mlp_bias = true;
    const TinyModel model = tiny_model(architecture, 7);
    const i64 hidden = architecture.hidden;
    for (auto& layer : model.flat->views.layers) {
      for (const i64 dead : {i64{3}, i64{9}, hidden - 1})
        for (i64 c = 0; c < layer.mlp.down.weight.shape(0); ++c) layer.mlp.down.weight(c, dead) = 0;
      for (i64 f = 0; f < hidden; ++f) layer.mlp.up.bias(0, f) = 0.1f * static_cast<float>(f % 5);
    }
    const auto counts = counts_for(model.model.config, TokenTargets{.mlp = hidden - 3});
    const Model smaller = shrink(model.model, contributions_of(model.model), counts);
    const auto& w = smaller.weights.layers[1].mlp;
    EXPECT_EQ(w.up.weight.rows, hidden - 3);
    EXPECT_EQ(w.up.bias.cols, hidden - 3);
    EXPECT_EQ(w.down.weight.cols, hidden - 3);
    EXPECT_EQ(w.gate.weight.rows, architecture.gated ? hidden - 3 : 0);
    EXPECT_EQ(w.down.weight.at(2, 8), model.model.weights.layers[1].mlp.down.weight.at(2, 10));
    EXPECT_LT(relative_difference(logits_of(smaller), logits_of(model.model)), 1e-6);
    EXPECT_EQ(parameter_count(model.model.config) - parameter_count(smaller.config),
              static_cast<i64>(model.model.config.layers.size()) * 3 *
                  (architecture.gated ? 3 * architecture.dim + 2 : 2 * architecture.dim + 1));
  }
}

// The square error that mean squares promise is what removal of one neuron makes.
TEST(Shrink, ScoresAreTheErrorOfOneRemoval) {
  const TinyModel model = tiny_model();
  const auto contributions = contributions_of(model.model, Score::mean_square);
  const auto backend = make_backend("cpu");
  const auto branch = [&](const Model& m) {  // of the first layer's MLP, whose input is the same in both
    const Transformer transformer(m, *backend, Compute::f32, 24);
    Arena arena;
    std::vector<double> values;
    for (const i64 begin : {0, 24})
      transformer.forward({.ids = {ids.data() + begin, {24}}}, arena, nullptr, {},
                          [&](i64 layer, Sublayer sublayer, In<float, 2> before, In<float, 2> after) {
                            if (layer == 0 && sublayer == Sublayer::mlp)
                              for (i64 i = 0; i < before.size(); ++i)
                                values.push_back(double{after.data()[i]} - double{before.data()[i]});
                          });
    return values;
  };
  const auto whole = branch(model.model);
  const TinyModel without = tiny_model();
  for (i64 c = 0; c < 32; ++c) without.flat->views.layers[0].mlp.down.weight(c, 17) = 0;
  const auto part = branch(without.model);
  double error = 0, all = 0;
  for (size_t i = 0; i < whole.size(); ++i)
    error += (whole[i] - part[i]) * (whole[i] - part[i]), all += whole[i] * whole[i];
  EXPECT_NEAR(contributions[0].scores[17] / (error / all), 1, 1e-3);
}

TEST(Shrink, Counts) {
  const Config config = make_config(tiny());
  EXPECT_EQ(counts_for(config, 0.5), (std::vector<i64>{8, 8, 8, 8, 24, 8, 8, 8, 8, 24}));  // of 20 and 40
  EXPECT_EQ(counts_for(config, 0.01), (std::vector<i64>{8, 8, 8, 8, 8, 8, 8, 8, 8, 8}));
  EXPECT_EQ(counts_for(config, 1), (std::vector<i64>{20, 20, 20, 20, 40, 20, 20, 20, 20, 40}));
  EXPECT_EQ(counts_for(config, TokenTargets{.v = 5, .mlp = 33}),
            (std::vector<i64>{20, 20, 5, 20, 33, 20, 20, 5, 20, 33}));
  EXPECT_EQ(counts_for(make_config(tiny_llama_like), TokenTargets{.mlp = 47}), (std::vector<i64>{47, 47, 47}));
  EXPECT_THAT(error_of([&] { counts_for(config, TokenTargets{.mlp = 41}); }),
              HasSubstr("0.mlp has 40, fewer than the 41 that are to stay"));
  EXPECT_THAT(error_of([&] { counts_for(make_config(tiny_llama_like), TokenTargets{.q = 4}); }),
              HasSubstr("no parameter tokens in q"));
  for (const double wrong : {0.0, -1.0, 1.01, static_cast<double>(NAN)})
    EXPECT_THAT(error_of([&] { counts_for(config, wrong); }), HasSubstr("are to stay")) << wrong;
  Config none = make_config(tiny_llama_like);
  for (Layer& layer : none.layers) layer.mlp = std::monostate{};
  EXPECT_THAT(error_of([&] { counts_for(none, 0.5); }), HasSubstr("no parameter tokens and no neurons"));
  // 24 of 48 by the least scores of all: the second site is 16 neurons that count, the first 32 of which 8 do.
  Config two = make_config(tiny_llama_like);
  two.layers.resize(2);
  std::vector<Contributions> scores(2);
  for (int i = 0; i < 32; ++i) scores[0].scores.push_back(i < 24 ? 1e-3 * i : 10 + i);
  for (int i = 0; i < 16; ++i) scores[1].scores.push_back(5 + i);
  EXPECT_EQ(counts_for(two, scores, 0.5), (std::vector<i64>{8, 16}));
  EXPECT_EQ(counts_for(two, scores, 0.1), (std::vector<i64>{8, 8}));
}

// Layers of different sizes are written and read: by GGUF as the one architecture of llama.cpp that has such, where the
// model is like a Llama, and else not.
TEST(Shrink, UnevenLayersAreStored) {
  const fs::path directory = fs::path(testing::TempDir()) / "sparsam_shrink_test";
  for (const bool gated : {true, false}) {
    Architecture architecture = gated ? tiny_llama_like : tiny_gpt_like;
    architecture.residual = Residual::sequential;
    const TinyModel model = tiny_model(architecture);
    const std::vector<i64> counts = gated ? std::vector<i64>{48, 16, 40} : std::vector<i64>{40, 8};
    const Model uneven = shrink(model.model, contributions_of(model.model), counts);
    fs::remove_all(directory);
    fs::create_directories(directory);
    save_model(uneven, directory);
    const Model loaded = load_model(directory);
    EXPECT_TRUE(loaded.config == uneven.config);
    EXPECT_EQ(logits_of(loaded), logits_of(uneven));
    const fs::path gguf = directory / "model.gguf";
    if (gated) {
      save_gguf(uneven, {}, gguf);
      EXPECT_LT(relative_difference(logits_of(load_model(gguf)), logits_of(uneven)), 1e-6);
    } else {
      EXPECT_THAT(error_of([&] { save_gguf(uneven, {}, gguf); }), HasSubstr("layers that differ"));
    }
    const Model even = shrink(model.model, contributions_of(model.model), counts_for(model.model.config, 0.5));
    EXPECT_EQ(error_of([&] { save_gguf(even, {}, gguf); }), "no error");
  }
  fs::remove_all(directory);
}

TEST(Shrink, Refusals) {
  Architecture whole_blocks = tiny();
  whole_blocks.dim = whole_blocks.attention_tokens = whole_blocks.mlp_tokens = 96;
  const Model quantised = random_model(make_config(whole_blocks), DType::q8_0, 1);
  EXPECT_THAT(error_of([&] { shrink(quantised, contributions_of(quantised), counts_for(quantised.config, 0.5)); }),
              HasSubstr("0.q: its weights are quantised (q8_0)"));
  TinyModel masked = tiny_model(tiny());
  ParameterTokens& tokens = std::get<ParameterTokens>(masked.model.config.layers[1].mlp);
  tokens.old = 30, tokens.mask = 0.5f;
  EXPECT_THAT(
      error_of([&] { shrink(masked.model, contributions_of(masked.model), counts_for(masked.model.config, 0.5)); }),
      HasSubstr("1.mlp: its new tokens are masked by 0.5"));
  tokens.mask = 1;
  const Model smaller = shrink(masked.model, contributions_of(masked.model), counts_for(masked.model.config, 0.5));
  EXPECT_LT(tokens_at(smaller.config, {1, SitePlace::mlp})->old, 24);
  TinyModel normed = tiny_model();
  normed.model.config.layers[2].mlp = GatedMlp{.hidden = 48, .inner_norm = true};
  auto contributions = contributions_of(tiny_model().model);
  EXPECT_THAT(error_of([&] {
                shrink(normed.model, contributions, std::vector<i64>{48, 48, 40});
              }),
              HasSubstr("2.mlp: a norm over its neurons"));
}

}  // namespace
}  // namespace sparsam
