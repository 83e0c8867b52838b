#include "levers/widen.h"

#include "levers/deepen.h"
#include "levers/growth_test_support.h"

namespace sparsam {
namespace {

using testing::HasSubstr;

// Every kind of model that there are presets for, and what else changes how widths enter.
std::vector<std::pair<std::string, Architecture>> families() {
  Architecture gpt2 = tiny_gpt_like, tied_gpt2 = tiny_gpt_like, qwen = tiny_llama_like, bare = tiny_llama_like;
  gpt2.residual = Residual::sequential;
  tied_gpt2.tied = true;
  qwen.qkv_bias = qwen.qk_norm = true, qwen.kv_heads = 1, qwen.rotary_channels = 4, qwen.tied = false;
  bare.norm_gain = false, bare.mlp_bias = true;  // no gain that could take the logits' factor
  Architecture tokens = preset("tokenformer-nano"), lse = preset("nano");
  tokens.vocab = lse.vocab = 300, tokens.layers = lse.layers = 2, tokens.dim = lse.dim = 24;
  tokens.attention_tokens = 20, tokens.mlp_tokens = 40;
  lse.heads = 2, lse.hidden = 40, lse.mixer = Mixer::lse, lse.decay = lse.head_scale = true, lse.convolution = 3;
  Architecture constant_cost = preset("lse-nano"),
               published = preset("lse-125m");  // windows, gates, recurrent positions
  constant_cost.window = 16;
  for (Architecture* a : {&constant_cost, &published})
    a->vocab = 300, a->context = 64, a->layers = 2, a->dim = 24, a->heads = 3, a->hidden = 40;
  return {{"llama", tiny_llama_like}, {"gpt2", gpt2},     {"parallel, tied", tied_gpt2}, {"qwen", qwen},
          {"no gains", bare},         {"tokens", tokens}, {"log-sum-exp", lse},          {"lse, window", constant_cost},
          {"lse-125m", published}};
}

Model any_model(const Architecture& architecture) { return trained(tiny_model(architecture).model, 4).model; }

bool has_neurons(const Config& config) {
  const auto& mlp = config.layers[0].mlp;
  return std::holds_alternative<Mlp>(mlp) || std::holds_alternative<GatedMlp>(mlp);
}

// Wider, more neurons, deeper; then wider by three.
TEST(Widen, SuccessiveGrowthsLeaveTheFunctionAsItIs) {
  for (const auto& [name, architecture] : families())
    for (const double noise : {0.0, 0.3}) {
      const bool between = noise > 0;
      SCOPED_TRACE(fmt::format("{}, noise {}, trained between: {}", name, noise, between));
      Model model = any_model(architecture);
      const i64 dim = model.config.dim, layers = static_cast<i64>(model.config.layers.size());
      auto expected = logits_of(model);
      const auto expect_same = [&] {
        EXPECT_LT(relative_difference(expected, logits_of(model)), 1e-5);
        if (between) model = trained(model, 10).model, expected = logits_of(model);
      };
      const WidenOptions options{.noise = noise, .seed = 3};
      model = widen(model, widened(model.config, {.dim = 2}), options);
      expect_same();
      if (has_neurons(model.config)) {
        model = widen(model, widened(model.config, {.hidden = 141}), options);
        expect_same();
        model = widen(model, widened(model.config, {.hidden = 150}), {.neurons = NewNeurons::random});
        expect_same();
      }
      model = deepen(model, deepened(model.config, 2 * layers + 1), Stacking::zeros);
      expect_same();
      model = widen(model, widened(model.config, {.dim = 3}), options);
      expect_same();
      EXPECT_EQ(model.config.dim, 6 * dim);
      EXPECT_EQ(static_cast<i64>(model.config.layers.size()), 2 * layers + 1);
      EXPECT_EQ(model.weights.token_embedding.cols, 6 * dim);
    }
}

// What the test above compares can differ: whole copies of layers, and a matrix that is not divided rightly.
TEST(Widen, OtherWaysAreOtherFunctions) {
  const Model model = any_model(tiny_llama_like);
  EXPECT_EQ(relative_difference(logits_of(model), logits_of(deepen(model, deepened(model.config, 5), Stacking::zeros))),
            0);  // bit for bit
  EXPECT_GT(
      relative_difference(logits_of(model), logits_of(deepen(model, deepened(model.config, 5), Stacking::copies))),
      0.05);
  const Model wide = widen(model, widened(model.config, {.dim = 2}), {});
  const Model squares = widen(model, wide.config, {}, Numbers::second_moments);
  Model undivided = wide;
  undivided.weights.layers[0].mlp.down = squares.weights.layers[0].mlp.down;
  EXPECT_GT(relative_difference(logits_of(model), logits_of(undivided)), 0.05);
}

// Moments grow as the gradient does: the gradient of the grown model is the gradient of the model, grown.
TEST(Widen, MomentsGrowAsGradientsDo) {
  for (const auto& family : families()) {
    const Architecture& architecture = family.second;
    SCOPED_TRACE(family.first);
    const Model model = any_model(architecture);
    const WidenOptions options{.noise = 0};
    std::vector<Widening> widenings{{.dim = 2}};
    if (has_neurons(model.config)) widenings.push_back({.hidden = 100}), widenings.push_back({.dim = 3, .hidden = 200});
    for (const Widening& widening : widenings) {
      const Config to = widened(model.config, widening);
      const auto found = gradient_of(widen(model, to, options));
      const Model gradient = model_of(model.config, gradient_of(model));
      const Model expected = widen(gradient, to, options, Numbers::first_moments);
      for_each_parameter(
          parameter_specs(to),
          [&](const std::string& parameter, const ParameterSpec& spec, const Out<float, 2>& is, const Matrix& first) {
            std::vector<float> all(static_cast<size_t>(spec.size()));
            for (i64 i = 0; i < spec.size(); ++i) all[static_cast<size_t>(i)] = first.at(0, i);
            const bool shifts_all_scores = parameter.ends_with("k_proj.bias") && architecture.mixer == Mixer::softmax;
            if (!shifts_all_scores) {  // which a softmax does not see: the gradient is 0
              EXPECT_LT(relative_difference(all, is.span()), 2e-4) << parameter;
            }
          },
          found->views, expected.weights);
    }
  }
}

TEST(Widen, MomentsOfNewLayersAreZero) {
  const Model model = any_model(tiny_llama_like);
  const Model moments = deepen(model, deepened(model.config, 5), Stacking::zeros, Numbers::second_moments);
  EXPECT_EQ(moments.weights.layers[2].mlp.up.weight.at(1, 1), model.weights.layers[2].mlp.up.weight.at(1, 1));
  EXPECT_EQ(moments.weights.layers[3].mlp.up.weight.at(1, 1), 0);
}

// Copies with the same weights have the same gradients; with noise they part.
TEST(Widen, NoiseBreaksTheSymmetry) {
  const Model model = any_model(tiny_llama_like);
  const Config to = widened(model.config, {.dim = 2});
  const auto asymmetry = [&](double noise) {
    const auto gradient = gradient_of(widen(model, to, {.noise = noise}));
    const Out<float, 2>& up = gradient->views.layers[1].mlp.up.weight;
    double difference = 0, size = 0;
    for (i64 r = 0; r < up.shape(0) / 2; ++r)
      for (i64 c = 0; c < up.shape(1); ++c) {
        difference += std::abs(double{up(r, c)} - double{up(r + up.shape(0) / 2, c)});
        size += std::abs(double{up(r, c)});
      }
    return difference / size;
  };
  EXPECT_LT(asymmetry(0), 1e-4);
  EXPECT_GT(asymmetry(0.1), 1e-2);
}

TEST(Widen, SameSeedSameBits) {
  const Model model = any_model(tiny_llama_like);
  const Config to = widened(model.config, {.dim = 2});
  const auto bytes = [](const Model& m) { return m.weights.layers[0].mlp.down.weight.bytes; };
  const Model a = widen(model, to, {.seed = 1}), b = widen(model, to, {.seed = 1}), c = widen(model, to, {.seed = 2});
  EXPECT_TRUE(std::ranges::equal(bytes(a), bytes(b)));
  EXPECT_FALSE(std::ranges::equal(bytes(a), bytes(c)));
}

// A grown Llama is a Llama.
TEST(Widen, FamiliesStay) {
  const Config llama = any_model(tiny_llama_like).config;
  EXPECT_EQ(to_json(deepened(widened(llama, {.dim = 2, .hidden = 150}), 5))["architectures"][0], "LlamaForCausalLM");
  EXPECT_EQ(widened(llama, {.dim = 2}).logit_scale, 1);
}

template <class F>
std::string refusal(F&& grow) {
  try {
    grow();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was refused";
}

TEST(Widen, RefusesByName) {
  const Config config = make_config(tiny_llama_like);
  EXPECT_THAT(refusal([&] { widened(config, {.dim = 0}); }), HasSubstr("0 times the width"));
  EXPECT_THAT(refusal([&] { widened(config, {.hidden = 20}); }), HasSubstr("layer 0 has 48 neurons, more than the 20"));
  EXPECT_THAT(refusal([&] { widened(config, {.dim = 2, .hidden = 80}); }),
              HasSubstr("layer 0 has 48 neurons, 2 times as many are more than the 80"));
  EXPECT_THAT(refusal([&] { deepened(config, 2); }), HasSubstr("the model has 3 layers, expected 3 to 10000, not 2"));
  Config normed = config;
  std::get<GatedMlp>(normed.layers[0].mlp).inner_norm = true;
  EXPECT_THAT(refusal([&] { widened(normed, {.hidden = 100}); }), HasSubstr("norm over its 48 neurons"));
  Architecture tokens = preset("tokenformer-nano");
  tokens.vocab = 300;
  EXPECT_THAT(refusal([&] { widened(make_config(tokens), {.hidden = 9999}); }), HasSubstr("no MLP"));
  Architecture blocks = tiny_llama_like;
  blocks.hidden = 64;
  const Model quantised = random_model(make_config(blocks), DType::q8_0, 1);
  EXPECT_THAT(refusal([&] { widen(quantised, widened(quantised.config, {.dim = 2}), {}); }),
              HasSubstr("is quantised (q8_0)"));
}

}  // namespace
}  // namespace sparsam
