// Models as GGUF and back: what is written means the same when it is read, weights keep their bits, and what GGUF
// cannot say is refused. tools/check_llama_cpp runs the same files in llama.cpp.
#include "model/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/test_support.h"
#include "formats/gguf.h"
#include "model/pairing.h"
#include "model/transformer.h"

namespace sparsam {
namespace {

using ::testing::HasSubstr;

// Logits (T, V) of a few tokens.
std::vector<float> logits_of(const Model& model) {
  constexpr i64 length = 9;
  std::vector<i32> ids;
  for (i64 i = 0; i < length; ++i) ids.push_back(static_cast<i32>((7 * i + 3) % model.config.vocab));
  const auto backend = make_backend("reference");
  Arena arena;
  const Transformer transformer(model, *backend, Compute::f32, length);
  const auto logits = transformer.logits(transformer.forward({{ids.data(), {length}}, 1}, arena), arena);
  return {logits.span().begin(), logits.span().end()};
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double difference = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    difference = std::max(difference, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  return difference;
}

// Random weights, vectors included: gains of one and biases of zero would hide mistakes.
Model random_everywhere(const Config& config, u64 seed) {
  const auto specs = parameter_specs(config);
  auto flat = std::make_shared<FlatParams>(specs);
  initialize(specs, flat->views, seed);
  u64 stream = 1000;
  for_each_parameter(
      specs,
      [&](const std::string&, const ParameterSpec& spec, const Out<float, 2>& w) {
        if (!spec.is_vector) return;
        Random random(seed, ++stream);
        for (float& value : w.span()) value += 0.3f * static_cast<float>(random.normal());
      },
      flat->views);
  return model_of(config, flat);
}

void expect_same_bits(const Model& found, const Model& expected) {
  EXPECT_EQ(found.config, expected.config);
  for_each_parameter(
      parameter_specs(expected.config),
      [](const std::string& name, const ParameterSpec&, const Matrix& a, const Matrix& b) {
        EXPECT_EQ(a.dtype, b.dtype) << name;
        ASSERT_EQ(a.bytes.size(), b.bytes.size()) << name;
        EXPECT_EQ(std::memcmp(a.bytes.data(), b.bytes.data(), a.bytes.size()), 0) << name;
      },
      found.weights, expected.weights);
}

Architecture llama() {
  return {.vocab = 40, .context = 64, .layers = 3, .dim = 32, .heads = 4, .kv_heads = 2, .hidden = 48, .tied = false};
}
Architecture changed(auto&& change) {
  Architecture a = llama();
  change(a);
  return a;
}
Architecture gpt2() {
  return changed([](Architecture& a) {
    a.kv_heads = 0, a.gated = false, a.activation = Function::gelu_tanh, a.norm = NormKind::layer, a.norm_bias = true;
    a.positions = Positions::learned, a.qkv_bias = a.out_bias = a.mlp_bias = a.tied = true;
  });
}

class GgufModel : public testing::Test {
 protected:
  GgufModel() { fs::create_directories(dir_); }
  ~GgufModel() override { fs::remove_all(dir_); }

  fs::path save(const Model& model) const {
    save_gguf(model, {.name = "tiny"}, dir_ / "m.gguf");
    return dir_ / "m.gguf";
  }
  std::string error_of_save(const Config& config) const {
    return error_of([&] { save(random_model(config, DType::f32, 1)); });
  }
  static std::string architecture_of(const fs::path& path) {
    const GgufFile file = GgufFile::open(path);
    return GgufFields(file).required<std::string>("general.architecture");
  }
  // Written, read, and computed: the same function, and after undoing the permutation the same bits.
  void expect_round_trip(const Config& config, const std::string& architecture) const {
    const Model model = random_everywhere(config, 7);
    const fs::path path = save(model);
    EXPECT_EQ(architecture_of(path), architecture);
    const Model read = load_gguf(path);
    EXPECT_LT(largest_difference(logits_of(read), logits_of(model)), 1e-5) << architecture;
    expect_same_bits(with_pairing(read, config.rotary.pairing), model);
  }

  const fs::path dir_ =
      fs::temp_directory_path() /
      fmt::format("sparsam-{}-{}", ::getpid(), ::testing::UnitTest::GetInstance()->current_test_info()->name());
};

TEST_F(GgufModel, EveryArchitectureComesBackAsItWas) {
  expect_round_trip(make_config(llama()), "llama");
  expect_round_trip(make_config(changed([](Architecture& a) { a.tied = true, a.head_dim = 16; })), "llama");
  expect_round_trip(make_config(changed([](Architecture& a) { a.qkv_bias = a.out_bias = a.mlp_bias = true; })),
                    "llama");
  expect_round_trip(make_config(changed([](Architecture& a) { a.pairing = Pairing::interleaved; })), "llama");
  expect_round_trip(make_config(changed([](Architecture& a) { a.qkv_bias = true; })), "qwen2");
  expect_round_trip(make_config(changed([](Architecture& a) { a.qk_norm = true, a.head_dim = 16; })), "qwen3");
  expect_round_trip(make_config(gpt2()), "gpt2");
  Architecture neox = gpt2();
  neox.positions = Positions::rotary, neox.rotary_channels = 4, neox.residual = Residual::parallel, neox.tied = false;
  expect_round_trip(make_config(neox), "gptneox");
  Config gemma = make_config(changed([](Architecture& a) { a.activation = Function::gelu_tanh, a.tied = true; }));
  gemma.embedding_scale = std::sqrt(32.f);
  expect_round_trip(gemma, "gemma");
}

TEST_F(GgufModel, ScaledRotationsComeBack) {
  Config config = make_config(llama());
  config.rotary.scaling = LinearScaling{4};
  expect_round_trip(config, "llama");
  config.rotary.scaling = YarnScaling{.factor = 4, .attention_factor = 1.25f, .original_context = 16};
  expect_round_trip(config, "llama");
  config.rotary.scaling = FactorScaling{{1, 2, 4, 8}};
  expect_round_trip(config, "llama");
  // Llama 3's scaling becomes factors: the same frequencies.
  config.rotary.scaling = Llama3Scaling{.factor = 8, .original_context = 32};
  const Model model = random_everywhere(config, 7);
  const Model read = load_gguf(save(model));
  EXPECT_TRUE(std::holds_alternative<FactorScaling>(read.config.rotary.scaling));
  EXPECT_LT(largest_difference(logits_of(read), logits_of(model)), 1e-5);
}

TEST_F(GgufModel, DroppedHalvesComeBack) {
  const Config full = make_config(changed([](Architecture& a) { a.layers = 5; }));
  Config config = full;
  config.layers[1].mixer = std::monostate{};
  config.layers[3].mlp = std::monostate{};
  expect_round_trip(config, "deci");
  config.layers[0].mixer = std::monostate{};  // deci derives the heads from layer 0: zeros stand there
  config.layers[4].mlp = std::monostate{};
  expect_round_trip(config, "deci");
  Config wide = full;
  std::get<GatedMlp>(wide.layers[2].mlp).hidden = 64;
  expect_round_trip(wide, "deci");

  // A layer without either half is left out, so that the rest is an ordinary Llama.
  Config empty = full;
  empty.layers[2] = {};
  const Model model = random_everywhere(empty, 7);
  const fs::path path = save(model);
  EXPECT_EQ(architecture_of(path), "llama");
  const Model read = load_gguf(path);
  EXPECT_EQ(read.config.layers.size(), 4u);
  EXPECT_LT(largest_difference(logits_of(read), logits_of(model)), 1e-5);
}

// llama.cpp takes a layer of width 0 for one without attention: never write that (see gguf.h).
TEST_F(GgufModel, MissingMlpsAreWrittenAsZeros) {
  Config config = make_config(llama());
  config.layers[1].mlp = std::monostate{};
  const GgufFile file = GgufFile::open(save(random_everywhere(config, 7)));
  GgufFields fields(file);
  EXPECT_THAT(fields.required<std::vector<i64>>("deci.feed_forward_length"), testing::ElementsAre(48, 32, 48));
  EXPECT_THAT(fields.required<std::vector<i64>>("deci.attention.head_count"), testing::ElementsAre(4, 4, 4));
  const TensorEntry* down = file.find("blk.1.ffn_down.weight");
  ASSERT_NE(down, nullptr);
  EXPECT_THAT(down->shape, testing::ElementsAre(32, 32));
  for (const std::byte b : down->bytes) EXPECT_EQ(b, std::byte{0});
}

TEST_F(GgufModel, NumberFormatsKeepTheirBits) {
  Architecture a = llama();
  a.dim = 64, a.hidden = 96;
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    const Model model = random_model(make_config(a), dtype, 3);
    expect_same_bits(with_pairing(load_gguf(save(model)), Pairing::halves), model);
  }
  // Rows of blocks are permuted like others: any bytes serve to show it.
  Model model = random_model(make_config(a), DType::f32, 3);
  std::vector<std::byte> blocks(static_cast<size_t>(bytes_for(DType::q8_0, 64 * 64)));
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<std::byte>(i % 251);
  model.weights.layers[0].attention.q.weight = {DType::q8_0, 64, 64, blocks};
  expect_same_bits(with_pairing(load_gguf(save(model)), Pairing::halves), model);
}

TEST_F(GgufModel, PairingMovesTheRightRows) {
  Architecture a = llama();
  a.layers = 1, a.dim = 16, a.heads = a.kv_heads = 2, a.qkv_bias = true;
  const Model model = random_everywhere(make_config(a), 5);
  const Model there = with_pairing(model, Pairing::interleaved);
  const auto &q = model.weights.layers[0].attention.q, &p = there.weights.layers[0].attention.q;
  constexpr i64 from[] = {0, 4, 1, 5, 2, 6, 3, 7};  // of a head of 8 channels
  for (i64 i = 0; i < 16; ++i) {
    EXPECT_EQ(p.weight.at(i, 3), q.weight.at(i / 8 * 8 + from[i % 8], 3)) << i;
    EXPECT_EQ(p.bias.at(0, i), q.bias.at(0, i / 8 * 8 + from[i % 8])) << i;
  }
  EXPECT_LT(largest_difference(logits_of(there), logits_of(model)), 1e-5);
  expect_same_bits(with_pairing(there, Pairing::halves), model);
}

TEST_F(GgufModel, ReadsPhi3sFusedMatrices) {
  const Config config = make_config(changed([](Architecture& a) { a.kv_heads = 2, a.rotary_channels = 4; }));
  const Model model = random_everywhere(config, 11);
  std::vector<TensorEntry> tensors;
  std::vector<std::vector<std::byte>> made;
  const auto join = [&](const std::string& name, std::initializer_list<Matrix> parts) {
    std::vector<std::byte> bytes;
    i64 rows = 0;
    for (const Matrix& m : parts) bytes.insert(bytes.end(), m.bytes.begin(), m.bytes.end()), rows += m.rows;
    made.push_back(std::move(bytes));
    tensors.push_back({name, DType::f32, {rows, 32}, made.back()});
  };
  const auto add = [&](const std::string& name, const Matrix& m) {
    tensors.push_back(
        {name, m.dtype, m.rows == 1 ? std::vector<i64>{m.cols} : std::vector<i64>{m.rows, m.cols}, m.bytes});
  };
  const auto& w = model.weights;
  add("token_embd.weight", w.token_embedding), add("output_norm.weight", w.final_norm.gain),
      add("output.weight", w.head);
  made.reserve(2 * w.layers.size());
  for (size_t i = 0; i < w.layers.size(); ++i) {
    const std::string at = fmt::format("blk.{}.", i);
    const auto& a = w.layers[i].attention;
    const auto& m = w.layers[i].mlp;
    add(at + "attn_norm.weight", a.norm.gain), add(at + "ffn_norm.weight", m.norm.gain);
    add(at + "attn_output.weight", a.o.weight), add(at + "ffn_down.weight", m.down.weight);
    join(at + "attn_qkv.weight", {a.q.weight, a.k.weight, a.v.weight});
    join(at + "ffn_up.weight", {m.gate.weight, m.up.weight});
  }
  GgufMetadata metadata{{"general.architecture", std::string("phi3")},
                        {"phi3.context_length", u32{64}},
                        {"phi3.embedding_length", u32{32}},
                        {"phi3.block_count", u32{3}},
                        {"phi3.feed_forward_length", u32{48}},
                        {"phi3.attention.head_count", u32{4}},
                        {"phi3.attention.head_count_kv", u32{2}},
                        {"phi3.attention.layer_norm_rms_epsilon", config.norm.eps},
                        {"phi3.attention.sliding_window", u32{0}},
                        {"phi3.rope.dimension_count", u32{4}}};
  write_gguf(dir_ / "phi3.gguf", metadata, tensors);
  expect_same_bits(load_gguf(dir_ / "phi3.gguf"), model);

  metadata.emplace_back("phi3.unheard_of", u32{1});
  write_gguf(dir_ / "phi3.gguf", metadata, tensors);
  EXPECT_THROW(load_gguf(dir_ / "phi3.gguf"), Error);
}

TEST_F(GgufModel, WhatGgufCannotSayIsRefusedByName) {
  const Config config = make_config(llama());
  const auto error = [&](auto&& change) {
    Config c = config;
    change(c);
    return error_of_save(c);
  };
  EXPECT_THAT(error([](Config& c) { std::get<GatedMlp>(c.layers[1].mlp).activation = Function::relu; }),
              HasSubstr("the activation relu"));
  EXPECT_THAT(error([](Config& c) { c.residual = Residual::parallel; }), HasSubstr("parallel residuals"));
  EXPECT_THAT(error([](Config& c) { std::get<SoftmaxAttention>(c.layers[0].mixer).window = 8; }),
              HasSubstr("sliding windows"));
  EXPECT_THAT(error([](Config& c) { c.rotary.channels = 4; }), HasSubstr("a rotation of some channels"));
  EXPECT_THAT(error([](Config& c) { c.logit_scale = 2; }), HasSubstr("scales of branches or logits"));
  EXPECT_THAT(error([](Config& c) { c.positions = Positions::none; }), HasSubstr("positions of kind none"));
  EXPECT_THAT(error([](Config& c) { c.norm.gain = false; }), HasSubstr("norms without gain"));
  EXPECT_THAT(error([](Config& c) { std::get<GatedMlp>(c.layers[0].mlp).activate_up = true; }),
              HasSubstr("an activation of both branches"));
  Config dropped = make_config(gpt2());
  dropped.layers[1].mixer = std::monostate{};
  EXPECT_THAT(error_of_save(dropped), HasSubstr("gpt2 does not have layers without attention or MLP"));
  EXPECT_THAT(error([](Config& c) {
                for (Layer& layer : c.layers) layer.mixer = std::monostate{};
              }),
              HasSubstr("no attention"));
}

TEST_F(GgufModel, FilesThatDisagreeWithThemselvesAreRefused) {
  Config config = make_config(changed([](Architecture& a) { a.layers = 2; }));
  config.rotary.scaling = FactorScaling{{1, 2, 4, 8}};
  const fs::path good = save(random_everywhere(config, 3)), bad = dir_ / "bad.gguf";
  const GgufFile file = GgufFile::open(good);
  // What the reader says of the file with one change.
  const auto error = [&](auto&& change) -> std::string {
    GgufMetadata metadata = file.metadata();
    std::vector<TensorEntry> tensors = file.tensors();
    change(metadata, tensors);
    write_gguf(bad, metadata, tensors);
    return error_of([&] { load_gguf(bad); });
  };
  const auto with = [&](const std::string& key, const GgufValue& value) {
    return error([&](GgufMetadata& metadata, auto&) {
      std::erase_if(metadata, [&](const auto& entry) { return entry.first == key; });
      metadata.emplace_back(key, value);
    });
  };
  const auto with_tensor = [&](const std::string& name, auto&& change) {
    return error([&](auto&, std::vector<TensorEntry>& tensors) {
      for (TensorEntry& entry : tensors)
        if (entry.name == name) change(entry);
    });
  };
  EXPECT_EQ(with("general.author", std::string("someone")), "no error");
  EXPECT_EQ(with("llama.rope.scaling.original_context_length", u32{32}), "no error");
  EXPECT_THAT(with("llama.expert_count", u32{8}), HasSubstr("mixtures of experts"));
  EXPECT_THAT(with("llama.attention.causal", false), HasSubstr("attention to later tokens"));
  EXPECT_THAT(with("llama.rope.scaling.factor", 2.f), HasSubstr("beside a scaling by 2"));
  EXPECT_THAT(with("llama.attention.sliding_windw", u32{8}), HasSubstr("did you mean llama.attention.sliding_window?"));
  EXPECT_THAT(with("llama.attention.head_count", GgufArray{std::vector<i32>{4}}),
              HasSubstr("one for each of 2 layers"));
  EXPECT_THAT(with("llama.attention.head_count", GgufArray{std::vector<i32>{4, 0}}), HasSubstr("holds 0"));
  EXPECT_THAT(with("llama.block_count", u32{3}), HasSubstr("blk.2."));
  EXPECT_THAT(with("llama.block_count", u32{1}), HasSubstr("blk.1."));
  EXPECT_THAT(with("llama.vocab_size", u32{41}), HasSubstr("another number of tokens"));
  EXPECT_THAT(with("tokenizer.ggml.eos_token_id", u32{40}), HasSubstr("found 40, expected an integer from 0 to 39"));
  EXPECT_THAT(with("tokenizer.ggml.tokens", GgufArray{std::vector<std::string>{"a"}}), HasSubstr("1 tokens"));
  EXPECT_THAT(with("general.architecture", std::string("llmaa")), HasSubstr("did you mean llama?"));
  EXPECT_THAT(with("split.count", u32{2}), HasSubstr("one of several files"));
  EXPECT_THAT(with_tensor("rope_freqs.weight", [](TensorEntry& e) { e.shape = {2}, e.bytes = e.bytes.first(8); }),
              HasSubstr("2 factors"));
  EXPECT_THAT(with_tensor("blk.0.attn_q.weight", [](TensorEntry& e) { e.shape = {1024}; }),
              HasSubstr("blk.0.attn_q.weight has shape (1024), expected (32, 32)"));
  EXPECT_THAT(with_tensor("blk.0.attn_q.weight", [](TensorEntry& e) { e.dtype = DType::i32; }), HasSubstr("of i32"));
  EXPECT_THAT(with_tensor("blk.1.ffn_up.weight", [](TensorEntry& e) { e.name = "blk.1.ffn_pu.weight"; }),
              HasSubstr("blk.1.ffn_up.weight of shape (48, 32) is missing"));
  EXPECT_THAT(with_tensor("blk.1.attn_q.weight", [](TensorEntry& e) { e.name = "blk.1.attn_qkv.weight"; }),
              HasSubstr("expected 64 rows"));
}

TEST_F(GgufModel, VocabulariesAreWrittenAndFilledUp) {
  Vocabulary vocabulary;
  vocabulary.model = "gpt2", vocabulary.pre = "gpt-2", vocabulary.merges = {"a b"};
  for (int i = 0; i < 38; ++i)
    vocabulary.tokens.push_back(fmt::format("t{}", i)), vocabulary.types.push_back(TokenType::normal);
  vocabulary.bos = 3, vocabulary.add_bos = true;
  const Model model = random_model(make_config(llama()), DType::f32, 1);
  save_gguf(model, {.name = "named", .vocabulary = vocabulary, .chat_template = "{{ x }}"}, dir_ / "v.gguf");
  const GgufFile file = GgufFile::open(dir_ / "v.gguf");
  GgufFields fields(file);
  const auto tokens = fields.required<std::vector<std::string>>("tokenizer.ggml.tokens");
  ASSERT_EQ(tokens.size(), 40u);
  EXPECT_EQ(tokens[37], "t37");
  EXPECT_EQ(tokens[39], "[PAD39]");
  EXPECT_EQ(fields.required<std::vector<i64>>("tokenizer.ggml.token_type")[39], 5);
  EXPECT_EQ(fields.required<i64>("tokenizer.ggml.bos_token_id"), 3);
  EXPECT_TRUE(fields.required<bool>("tokenizer.ggml.add_bos_token"));
  EXPECT_EQ(fields.required<std::string>("tokenizer.chat_template"), "{{ x }}");
  EXPECT_EQ(fields.required<std::string>("general.name"), "named");
  EXPECT_EQ(load_gguf(dir_ / "v.gguf").config.vocab, 40);
  vocabulary.tokens.resize(41), vocabulary.types.resize(41);
  EXPECT_THROW(save_gguf(model, {.name = "x", .vocabulary = vocabulary}, dir_ / "w.gguf"), Error);
}

TEST_F(GgufModel, HostileFilesAreJudgedRight) {
  const fs::path folder = SPARSAM_DATA "/hostile";
  if (!fs::exists(folder)) GTEST_SKIP() << "the shared data folder is not here";
  const Json cases = parse_json(read_text(folder / "cases.json"), "cases.json");
  for (const Json& item : cases) {
    const auto name = item["file"].get<std::string>(), expect = item["expect"].get<std::string>();
    if (!name.starts_with("gguf/")) continue;
    std::string error;
    try {
      load_gguf(folder / name);
    } catch (const Error& e) {
      error = e.what();
      EXPECT_THAT(error, HasSubstr(name));
    }
    if (expect == "reject") {
      EXPECT_NE(error, "") << name << ": " << item["why"];
    } else if (expect == "accept") {
      EXPECT_EQ(error, "") << name;
    }
  }
}

// A GGUF file that others wrote, and the checkpoint with the same numbers.
TEST_F(GgufModel, AgreesWithAnotherWriter) {
  const fs::path folder = SPARSAM_DATA "/weights/derived/stories260K";
  if (!fs::exists(folder)) GTEST_SKIP() << "the shared data folder is not here";
  const Model original = load_model(folder);
  const fs::path converted = folder / "stories260K-f32.gguf";
  const Model theirs = load_gguf(converted);
  EXPECT_LT(largest_difference(logits_of(theirs), logits_of(original)), 1e-4);
  expect_same_bits(with_pairing(theirs, Pairing::halves), original);

  save(original);
  const GgufFile ours = GgufFile::open(dir_ / "m.gguf"), expected = GgufFile::open(converted);
  EXPECT_EQ(ours.tensors().size(), expected.tensors().size());
  for (const TensorEntry& entry : expected.tensors()) {
    const TensorEntry* found = ours.find(entry.name);
    ASSERT_NE(found, nullptr) << entry.name;
    EXPECT_EQ(found->shape, entry.shape);
    ASSERT_EQ(found->bytes.size(), entry.bytes.size());
    EXPECT_EQ(std::memcmp(found->bytes.data(), entry.bytes.data(), entry.bytes.size()), 0) << entry.name;
  }
}

}  // namespace
}  // namespace sparsam
