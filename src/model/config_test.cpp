// The description as text and as files: what is written comes back, what is wrong is refused by name.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "base/test_support.h"
#include "formats/safetensors.h"
#include "model/model.h"

namespace sparsam {
namespace {

using testing::HasSubstr;

Config tiny(Architecture a = {}) {
  a.vocab = 50, a.layers = 3, a.dim = 32, a.heads = 4;
  return make_config(a);
}

TEST(Config, PresetsHaveTheirAdvertisedSizes) {
  const std::pair<const char*, double> millions[] = {
      {"nano", 0.5}, {"micro", 3}, {"mini", 12}, {"small", 29}, {"gpt2", 124}};
  for (const auto& [name, expected] : millions) {
    const double found = static_cast<double>(parameter_count(make_config(preset(name)))) / 1e6;
    EXPECT_NEAR(found, expected, 0.15 * expected) << name;
  }
  // GPT-2 small, counted by hand: 12 (12 C^2 + 13 C) + (V + 1024 + 2) C.
  EXPECT_EQ(parameter_count(make_config(preset("gpt2"))), 124439808);
  EXPECT_THAT(error_of([] { preset("mico"); }), HasSubstr("did you mean micro"));
}

TEST(Config, EveryVariantComesBackFromJson) {
  std::vector<Config> configs{tiny()};
  Architecture a;
  a.gated = false, a.activation = Function::relu2, a.norm = NormKind::layer, a.norm_bias = true;
  a.positions = Positions::learned, a.qkv_bias = a.out_bias = a.mlp_bias = true;
  configs.push_back(tiny(a));
  a = {};
  a.kv_heads = 2, a.qk_norm = true, a.residual = Residual::parallel, a.tied = false, a.pairing = Pairing::interleaved;
  a.rotary_channels = 4, a.norm_eps = 1e-6f;
  configs.push_back(tiny(a));
  a = {};
  a.window = 7, a.qkv_bias = true, a.activation = Function::fatrelu, a.activation_threshold = 0.01f;
  configs.push_back(tiny(a));
  a.activation = Function::relu, a.activation_threshold = 0, a.activate_up = true;
  configs.push_back(tiny(a));
  Config dropped = tiny();
  dropped.layers[0].mixer = std::monostate{};
  dropped.layers[2].mlp = std::monostate{};
  configs.push_back(dropped);
  Config uncommon = tiny();
  uncommon.embedding_scale = 5.656854f, uncommon.branch_scale = 0.19f, uncommon.logit_scale = 1.0f / 6;
  std::get<SoftmaxAttention>(uncommon.layers[1].mixer).inner_norm = true;
  std::get<SoftmaxAttention>(uncommon.layers[1].mixer).window = 9;
  std::get<GatedMlp>(uncommon.layers[2].mlp).inner_norm = true;
  const std::vector<RotaryScaling> scalings{LinearScaling{2.5f}, Llama3Scaling{.factor = 32},
                                            YarnScaling{.factor = 4, .attention_factor = 1.1f, .original_context = 64},
                                            FactorScaling{{1, 2, 3.3f, 4}}};
  for (const RotaryScaling& scaling : scalings) {
    configs.push_back(tiny());  // as transformers writes it, where that can be
    configs.back().rotary.scaling = uncommon.rotary.scaling = scaling;
    configs.push_back(uncommon);
  }
  for (const Config& config : configs) {
    const std::string text = to_json(config).dump();
    EXPECT_EQ(config_from_json(parse_json(text, "test"), "test"), config) << text;
  }
}

TEST(Config, WhatLlamaCanExpressIsWrittenAsLlama) {
  EXPECT_EQ(to_json(tiny())["model_type"], "llama");
  EXPECT_FALSE(to_json(tiny()).contains("sparsam"));
  EXPECT_EQ(to_json(tiny())["rms_norm_eps"].dump(), "1e-05");
  Config dropped = tiny();
  dropped.layers[1].mixer = std::monostate{};
  EXPECT_EQ(to_json(dropped)["model_type"], "sparsam");
  dropped.layers.erase(dropped.layers.begin() + 1);  // a whole layer gone is a shorter Llama
  EXPECT_EQ(to_json(dropped)["model_type"], "llama");
}

TEST(Config, WhatIsUnknownIsRefusedByName) {
  const auto with = [](const char* field, Json value) {
    Json json = to_json(tiny());
    json[field] = std::move(value);
    return error_of([&] { config_from_json(json, "config.json"); });
  };
  EXPECT_THAT(with("hidden_act", "sliu"), HasSubstr("did you mean silu"));
  EXPECT_THAT(with("model_type", "lama"), HasSubstr("did you mean llama"));
  EXPECT_THAT(with("num_atention_heads", 4), HasSubstr("num_attention_heads"));
  EXPECT_THAT(with("rope_scaling", {{"type", "dynamic"}}), HasSubstr("rope_scaling"));
  EXPECT_THAT(with("num_key_value_heads", 3), HasSubstr("3 key-value heads"));
  EXPECT_THAT(with("hidden_size", 1e30), HasSubstr("hidden_size"));
  EXPECT_THAT(with("num_hidden_layers", -1), HasSubstr("num_hidden_layers"));
  EXPECT_THAT(with("head_dim", 7), HasSubstr("even number"));
  EXPECT_THAT(with("rope_theta", -1), HasSubstr("rope_theta"));
  EXPECT_THAT(with("rope_theta", 0), HasSubstr("rotary base"));
  const Json llama3{{"rope_type", "llama3"},
                    {"factor", 8},
                    {"low_freq_factor", 4},
                    {"high_freq_factor", 4},
                    {"original_max_position_embeddings", 32}};
  EXPECT_THAT(with("rope_scaling", llama3), HasSubstr("high_freq_factor"));
}

TEST(Config, FlagsThatDoNotFitTogetherAreUsageErrors) {
  Architecture a;
  a.vocab = 50, a.layers = 1, a.dim = 30, a.heads = 4;
  try {
    make_config(a);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code, Exit::usage);
    EXPECT_THAT(error.what(), HasSubstr("--head-dim"));
  }
}

TEST(Config, CountsBytesAndFlops) {
  Architecture a;
  a.kv_heads = 2;
  Config config = tiny(a);
  EXPECT_EQ(cache_elements_per_token(config), 3 * 2 * 2 * 8);
  config.layers[1].mixer = std::monostate{};
  EXPECT_EQ(cache_elements_per_token(config), 2 * 2 * 2 * 8);
  // One plain layer by hand: 2 (4 C^2 + 2 C F + V C) + 4 C T.
  a = {};
  a.vocab = 50, a.layers = 1, a.dim = 32, a.heads = 4, a.gated = false, a.hidden = 64;
  EXPECT_EQ(flops_per_token(make_config(a), 10), 2.0 * (4 * 32 * 32 + 2 * 32 * 64 + 50 * 32) + 4.0 * 32 * 10);
}

class ModelFiles : public testing::Test {
 protected:
  const fs::path directory = fs::path(testing::TempDir()) / fmt::format("sparsam-model-{}", ::getpid());
  const Config config = tiny();
  void SetUp() override {
    fs::create_directories(directory);
    const auto flat = std::make_shared<FlatParams>(parameter_specs(config));
    initialize(parameter_specs(config), flat->views, 1);
    save_model(model_of(config, flat), directory);
  }
  void TearDown() override { fs::remove_all(directory); }

  // Writes the stored tensors again, after `change`.
  void rewrite(auto&& change) {
    const auto file = SafetensorsFile::open(directory / "model.safetensors");
    std::vector<TensorEntry> entries = file.tensors();
    change(entries);
    write_safetensors(directory / "changed", entries);
    fs::rename(directory / "changed", directory / "model.safetensors");
  }
};

TEST_F(ModelFiles, ComeBackBitForBit) {
  const Model loaded = load_model(directory);
  const FlatParams again(parameter_specs(config));
  initialize(parameter_specs(config), again.views, 1);
  for_each_parameter(
      parameter_specs(config),
      [](const std::string& name, const ParameterSpec&, const Matrix& found, const Out<float, 2>& expected) {
        EXPECT_TRUE(std::equal(expected.begin(), expected.end(), found.as<float>())) << name;
      },
      loaded.weights, again.views);
  EXPECT_EQ(weight_bytes(loaded), 4 * parameter_count(config));
}

TEST_F(ModelFiles, MissingForeignAndMisshapenTensorsAreNamed) {
  rewrite([](auto& entries) { entries.pop_back(); });
  EXPECT_THAT(error_of([&] { load_model(directory); }), HasSubstr("model.norm.weight is missing"));
  SetUp();
  rewrite([](auto& entries) { entries[0].name = "transformer.wte.weight"; });
  EXPECT_THAT(error_of([&] { load_model(directory); }), HasSubstr("model.embed_tokens.weight is missing"));
  SetUp();
  rewrite([](auto& entries) { entries.push_back({"extra", DType::f32, {1}, entries[0].bytes.subspan(0, 4)}); });
  EXPECT_THAT(error_of([&] { load_model(directory); }), HasSubstr("tensor extra has no place"));
  SetUp();
  rewrite([](auto& entries) { std::swap(entries[0].shape[0], entries[0].shape[1]); });
  EXPECT_THAT(error_of([&] { load_model(directory); }), HasSubstr("has shape (32, 50), config.json says (50, 32)"));
}

TEST_F(ModelFiles, ATruncatedFileIsRefused) {
  const fs::path file = directory / "model.safetensors";
  fs::resize_file(file, fs::file_size(file) - 100);
  EXPECT_THAT(error_of([&] { load_model(directory); }), HasSubstr("model.safetensors"));
  fs::resize_file(file, 4);
  EXPECT_THAT(error_of([&] { load_model(directory); }), HasSubstr("model.safetensors"));
  fs::remove(file);
  EXPECT_THAT(error_of([&] { load_model(directory); }), HasSubstr("model.safetensors"));
}

TEST(Config, TruncationStandsBesideWhatAFamilySays) {
  Config config = tiny();
  config.truncation.resize(config.layers.size());
  config.truncation.back() = {.measure = Truncation::Measure::gate, .threshold = 0.1f, .keep = 3};
  const Json json = to_json(config);
  EXPECT_EQ(json["model_type"], "llama");
  EXPECT_EQ(config_from_json(json, "config.json"), config);
  config.layers.front().mixer = std::monostate{};  // no family: the description
  EXPECT_EQ(config_from_json(to_json(config), "config.json"), config);
  Json wrong = json;
  wrong["sparsam"]["truncation"].push_back(nullptr);
  EXPECT_THAT(error_of([&] { config_from_json(wrong, "config.json"); }), HasSubstr("truncation of"));
  wrong = json;
  wrong["sparsam"]["truncated"] = 1;
  EXPECT_THAT(error_of([&] { config_from_json(wrong, "config.json"); }), HasSubstr("truncated"));
}

TEST(Config, ThresholdsOfInputsStandBesideWhatAFamilySays) {
  Config config = tiny();
  config.inputs.dense_positions = 4;
  config.inputs.layers.resize(config.layers.size());
  config.inputs.layers.back() = {.qkv = 0.1f, .o = 0, .up = 0.3f, .down = 1e-3f};
  config.crossovers = {{.dtype = DType::q8_0, .rows = 64, .cols = 32, .fractions = {0.73f, 1}}};
  const Json json = to_json(config);
  EXPECT_EQ(json["model_type"], "llama");
  EXPECT_EQ(config_from_json(json, "config.json"), config);
  Config own = config;
  own.layers.front().mixer = std::monostate{};  // no family: the description
  EXPECT_EQ(config_from_json(to_json(own), "config.json"), own);

  const auto refusal = [&](auto&& change) {
    Json wrong = json;
    change(wrong["sparsam"]["inputs"]);
    return error_of([&] { config_from_json(wrong, "config.json"); });
  };
  EXPECT_THAT(refusal([](Json& j) { j["layers"].push_back(nullptr); }), HasSubstr("thresholds of inputs for"));
  EXPECT_THAT(refusal([](Json& j) { j["layers"] = 3; }), HasSubstr("layers"));
  EXPECT_THAT(refusal([](Json& j) { j["dense_positions"] = -1; }), HasSubstr("dense_positions"));
  EXPECT_THAT(refusal([](Json& j) { j["first"] = 1; }), HasSubstr("first"));
  EXPECT_THAT(refusal([](Json& j) { j["layers"].back()["qkv"] = -0.5; }), HasSubstr("qkv"));
  EXPECT_THAT(refusal([](Json& j) { j["layers"].back()["up"] = 1e39; }), HasSubstr("up"));
  EXPECT_THAT(refusal([](Json& j) { j["layers"].back()["down"] = "much"; }), HasSubstr("down"));
  EXPECT_THAT(refusal([](Json& j) { j["layers"].back()["gate"] = 0.5; }), HasSubstr("gate"));
  const auto refused = [&](auto&& change) {
    Json wrong = json;
    change(wrong["sparsam"]["crossovers"][0]);
    return error_of([&] { config_from_json(wrong, "config.json"); });
  };
  EXPECT_THAT(refused([](Json& j) { j["type"] = "q9"; }), HasSubstr("\"q9\""));
  EXPECT_THAT(refused([](Json& j) { j["one_row"] = 1.5; }), HasSubstr("1.5"));
  EXPECT_THAT(refused([](Json& j) { j.erase("several_rows"); }), HasSubstr("several_rows"));
  EXPECT_THAT(refused([](Json& j) { j["columns"] = 3; }), HasSubstr("columns"));
  config.inputs.layers[0].o = std::nanf("");
  EXPECT_THAT(error_of([&] { validate(config, "config.json"); }), HasSubstr("\"o\""));
}

}  // namespace
}  // namespace sparsam
