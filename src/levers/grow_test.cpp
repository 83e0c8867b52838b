#include "levers/grow.h"

#include "levers/growth_test_support.h"

namespace sparsam {
namespace {

using testing::HasSubstr;

Architecture tiny(Theta theta = Theta::l2_gelu) {
  Architecture a = preset("tokenformer-nano");
  a.vocab = 300, a.layers = 2, a.dim = 24, a.attention_tokens = 20, a.mlp_tokens = 40, a.theta = theta;
  return a;
}

struct Way {
  NewTokens how;
  Theta theta;
};
const std::vector<Way> exact_ways{{NewTokens::zero_keys, Theta::l2_gelu},
                                  {NewTokens::zero_keys, Theta::gelu_l2},
                                  {NewTokens::zero_values, Theta::l2_gelu}};

TEST(Grow, ThreeGrowthsLeaveTheFunctionAsItIs) {
  for (const Way& way : exact_ways)
    for (const bool between : {false, true}) {
      SCOPED_TRACE(fmt::format("way {}, theta {}, trained between: {}", static_cast<int>(way.how),
                               static_cast<int>(way.theta), between));
      TinyModel small = tiny_model(tiny(way.theta));
      Model model = trained(small.model, 4).model;
      const auto first = logits_of(model);
      i64 tokens = 20;
      for (u64 stage = 1; stage <= 3; ++stage) {
        const auto before = logits_of(model);
        tokens = 2 * tokens + 6;
        const TokenTargets targets{tokens, tokens, tokens, tokens, 2 * tokens + 11};
        model = grow(model, with_tokens(model.config, targets), way.how, stage);
        EXPECT_EQ(std::get<ParameterTokens>(model.config.layers[1].mlp).tokens, 2 * tokens + 11);
        EXPECT_LT(relative_difference(before, logits_of(model)), 1e-5) << stage;
        if (between) model = trained(model, 10 + stage).model;
      }
      if (!between) {
        EXPECT_LT(relative_difference(first, logits_of(model)), 3e-5);
      }
    }
}

// The test above can fail: what the authors do changes the function, and so does tau = sqrt(n + m) with keys of zeros.
TEST(Grow, ThePublishedWayDoesNot) {
  const Model model = trained(tiny_model(tiny()).model, 4).model;
  const Config to = with_tokens(model.config, {.q = 40, .k = 40, .v = 40, .o = 40, .mlp = 80});
  const Model published = grow(model, to, NewTokens::published, 5);
  EXPECT_GT(relative_difference(logits_of(model), logits_of(published)), 0.1);
  Model rescaled = grow(model, to, NewTokens::zero_keys, 5);
  for (Layer& layer : rescaled.config.layers) std::get<ParameterTokens>(layer.mlp).tau = std::sqrt(80.f);
  EXPECT_GT(relative_difference(logits_of(model), logits_of(rescaled)), 0.02);
}

// With a mask of 0 random tokens are not there; on its way to 1 tau^2 grows with the sum of its squares.
TEST(Grow, ARampBeginsWithTheSameFunction) {
  const Model model = trained(tiny_model(tiny()).model, 4).model;
  const Config to = with_tokens(model.config, {.q = 50, .k = 40, .v = 40, .o = 40, .mlp = 80});
  Model grown = grow(model, to, NewTokens::ramp, 5);
  EXPECT_LT(relative_difference(logits_of(model), logits_of(grown)), 1e-6);
  auto& q = std::get<SoftmaxAttention>(grown.config.layers[0].mixer).q;
  EXPECT_EQ(q.old, 20);
  EXPECT_FLOAT_EQ(q.effective_tau(), std::sqrt(20.f));
  q.mask = 0.5f;
  EXPECT_FLOAT_EQ(q.effective_tau(), std::sqrt(20.f + 30.f / 4));
  EXPECT_GT(relative_difference(logits_of(model), logits_of(grown)), 1e-3);
  q.mask = 1;
  EXPECT_FLOAT_EQ(q.effective_tau(), std::sqrt(50.f));
  EXPECT_EQ(config_from_json(to_json(grown.config), "config.json"), grown.config);
  const Config further = with_tokens(grown.config, {.mlp = 100});
  EXPECT_THAT([&] { grow(grown, further, NewTokens::zero_keys, 1); },
              testing::ThrowsMessage<Error>(HasSubstr("layer 0: mlp: the tokens of the growth before are at 0 of")));
}

TEST(Grow, MomentsOfNewTokensAreZero) {
  const Model model = trained(tiny_model(tiny()).model, 4).model;
  const Config to = with_tokens(model.config, {.v = 60});
  const Model moments = grow(model, to, NewTokens::zero_values, 1, Numbers::first_moments);
  const auto &before = model.weights.layers[1].attention.v.tokens,
             &after = moments.weights.layers[1].attention.v.tokens;
  for (i64 p = 0; p < 60; ++p)
    for (i64 c = 0; c < 24; ++c) {
      EXPECT_EQ(after.keys.at(p, c), p < 20 ? before.keys.at(p, c) : 0);
      EXPECT_EQ(after.values.at(c, p), p < 20 ? before.values.at(c, p) : 0);
    }
}

TEST(Grow, TauAndOldTokens) {
  const TinyModel small = tiny_model(tiny());
  const Config to = with_tokens(small.model.config, {.v = 60});
  const auto tau_of = [&](NewTokens how) {
    const Model grown = grow(small.model, to, how, 1);
    const auto& attention = std::get<SoftmaxAttention>(grown.config.layers[1].mixer);
    EXPECT_EQ(attention.q.tokens, 20);
    EXPECT_EQ(grown.weights.layers[1].attention.q.tokens.keys.bytes.data(),
              small.model.weights.layers[1].attention.q.tokens.keys.bytes.data());  // shared
    const auto &old = small.model.weights.layers[1].attention.v.tokens, &w = grown.weights.layers[1].attention.v.tokens;
    EXPECT_EQ(w.keys.rows, 60);
    EXPECT_EQ(w.values.cols, 60);
    for (i64 p = 0; p < 20; ++p)
      for (i64 c = 0; c < 24; ++c) {
        EXPECT_EQ(w.keys.at(p, c), old.keys.at(p, c));
        EXPECT_EQ(w.values.at(c, p), old.values.at(c, p));
      }
    EXPECT_EQ(attention.q.tau, std::sqrt(20.f));
    return attention.v.tau;
  };
  EXPECT_EQ(tau_of(NewTokens::zero_keys), std::sqrt(20.f));
  EXPECT_FLOAT_EQ(tau_of(NewTokens::zero_values), std::sqrt(60.f));
  EXPECT_FLOAT_EQ(tau_of(NewTokens::published), std::sqrt(60.f));
  const Model again = grow(small.model, to, NewTokens::zero_keys, 1);
  const auto bytes = [](const Model& m) { return m.weights.layers[0].attention.v.tokens.values.bytes; };
  const Model first = grow(small.model, to, NewTokens::zero_keys, 1),
              other = grow(small.model, to, NewTokens::zero_keys, 2);
  EXPECT_TRUE(std::ranges::equal(bytes(first), bytes(again)));
  EXPECT_FALSE(std::ranges::equal(bytes(first), bytes(other)));
}

// Keys of zeros and values of zeros together would have no gradients ever.
TEST(Grow, NewTokensLearn) {
  for (const NewTokens how : {NewTokens::zero_keys, NewTokens::zero_values, NewTokens::published}) {
    const TinyModel small = tiny_model(tiny());
    const Model grown = grow(small.model, with_tokens(small.model.config, {.k = 50}), how, 1);
    const auto backend = make_backend("cpu");
    const auto ids = growth_ids();
    const i64 T = static_cast<i64>(ids.size());
    const Transformer transformer(grown, *backend, Compute::f32, T);
    const FlatParams gradients(parameter_specs(grown.config));
    Arena arena;
    Activations kept;
    const Tokens tokens{{ids.data(), {T}}};
    const auto hidden = transformer.forward(tokens, arena, &kept);
    const auto dhidden = arena.allocate<float>(T, hidden.shape(1));
    for (i64 i = 0; i < dhidden.size(); ++i) dhidden.data()[i] = std::sin(static_cast<float>(i));
    transformer.backward(tokens, dhidden, kept, gradients.views, arena);
    double keys = 0, values = 0;
    for (i64 p = 20; p < 50; ++p)
      for (i64 c = 0; c < 24; ++c) {
        keys += std::abs(double{gradients.views.layers[0].attention.k.tokens.keys(p, c)});
        values += std::abs(double{gradients.views.layers[0].attention.k.tokens.values(c, p)});
      }
    EXPECT_GT(keys, 0) << static_cast<int>(how);  // where values are zeros, through the norm
    EXPECT_EQ(values > 0, how != NewTokens::zero_keys) << static_cast<int>(how);
  }
}

TEST(Grow, ByParameters) {
  for (const char* name : {"tokenformer-nano", "tokenformer-124m"})
    for (const double factor : {1.3, 2.0, 5.5}) {
      const Config config = make_config(preset(name)), grown = with_parameters(config, factor);
      const double ratio = static_cast<double>(parameter_count(grown)) / static_cast<double>(parameter_count(config));
      EXPECT_NEAR(ratio, factor, 0.03 * factor) << name;
    }
}

TEST(Grow, TargetsAsText) {
  EXPECT_EQ(parse_token_targets("attention:144,mlp:576"), (TokenTargets{144, 144, 144, 144, 576}));
  EXPECT_EQ(parse_token_targets("v:96"), (TokenTargets{.v = 96}));
  EXPECT_THAT(error_of([] { parse_token_targets("v:96,attention:3"); }), HasSubstr("v is named twice"));
  EXPECT_THAT(error_of([] { parse_token_targets("v:96,"); }), HasSubstr("'' is not understood"));
  EXPECT_THAT(error_of([] { parse_token_targets("v:-1"); }), HasSubstr("'v:-1' is not understood"));
  EXPECT_THAT(error_of([] { parse_token_targets("mpl:5"); }), HasSubstr("did you mean mlp?"));
}

TEST(Grow, Refusals) {
  const TinyModel small = tiny_model(tiny());
  const Config& config = small.model.config;
  EXPECT_THAT(error_of([&] { with_tokens(make_config(preset("nano")), {.q = 5}); }), HasSubstr("no parameter tokens"));
  EXPECT_THAT(error_of([&] { with_parameters(make_config(preset("nano")), 2); }), HasSubstr("no parameter tokens"));
  EXPECT_THAT(error_of([&] { with_tokens(config, {.mlp = 5}); }), HasSubstr("layer 0 has 40 tokens in mlp"));
  EXPECT_THAT(error_of([&] { with_parameters(config, 0.5); }), HasSubstr("0.5 times"));
  EXPECT_THAT(error_of([&] { with_parameters(config, 1e6); }), HasSubstr("number of parameter tokens"));
  EXPECT_THAT(error_of([&] { grow(small.model, with_tokens(config, {.k = 30}), NewTokens::zero_values, 1); }),
              HasSubstr("layer 0: k: 10 new tokens, but random keys leave the function as it is from 20 on"));
  const auto refused = [](Theta theta, NewTokens how) {
    const TinyModel other = tiny_model(tiny(theta));
    return error_of([&] { grow(other.model, with_parameters(other.model.config, 3), how, 1); });
  };
  EXPECT_THAT(refused(Theta::softmax, NewTokens::zero_keys), HasSubstr("only the published way"));
  EXPECT_THAT(refused(Theta::gelu_l2, NewTokens::zero_values), HasSubstr("keys of zeros do not"));
  EXPECT_EQ(refused(Theta::softmax, NewTokens::published), "no error");
  Architecture whole_blocks = tiny();
  whole_blocks.dim = whole_blocks.attention_tokens = whole_blocks.mlp_tokens = 96;
  const Model quantised = random_model(make_config(whole_blocks), DType::q8_0, 1);
  EXPECT_THAT(error_of([&] { grow(quantised, with_tokens(quantised.config, {.q = 128}), NewTokens::zero_keys, 1); }),
              HasSubstr("quantise after growing"));
}

// 16-bit models grow in their format, and with keys of zeros exactly.
TEST(Grow, SixteenBits) {
  const Model model = random_model(make_config(tiny()), DType::bf16, 1);
  const Model grown = grow(model, with_parameters(model.config, 2), NewTokens::zero_keys, 1);
  EXPECT_EQ(grown.weights.layers[0].mlp.tokens.values.dtype, DType::bf16);
  EXPECT_LT(relative_difference(logits_of(model), logits_of(grown)), 1e-5);
}

}  // namespace
}  // namespace sparsam
