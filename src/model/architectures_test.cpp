// Every family of Hugging Face's against an independent implementation (tools/write_architecture_goldens.py), and real
// weights against the answers that are known of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <fstream>
#include <map>

#include "base/test_support.h"
#include "formats/safetensors.h"
#include "model/hugging_face.h"
#include "model/transformer.h"

namespace sparsam {
namespace {

using testing::HasSubstr;

const fs::path goldens = fs::path(SPARSAM_TEST_DATA) / "golden" / "architectures";

std::vector<std::string> architectures() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(goldens)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

// Keys and values of every layer for `capacity` positions, in f32.
struct Caches {
  std::vector<Buffer> buffers;
  std::vector<MixerCache> layers;

  Caches(const Config& config, i64 capacity) {
    for (const Layer& layer : config.layers) {
      LayerCache& cache = layers.emplace_back().attention;
      const auto* a = std::get_if<SoftmaxAttention>(&layer.mixer);
      for (MutableMatrix* m : {&cache.keys, &cache.values}) {
        const i64 rows = a->kv_heads * capacity;
        buffers.emplace_back(rows * a->head_dim * size_of(DType::f32));
        *m = {DType::f32, rows, a->head_dim, buffers.back().bytes()};
      }
    }
  }
};

// The logits (T, V) of one sequence, computed at once.
std::vector<float> logits_of(const Transformer& transformer, In<i32, 1> ids) {
  Arena arena;
  const auto hidden = transformer.forward({.ids = ids}, arena);
  const auto logits = transformer.logits(hidden, arena);
  return {logits.begin(), logits.end()};
}
// The same through the cache, `step` tokens at a time.
std::vector<float> cached_logits_of(const Transformer& transformer, In<i32, 1> ids, i64 step) {
  Caches caches(transformer.model().config, ids.size());
  std::vector<float> all;
  Arena arena;
  for (i64 start = 0; start < ids.size(); start += step) {
    arena.reset();
    const Tokens tokens{.ids = ids.slice(start, std::min(step, ids.size() - start)), .start = start};
    const auto logits = transformer.logits(transformer.forward(tokens, arena, nullptr, caches.layers), arena);
    all.insert(all.end(), logits.begin(), logits.end());
  }
  return all;
}

double largest_difference(std::span<const float> found, std::span<const float> expected) {
  double difference = found.size() == expected.size() ? 0 : INFINITY, largest = 0;
  for (size_t i = 0; i < std::min(found.size(), expected.size()); ++i) {
    difference = std::max(difference, std::abs(static_cast<double>(found[i]) - static_cast<double>(expected[i])));
    largest = std::max(largest, std::abs(static_cast<double>(expected[i])));
  }
  return difference / largest;
}

class Architectures : public testing::TestWithParam<std::tuple<std::string, const char*>> {
 protected:
  const fs::path directory = goldens / std::get<0>(GetParam());
  const std::unique_ptr<Backend> backend = make_backend(std::get<1>(GetParam()));
  const SafetensorsFile expected = SafetensorsFile::open(directory / "expected.safetensors");
  const Model model = load_model(directory);
  const Transformer transformer{model, *backend, Compute::f32, 64};

  In<i32, 1> tokens() const { return {reinterpret_cast<const i32*>(expected.at("tokens").bytes.data()), {64}}; }
  std::span<const float> logits() const {
    const TensorEntry& entry = expected.at("logits");
    return {reinterpret_cast<const float*>(entry.bytes.data()), static_cast<size_t>(entry.elements())};
  }
};

constexpr double tolerance = 1e-5;

TEST_P(Architectures, GiveTheLogitsOfTheirDefinition) {
  EXPECT_LT(largest_difference(logits_of(transformer, tokens()), logits()), tolerance);
  EXPECT_LT(largest_difference(cached_logits_of(transformer, tokens(), 1), logits()), tolerance) << "token by token";
  EXPECT_LT(largest_difference(cached_logits_of(transformer, tokens(), 23), logits()), tolerance) << "in pieces";
}

void expect_equal_weights(const Model& found, const Model& expected) {
  EXPECT_EQ(found.config, expected.config);
  for_each_parameter(
      parameter_specs(expected.config),
      [](const std::string& name, const ParameterSpec&, const Matrix& a, const Matrix& b) {
        EXPECT_EQ(a.dtype, b.dtype) << name;
        EXPECT_TRUE(std::equal(a.bytes.begin(), a.bytes.end(), b.bytes.begin(), b.bytes.end())) << name;
      },
      found.weights, expected.weights);
}

// What is written describes the same model with the same numbers, whichever layout it is written in.
TEST_P(Architectures, ComeBackFromTheirOwnFiles) {
  const fs::path copy = fs::path(testing::TempDir()) / fmt::format("sparsam-architecture-{}", ::getpid());
  fs::create_directories(copy);
  save_model(model, copy);
  expect_equal_weights(load_model(copy), model);
  fs::remove_all(copy);
}

INSTANTIATE_TEST_SUITE_P(All, Architectures,
                         testing::Combine(testing::ValuesIn(architectures()), testing::Values("reference", "cpu")),
                         [](const auto& info) { return std::get<0>(info.param) + "_" + std::get<1>(info.param); });

TEST(HuggingFace, WhatAFamilyExpressesIsWrittenAsThatFamily) {
  const std::pair<const char*, const char*> families[] = {
      {"llama3", "llama"},  {"llama_yarn", "llama"}, {"mistral", "mistral"}, {"qwen2", "qwen2"},
      {"qwen3", "qwen3"},   {"gpt2", "gpt2"},        {"bamboo", "sparsam"},  {"falcon_grouped", "sparsam"},
      {"bitnet", "sparsam"}};
  for (const auto& [name, family] : families)
    EXPECT_EQ(to_json(load_model(goldens / name).config)["model_type"], family) << name;
}

TEST(HuggingFace, WeightsThatTorchSavedAreTheSame) {
  const Model expected = load_model(goldens / "llama_linear");
  const fs::path files = goldens.parent_path() / "torch_files";
  for (const fs::path& path : {files / "whole", files / "whole" / "pytorch_model.bin", files / "sharded"})
    expect_equal_weights(load_model(path), expected);
}

// --- what is refused -------------------------------------------------------------------------------------------------

std::string refusal(const std::string& golden, const char* field, Json value) {
  const std::string path = (goldens / golden / "config.json").string();
  Json json = parse_json(read_text(path), path);
  json[field] = std::move(value);
  return error_of([&] { read_hugging_face(json, "config.json"); });
}

TEST(HuggingFace, RefusesByNameWhatItDoesNotCompute) {
  EXPECT_THAT(refusal("llama2", "model_type", "mixtral"), HasSubstr("unknown model_type 'mixtral'"));
  EXPECT_THAT(refusal("llama2", "model_type", "quen2"), HasSubstr("did you mean qwen2"));
  EXPECT_THAT(refusal("llama2", "hidden_act", "quick_gelu"), HasSubstr("unknown activation 'quick_gelu'"));
  EXPECT_THAT(refusal("llama2", "attention_bais", false), HasSubstr("did you mean attention_bias"));
  EXPECT_THAT(refusal("llama2", "rope_scaling", {{"type", "dynamic"}, {"factor", 2}}), HasSubstr("'dynamic'"));
  EXPECT_THAT(refusal("llama2", "rope_scaling", {{"type", "linear"}}), HasSubstr("'factor' is missing"));
  EXPECT_THAT(refusal("phi3", "rope_scaling", {{"type", "longrope"}}), HasSubstr("'longrope'"));
  EXPECT_THAT(refusal("bitnet", "quantization_config", {{"quant_method", "bitnet"}}), HasSubstr("quantization_config"));
  EXPECT_THAT(refusal("stablelm", "qk_layernorm", true), HasSubstr("qk_layernorm"));
  EXPECT_THAT(refusal("opt", "do_layer_norm_before", false), HasSubstr("do_layer_norm_before"));
  EXPECT_THAT(refusal("opt", "word_embed_proj_dim", 16), HasSubstr("word_embed_proj_dim is 16"));
  EXPECT_THAT(refusal("falcon_multi_query", "alibi", true), HasSubstr("alibi"));
  EXPECT_THAT(refusal("falcon_multi_query", "num_attention_heads", 5), HasSubstr("multiple of 5"));
  EXPECT_THAT(refusal("falcon_grouped", "num_kv_heads", 3), HasSubstr("3 key-value heads"));
  EXPECT_THAT(refusal("gpt2", "scale_attn_by_inverse_layer_idx", true), HasSubstr("scale_attn_by_inverse_layer_idx"));
  EXPECT_THAT(refusal("prosparse", "hidden_act_param", nullptr), HasSubstr("hidden_act_param"));
  EXPECT_THAT(refusal("qwen2", "layer_types", {"full_attention", "linear_attention"}), HasSubstr("'linear_attention'"));
  EXPECT_THAT(refusal("qwen2", "layer_types", {"full_attention"}), HasSubstr("names 1 layers"));
  EXPECT_THAT(refusal("gpt_neox", "rotary_pct", 0.01), HasSubstr("turns no pair"));
}

TEST(HuggingFace, LayerTypesSayWhichLayersHaveAWindow) {
  const std::string path = (goldens / "qwen2" / "config.json").string();
  Json json = parse_json(read_text(path), path);
  const auto windows = [&] {
    std::vector<i64> all;
    for (const Layer& layer : config_from_json(json, path).layers)
      all.push_back(std::get<SoftmaxAttention>(layer.mixer).window);
    return all;
  };
  EXPECT_EQ(windows(), (std::vector<i64>{0, 12}));
  json["layer_types"] = {"sliding_attention", "full_attention"};
  EXPECT_EQ(windows(), (std::vector<i64>{12, 0}));
  json["use_sliding_window"] = false;
  EXPECT_EQ(windows(), (std::vector<i64>{0, 0}));
}

TEST(HuggingFace, AnActivationCanBeGiven) {
  const auto mlp = [](const std::string& activation) {
    return std::get<GatedMlp>(load_model(goldens / "qwen2", {activation}).config.layers[1].mlp);
  };
  EXPECT_EQ(mlp("").activation, Function::silu);
  EXPECT_EQ(mlp("drelu").activation, Function::relu);
  EXPECT_TRUE(mlp("drelu").activate_up);
  EXPECT_EQ(mlp("fatrelu:0.25").threshold, 0.25f);
  EXPECT_THAT(error_of([&] { mlp("sliu"); }), HasSubstr("did you mean silu"));
  EXPECT_THAT(error_of([&] { mlp("fatrelu"); }), HasSubstr("fatrelu:0.01"));
  EXPECT_THAT(error_of([&] { mlp("relu:1"); }), HasSubstr("only fatrelu"));
  EXPECT_THAT(error_of([] { load_model(goldens / "gpt2", {"drelu"}); }), HasSubstr("gated"));
}

// --- real weights ----------------------------------------------------------------------------------------------------

const fs::path weights = fs::path(SPARSAM_DATA) / "weights";

std::vector<i32> greedy(const Transformer& transformer, const std::vector<i32>& prompt, size_t count, i32 end) {
  Caches caches(transformer.model().config, transformer.positions());
  Arena arena;
  std::vector<i32> answer, next = prompt;
  i64 start = 0;
  while (answer.size() < count && (answer.empty() || answer.back() != end)) {
    arena.reset();
    const In<i32, 1> ids(next.data(), {static_cast<i64>(next.size())});
    const auto hidden = transformer.forward({.ids = ids, .start = start}, arena, nullptr, caches.layers);
    const auto logits = transformer.logits(hidden.slice(hidden.shape(0) - 1, 1), arena);
    start += ids.size();
    next = {static_cast<i32>(std::max_element(logits.begin(), logits.end()) - logits.begin())};
    answer.push_back(next[0]);
  }
  return answer;
}

// The words of a text as this model knows them: small letters and digits.
std::vector<i32> words_of(const std::string& text, const std::map<std::string, i32>& vocabulary) {
  std::vector<i32> ids;
  std::string word;
  for (const char c : text + ' ') {
    if (std::isalnum(static_cast<unsigned char>(c))) word += static_cast<char>(std::tolower(c));
    if (c == ' ' && !word.empty()) ids.push_back(vocabulary.at(std::exchange(word, "")));
  }
  return ids;
}

TEST(RealWeights, TinyGptAnswersWhatItLearned) {
  const fs::path folder = weights / "tinygpt";
  if (!fs::exists(folder)) GTEST_SKIP() << "needs " << folder;
  constexpr i32 begin = 0, end = 1, separator = 4;
  std::map<std::string, i32> vocabulary;
  for (const Json& word : parse_json(read_text(folder / "vocab.json"), "vocab.json"))
    vocabulary.emplace(word.get<std::string>(), static_cast<i32>(vocabulary.size()));
  const auto backend = make_backend("cpu");
  const Model model = load_model(folder / "L8H8");
  const Transformer transformer(model, *backend, Compute::f32, model.config.context);
  i64 questions = 0;
  std::ifstream lines(folder / "train_qa.jsonl");
  for (std::string line; std::getline(lines, line) && questions < 30; ++questions) {
    const Json pair = parse_json(line, "train_qa.jsonl");
    std::vector<i32> prompt = words_of(pair["question"].get<std::string>(), vocabulary);
    std::vector<i32> answer = words_of(pair["answer"].get<std::string>(), vocabulary);
    prompt.insert(prompt.begin(), begin), prompt.push_back(separator), answer.push_back(end);
    EXPECT_EQ(greedy(transformer, prompt, answer.size(), end), answer) << pair["question"];
  }
  EXPECT_EQ(questions, 30);
}

TEST(RealWeights, BothTinyGptsContinueAsTheOriginals) {
  if (!fs::exists(weights / "tinygpt")) GTEST_SKIP() << "needs " << weights / "tinygpt";
  const auto backend = make_backend("cpu");
  for (const char* name : {"L4H8", "L8H8"}) {
    const fs::path directory = weights / "tinygpt" / name;
    const Model model = load_model(directory);
    const Transformer transformer(model, *backend, Compute::f32, model.config.context);
    const std::string path = (directory / "expected.json").string();
    const Json answers = parse_json(read_text(path), path);
    EXPECT_EQ(answers.size(), 12u);
    for (const Json& answer : answers) {
      const auto expected = answer["greedy_ids"].get<std::vector<i32>>();
      EXPECT_EQ(greedy(transformer, answer["prompt_ids"].get<std::vector<i32>>(), expected.size(), 1), expected)
          << answer["question"];
    }
  }
}

// The same numbers as f32, f16, bf16 and in shards, each with its own continuation.
class Stories : public testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(Stories, ContinueAsTheyAreKnownTo) {
  const fs::path source = weights / "derived" / "stories260K";
  if (!fs::exists(source)) GTEST_SKIP() << "needs " << source;
  const fs::path directory = fs::path(testing::TempDir()) / fmt::format("sparsam-stories-{}", ::getpid());
  fs::create_directories(directory);
  fs::copy_file(source / "config.json", directory / "config.json", fs::copy_options::overwrite_existing);
  if (GetParam().first == std::string("sharded")) {
    fs::copy(source / "sharded", directory, fs::copy_options::overwrite_existing | fs::copy_options::recursive);
  } else {
    fs::copy_file(source / GetParam().first, directory / "model.safetensors", fs::copy_options::overwrite_existing);
  }
  const auto backend = make_backend("cpu");
  const Model model = load_model(directory);
  EXPECT_EQ(name_of(model.weights.token_embedding.dtype), GetParam().second);
  const Transformer transformer(model, *backend, Compute::f32, 128);
  const std::string path = (source / "expected.json").string();
  const Json expected = parse_json(read_text(path), path);
  for (const Json& generation : expected["generations"]) {
    auto ids = generation["prompt_ids"].get<std::vector<i32>>();
    const auto wanted = generation["greedy_ids"].get<std::vector<i32>>();
    const size_t certain = GetParam().second == std::string("bf16") ? 8 : wanted.size();  // rounding turns a tale
    const auto found = greedy(transformer, ids, certain, -1);
    EXPECT_TRUE(std::equal(found.begin(), found.end(), wanted.begin())) << generation["text"];
  }
  fs::remove_all(directory);
}

INSTANTIATE_TEST_SUITE_P(Formats, Stories,
                         testing::Values(std::pair("model.safetensors", "f32"),
                                         std::pair("model.f16.safetensors", "f16"),
                                         std::pair("model.bf16.safetensors", "bf16"), std::pair("sharded", "f32")),
                         [](const auto& info) {
                           std::string name = info.param.first;
                           std::replace(name.begin(), name.end(), '.', '_');
                           return name;
                         });

}  // namespace
}  // namespace sparsam
