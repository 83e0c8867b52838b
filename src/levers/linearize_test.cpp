#include "levers/linearize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>

#include "base/test_support.h"
#include "infer/session.h"
#include "infer/test_support.h"

namespace sparsam {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<float> logits_of(const Model& model, const std::vector<i32>& ids, size_t piece) {
  const auto backend = make_backend("cpu");
  Session session(model, *backend, {.cache = DType::f32});
  In<float, 1> logits;
  for (size_t begin = 0; begin < ids.size(); begin += piece)
    logits = session.prefill(std::span(ids).subspan(begin, std::min(piece, ids.size() - begin)));
  return {logits.begin(), logits.end()};
}

double difference(const std::vector<float>& a, const std::vector<float>& b) {
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i) most = std::max(most, static_cast<double>(std::abs(a[i] - b[i])));
  return most;
}

// A model that looks about: its queries and keys are not small.
TinyModel attentive(const Architecture& architecture) {
  TinyModel tiny = tiny_model(architecture);
  for (auto& layer : tiny.flat->views.layers)
    for (const auto& weight : {layer.attention.q.weight, layer.attention.k.weight})
      for (float& value : weight.span()) value *= 2;
  return tiny;
}

const auto ids = random_ids(40, 300, 7);

TEST(Linearize, IsTheSameFunctionWhileTheWindowHoldsAllTokens) {
  for (const Architecture& architecture : {tiny_llama_like, tiny_gpt_like}) {
    const TinyModel tiny = attentive(architecture);
    const std::vector<float> before = logits_of(tiny.model, ids, 40);
    const std::vector<i64> layers{0, 1};
    for (const bool decay : {false, true}) {
      const Linearized same = linearize(tiny.model, layers, {.window = 40, .convolution = 3, .decay = decay});
      EXPECT_LT(difference(logits_of(same.model, ids, 40), before), 2e-4);
      EXPECT_LT(difference(logits_of(same.model, ids, 1), before), 2e-4);
      EXPECT_LT(difference(logits_of(same.model, ids, 7), before), 2e-4);
      const Linearized other = linearize(tiny.model, layers, {.window = 10, .decay = decay});
      EXPECT_GT(difference(logits_of(other.model, ids, 40), before), 1e-2);
      EXPECT_LT(difference(logits_of(other.model, ids, 40), logits_of(other.model, ids, 1)), 2e-4);
      EXPECT_LT(difference(logits_of(other.model, ids, 40), logits_of(other.model, ids, 7)), 2e-4);
    }
  }
}

TEST(Linearize, TheFitLowersTheErrorOfEachLayer) {
  const TinyModel tiny = tiny_model();
  const std::vector<i64> layers{0, 2};
  const Linearized linearized = linearize(tiny.model, layers, {.window = 4});
  const auto backend = make_backend("cpu");
  const Transformer model(tiny.model, *backend, Compute::f32, 64);
  const std::vector<float> before = logits_of(tiny.model, ids, 40);
  const double apart = difference(logits_of(linearized.model, ids, 40), before);
  const auto text = random_ids(10'000, 300, 3);
  const FitOptions options{.tokens = 12'000, .sequence = 32, .batch_tokens = 256, .learning_rate = 3e-3};
  const auto fits = fit(model, linearized, text, options);
  ASSERT_EQ(fits.size(), 2u);
  for (size_t i = 0; i < fits.size(); ++i) {
    EXPECT_EQ(fits[i].layer, layers[i]);
    EXPECT_GT(fits[i].before, 0.05);
    EXPECT_LT(fits[i].after, 0.85 * fits[i].before) << "layer " << layers[i];
  }
  EXPECT_LT(difference(logits_of(linearized.model, ids, 40), before), apart);
  // The weights that it began with are as they were.
  EXPECT_EQ(logits_of(tiny.model, ids, 40), before);
  // What a layer learns does not depend on the other new layers.
  const Linearized alone = linearize(tiny.model, std::vector<i64>{2}, {.window = 4});
  EXPECT_NEAR(fit(model, alone, text, options)[0].after, fits[1].after, 1e-6);
}

TEST(Linearize, IsWrittenAndReadBack) {
  const TinyModel tiny = attentive(tiny_llama_like);
  const Linearized linearized =
      linearize(tiny.model, std::vector<i64>{1}, {.window = 5, .features = 12, .convolution = 2, .decay = true});
  const fs::path directory = fs::temp_directory_path() / fmt::format("sparsam_linearize_{}", ::getpid());
  fs::create_directory(directory);
  save_model(linearized.model, directory);
  const Model read = load_model(directory);
  fs::remove_all(directory);
  EXPECT_EQ(read.config, linearized.model.config);
  EXPECT_EQ(logits_of(read, ids, 40), logits_of(linearized.model, ids, 40));
}

TEST(Linearize, ChoosesLayers) {
  const Config config = make_config(
      {.vocab = 10, .layers = 4, .dim = 8, .heads = 2, .mixer = Mixer::lse, .softmax_every = 2});  // 1 and 3 softmax
  EXPECT_THAT(parse_layers("all", config).layers, ElementsAre(1, 3));
  EXPECT_THAT(parse_layers("3,0", config).layers, ElementsAre(0, 3));
  EXPECT_EQ(parse_layers("least:2", config).least, 2);
  EXPECT_EQ(parse_layers("50%", config).least, 1);
  EXPECT_EQ(parse_layers("100%", config).least, 2);
  using enum Sublayer;
  const std::vector<SublayerScore> scores{
      {0, attention, 0.1}, {1, attention, 0.5}, {2, attention, 0.2}, {3, attention, 0.4}, {3, mlp, 0.01}};
  EXPECT_THAT(least_in_need(config, scores, 1), ElementsAre(3));
  EXPECT_THAT(least_in_need(config, scores, 2), ElementsAre(1, 3));
  for (const std::pair<std::string, std::string>& wrong :
       std::vector<std::pair<std::string, std::string>>{{"", "'' is not understood"},
                                                        {"some", "'some' is not understood"},
                                                        {"1,", "is not understood"},
                                                        {"1,1", "1 is named twice"},
                                                        {"4", "4 is out of range, the model has layers 0 to 3"},
                                                        {"-1", "is not understood"},
                                                        {"99999999999999999999", "is not understood"},
                                                        {"least:3", "3 layers, expected 1 to 2"},
                                                        {"least:", "is not understood"},
                                                        {"1%", "0 layers"},
                                                        {"101%", "at most 100%"}})
    EXPECT_THAT(error_of([&] { parse_layers(wrong.first, config); }), HasSubstr(wrong.second)) << wrong.first;
}

TEST(Linearize, RefusesWhatItCannotReplace) {
  const auto refusal = [](auto change, const LinearAttention& attention = {}, i64 layer = 1) {
    TinyModel tiny = tiny_model();
    change(tiny.model.config.layers[1].mixer);
    return error_of([&] { linearize(tiny.model, std::vector<i64>{layer}, attention); });
  };
  using Layer1 = decltype(Layer::mixer);
  const auto softmax = [](auto change) {
    return [change](Layer1& mixer) { change(std::get<SoftmaxAttention>(mixer)); };
  };
  const auto nothing = [](Layer1&) {};
  EXPECT_THAT(refusal(nothing, {}, 3), HasSubstr("layer 3 is out of range, the model has 0 to 2"));
  EXPECT_THAT(refusal([](Layer1& m) { m = std::monostate{}; }), HasSubstr("layer 1 has no attention"));
  EXPECT_THAT(refusal([](Layer1& m) { m = LogSumExpAttention{}; }), HasSubstr("has log-sum-exp attention already"));
  EXPECT_THAT(refusal(softmax([](auto& a) { a.window = 8; })), HasSubstr("sees 8 keys at most"));
  EXPECT_THAT(refusal(softmax([](auto& a) { a.qk_norm = true; })), HasSubstr("normalises its queries and keys"));
  EXPECT_THAT(refusal(softmax([](auto& a) { a.inner_norm = true; })), HasSubstr("normalises its heads' outputs"));
  EXPECT_THAT(refusal(softmax([](auto& a) { a.o.tokens = 4; })), HasSubstr("parameter tokens"));
  EXPECT_THAT(refusal(softmax([](auto& a) { a.convolution = 3; }), {.convolution = 4}),
              HasSubstr("has a convolution of 3 taps, asked for were 4"));
  const TinyModel tiny = tiny_model();
  const auto backend = make_backend("cpu");
  const Transformer model(tiny.model, *backend, Compute::f32, 64);
  const Linearized linearized = linearize(tiny.model, std::vector<i64>{1}, {});
  EXPECT_THAT(error_of([&] { fit(model, linearized, random_ids(50, 300, 1), {.sequence = 32}); }),
              HasSubstr("50 tokens of text, expected at least two windows of 32"));
}

}  // namespace
}  // namespace sparsam
