// Models of parameter tokens: their description, sizes, files and refusals. What they compute is in golden_test.cpp.
#include "model/parameter_tokens.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/files.h"
#include "base/test_support.h"
#include "model/gguf.h"
#include "model/hugging_face.h"
#include "model/transformer.h"

namespace sparsam {
namespace {

using testing::HasSubstr;

i64 size_of_preset(const std::string& name) { return parameter_count(make_config(preset(name))); }

// Wang et al. 2024, table 9 and the checkpoints' sizes in bytes.
TEST(ParameterTokens, PublishedSizes) {
  EXPECT_EQ(size_of_preset("tokenformer-150m"), 151'881'216);
  EXPECT_EQ(size_of_preset("tokenformer-450m"), 454'166'528);
  EXPECT_EQ(size_of_preset("tokenformer-900m"), 903'252'480);
  EXPECT_EQ(size_of_preset("tokenformer-1.5b"), 1'587'219'456);
  EXPECT_NEAR(static_cast<double>(size_of_preset("tokenformer-124m")), 123.6e6, 0.1e6);
  EXPECT_NEAR(static_cast<double>(size_of_preset("tokenformer-354m")), 354.2e6, 0.1e6);
  EXPECT_NEAR(static_cast<double>(size_of_preset("tokenformer-757m")), 753.8e6, 0.1e6);
  EXPECT_NEAR(static_cast<double>(size_of_preset("tokenformer-1.4b")), 1310e6, 1e6);
}

// Table 3: 2 L d (4 n + n_ffn) multiplications beside the head's, as many as parameters; and the presets cost what the
// transformers of their name cost.
TEST(ParameterTokens, Flops) {
  const Config config = make_config(preset("tokenformer-124m"));
  EXPECT_EQ(flops_per_token(config, 0), 2.0 * (12 * 2 * 768 * (4 * 576 + 2304) + 50304 * 768));
  for (const std::string name : {"nano", "mini", "small"}) {
    const double tokens = flops_per_token(make_config(preset("tokenformer-" + name)), 100);
    EXPECT_NEAR(tokens / flops_per_token(make_config(preset(name)), 100), 1, 0.02) << name;
  }
}

TEST(ParameterTokens, DescriptionsAreReadAsWritten) {
  Config config = make_config(preset("tokenformer-nano"));
  auto& first = std::get<SoftmaxAttention>(config.layers[0].mixer);
  first.k = {}, first.v = {.tokens = 5, .tau = 0.1f, .theta = Theta::softmax};
  first.q.truncation = {.measure = Truncation::Measure::gate, .threshold = 0.1f, .keep = 3};
  config.layers[1].mlp = Mlp{.hidden = 7};
  config.layers[2].mixer = std::monostate{};
  const Json json = to_json(config);
  EXPECT_EQ(json["model_type"], "sparsam");
  EXPECT_TRUE(config_from_json(json, "test") == config);
}

TEST(ParameterTokens, WhatCannotBeIsRefused) {
  const Config right = make_config(preset("tokenformer-nano"));
  const auto refusal = [&](auto&& change) {
    Config wrong = right;
    change(wrong, std::get<SoftmaxAttention>(wrong.layers[1].mixer));
    return error_of([&] { validate(wrong, "test"); });
  };
  EXPECT_EQ(refusal([](auto&, auto&) {}), "no error");
  EXPECT_THAT(refusal([](auto&, auto& a) { a.qkv_bias = true; }), HasSubstr("layer 1: parameter tokens have no bias"));
  EXPECT_THAT(refusal([](auto&, auto& a) { a.q.tokens = -1; }), HasSubstr("number of parameter tokens is -1"));
  EXPECT_THAT(refusal([](auto&, auto& a) { a.q.tau = 0; }), HasSubstr("tau of the parameter tokens is 0"));
  EXPECT_THAT(refusal([](auto& c, auto&) { std::get<ParameterTokens>(c.layers[0].mlp).tau = NAN; }),
              HasSubstr("tau of the parameter tokens is nan"));
  EXPECT_THAT(refusal([](auto& c, auto&) { c.truncation.assign(4, {.threshold = 1}); }),
              HasSubstr("layer 0 has parameter tokens and no MLP"));
  EXPECT_THAT(refusal([](auto& c, auto&) { c.inputs.layers.assign(4, {.down = 1}); }),
              HasSubstr("layer 0, which has parameter tokens"));
  EXPECT_THAT(refusal([](auto&, auto& a) { a.v.truncation.threshold = -1; }),
              HasSubstr("truncation to 0 neurons above -1"));
  Architecture both = preset("tokenformer-nano");
  both.hidden = 5;
  EXPECT_THAT(error_of([&] { make_config(both); }), HasSubstr("--mlp-tokens"));
}

TEST(ParameterTokens, FilesOfTheAuthorsThatSayMoreThanIsSupported) {
  const std::string place = std::string(SPARSAM_TEST_DATA) + "/golden/tokenformer_l2_norm_gelu/config.json";
  const Json right = parse_json(read_text(place), place);
  EXPECT_EQ(config_from_json(right, "test").vocab, 128);  // 123 are in the file, and the table is padded
  const auto refusal = [&](const char* field, const Json& value) {
    Json wrong = right;
    wrong[field] = value;
    return error_of([&] { read_hugging_face(wrong, "test"); });
  };
  EXPECT_THAT(refusal("norm", "rmsnorm"), HasSubstr("'rmsnorm'"));
  EXPECT_THAT(refusal("norm_activation_type", "l2_norm_silu"), HasSubstr("norm_activation_type"));
  EXPECT_THAT(refusal("pos_emb", "alibi"), HasSubstr("pos_emb"));
  EXPECT_THAT(refusal("gpt_j_residual", true), HasSubstr("gpt_j_residual"));
  EXPECT_THAT(refusal("slots", 3), HasSubstr("slots"));
  EXPECT_THAT(refusal("num_attention_heads", 5), HasSubstr("not a multiple of 5 heads"));
}

TEST(ParameterTokens, GgufHasNone) {
  const Model model = random_model(make_config(preset("tokenformer-nano")), DType::f32, 1);
  const fs::path out = fs::temp_directory_path() / "sparsam_parameter_tokens_test.gguf";
  EXPECT_THAT(error_of([&] { save_gguf(model, {}, out); }), HasSubstr("does not have parameter tokens"));
}

// Token by token through the cache as all at once.
TEST(ParameterTokens, DecodingIsPrefill) {
  const Model model = random_model(make_config(preset("tokenformer-nano")), DType::f32, 2);
  const auto backend = make_backend("cpu");
  const i64 T = 9;
  const Transformer transformer(model, *backend, Compute::f32, T);
  Arena arena;
  const auto ids = arena.allocate<i32>(T);
  for (i64 t = 0; t < T; ++t) ids[t] = static_cast<i32>(37 * t % 1024);
  const auto whole = transformer.forward({ids}, arena);
  std::vector<Buffer> memory;
  std::vector<MixerCache> caches;
  for (const Layer& layer : model.config.layers) {
    const auto& a = std::get<SoftmaxAttention>(layer.mixer);
    const auto cache = [&] {
      Buffer& buffer = memory.emplace_back(bytes_for(DType::f32, a.kv_heads * T * a.head_dim));
      return MutableMatrix{DType::f32, a.kv_heads * T, a.head_dim, buffer.bytes()};
    };
    const MutableMatrix keys = cache(), values = cache();
    caches.push_back({.attention = {keys, values}, .log_sum_exp = {}});
  }
  for (i64 t = 0; t < T; ++t) {
    const auto one = transformer.forward({.ids = {ids.data() + t, {1}}, .start = t}, arena, nullptr, caches);
    for (i64 c = 0; c < one.shape(1); ++c) EXPECT_NEAR(one(0, c), whole(t, c), 1e-4) << t << " " << c;
  }
}

}  // namespace
}  // namespace sparsam
