// Real weights in others' formats: the numbers that are known of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "formats/idx.h"
#include "formats/json.h"
#include "formats/test_support.h"
#include "formats/torch_file.h"
#include "model/llama2c.h"
#include "model/transformer.h"
#include "text/tokenizer.h"

namespace sparsam {
namespace {

using testing::HasSubstr;

const fs::path data = SPARSAM_DATA;

Matrix matrix_of(const TensorEntry& entry) {
  const i64 cols = entry.shape.back();
  return {entry.dtype, entry.elements() / cols, cols, entry.bytes};
}

// A network 784-500-10 with ReLU, out of torch's archive, on images out of MNIST's own files.
TEST(Mnist, ATorchFileAndIdxFilesGiveTheKnownAccuracy) {
  const fs::path weights = data / "weights/ggml/mnist_model.state_dict", images = data / "images/mnist";
  if (!fs::exists(weights)) GTEST_SKIP() << "needs " << weights;
  const TorchFile file = TorchFile::open(weights);
  const IdxArray pixels = read_idx(images / "t10k-images-idx3-ubyte.gz");
  const IdxArray labels = read_idx(images / "t10k-labels-idx1-ubyte.gz");
  const i64 count = pixels.shape[0], inputs = pixels.shape[1] * pixels.shape[2];
  ASSERT_EQ(count, 10'000);
  ASSERT_EQ(labels.shape[0], count);

  const auto backend = make_backend("cpu");
  Arena arena;
  const auto layer = [&](const std::string& name, const Out<float, 2>& x) {
    const Matrix weight = matrix_of(*file.find(name + ".weight"));
    const auto y = arena.allocate<float>(count, weight.rows);
    backend->run(Matmul{.y = y,
                        .x = x,
                        .w = weight,
                        .bias = as_vector(matrix_of(*file.find(name + ".bias"))),
                        .compute = Compute::f32});
    return y;
  };
  const auto x = arena.allocate<float>(count, inputs);
  for (i64 i = 0; i < x.size(); ++i) x.data()[i] = static_cast<float>(pixels.bytes[static_cast<size_t>(i)]) / 255.f;
  const auto hidden = layer("fc1", x);
  backend->run(Activation{.y = hidden, .x = hidden, .function = Function::relu});
  const auto scores = layer("fc2", hidden);
  i64 right = 0;
  for (i64 i = 0; i < count; ++i) {
    const auto row = scores[i];
    right += std::max_element(row.begin(), row.end()) - row.begin() ==
             static_cast<i64>(labels.bytes[static_cast<size_t>(i)]);
  }
  EXPECT_EQ(right, 9831);
}

// The original file of llama2.c against what its numbers give in double precision.
TEST(Llama2c, StoriesContinueAsRecorded) {
  const fs::path path = data / "weights/stories260K/stories260K.bin";
  const fs::path expected_path = data / "weights/derived/stories260K/expected.json";
  if (!fs::exists(path)) GTEST_SKIP() << "needs " << path;
  const Model model = load_llama2c(path);
  EXPECT_EQ(model.config.rotary.pairing, Pairing::interleaved);
  EXPECT_EQ(model.weights.layers[2].mlp.up.weight.rows, 172);
  const auto backend = make_backend("cpu");
  const Json expected = parse_json(read_text(expected_path), "expected.json");
  for (const Json& generation : expected["generations"]) {
    auto ids = generation["prompt_ids"].get<std::vector<i32>>();
    const auto greedy = generation["greedy_ids"].get<std::vector<i32>>();
    const size_t prompt = ids.size();
    ids.insert(ids.end(), greedy.begin(), greedy.end());
    const Transformer transformer(model, *backend, Compute::f32, static_cast<i64>(ids.size()));
    Arena arena;
    const In<i32, 1> tokens{ids.data(), {static_cast<i64>(ids.size())}};
    const auto logits = transformer.logits(transformer.forward({tokens, 1}, arena), arena);
    for (size_t i = prompt; i < ids.size(); ++i) {
      const auto row = logits[static_cast<i64>(i) - 1];
      EXPECT_EQ(std::max_element(row.begin(), row.end()) - row.begin(), ids[i]) << "token " << i;
    }
    // Recorded after the prompt: 16 logits, of which the largest is about 15.
    const auto row = logits[static_cast<i64>(prompt) - 1];
    for (size_t v = 0; v < generation["last_logits_first16"].size(); ++v)
      EXPECT_NEAR(row[static_cast<i64>(v)], generation["last_logits_first16"][v].get<double>(), 1e-4);
  }
}

// 40 stories, each from its beginning-of-text token, up to 256 tokens of each.
TEST(Llama2c, StoriesHaveTheRecordedPerplexity) {
  const fs::path text = data / "text/english/tinystories_sample.txt", derived = data / "weights/derived/stories260K";
  if (!fs::exists(text)) GTEST_SKIP() << "needs " << text;
  constexpr std::string_view separator = "<|endoftext|>";
  constexpr size_t stories = 40, most_tokens = 256;
  const Model model = load_llama2c(data / "weights/stories260K/stories260K.bin");
  const Tokenizer tokenizer = Tokenizer::load(derived / "tokenizer.json");
  const auto backend = make_backend("cpu");
  const std::string all = read_text(text);
  std::string_view rest = all;
  double loss = 0;
  i64 count = 0;
  for (size_t story = 0; story < stories; ++story) {
    const size_t end = std::min(rest.find(separator), rest.size());
    std::string_view one = rest.substr(0, end);
    rest.remove_prefix(std::min(end + separator.size(), rest.size()));
    one.remove_prefix(std::min(one.find_first_not_of(" \n"), one.size()));
    one = one.substr(0, one.find_last_not_of(" \n") + 1);
    std::vector<i32> ids{1};
    tokenizer.encode(one, ids);
    ids.resize(std::min(ids.size(), most_tokens));
    const i64 inputs = static_cast<i64>(ids.size()) - 1;
    const Transformer transformer(model, *backend, Compute::f32, inputs);
    Arena arena;
    const auto logits = transformer.logits(transformer.forward({In<i32, 1>{ids.data(), {inputs}}, 1}, arena), arena);
    for (i64 i = 0; i < inputs; ++i) {
      const auto row = logits[i];
      const double largest = *std::max_element(row.begin(), row.end());
      double sum = 0;
      for (const float value : row) sum += std::exp(static_cast<double>(value) - largest);
      loss += largest + std::log(sum) - static_cast<double>(row[ids[static_cast<size_t>(i) + 1]]);
    }
    count += inputs;
  }
  const Json expected = parse_json(read_text(derived / "expected.json"), "expected.json")["perplexity"];
  EXPECT_EQ(count, expected["tokens"].get<i64>());
  EXPECT_NEAR(std::exp(loss / static_cast<double>(count)), expected["ppl"].get<double>(), 1e-4);
}

class Llama2cHeaders : public testing::Test {
 protected:
  // Header and as many zeros as the valid header below needs.
  static std::string error_of(const std::vector<i32>& header, i64 extra = 0) {
    std::string bytes(reinterpret_cast<const char*>(header.data()), header.size() * sizeof(i32));
    bytes.append(static_cast<size_t>(4 * floats_ + extra), '\0');
    return error_of_bytes(bytes, load_llama2c);
  }
  // dim 8, hidden 4, 2 layers, 4 heads, 2 kv heads, vocabulary 3, context 5
  static constexpr i64 floats_ = 3 * 8 + 2 * (8 + 64 + 32 + 32 + 64 + 8 + 3 * 32) + 8 + 2 * 5;
};

TEST_F(Llama2cHeaders, MustFitTheFileAndEachOther) {
  constexpr i32 huge = 2'000'000'000;
  EXPECT_EQ(error_of({8, 4, 2, 4, 2, 3, 5}), "no error");
  EXPECT_EQ(error_of({8, 4, 2, 4, 2, -3, 5}, 4 * 3 * 8), "no error") << "an untied head";
  EXPECT_THAT(error_of({8, 4, 2, 4, 2, -3, 5}), HasSubstr("wcls of shape (3, 8) at byte"));
  EXPECT_THAT(error_of({8, 4, 2, 4, 2, 3, 5}, 1), HasSubstr("1 bytes follow"));
  EXPECT_THAT(error_of({8, 4, 2, 4, 2, 3, 5}, -1), HasSubstr("freq_cis_imag of shape (5, 1)"));
  EXPECT_THAT(error_of({0, 4, 2, 4, 2, 3, 5}), HasSubstr("dim is 0, expected at least 1"));
  EXPECT_THAT(error_of({8, 4, 2, 4, 2, 0, 5}), HasSubstr("vocab is 0"));
  EXPECT_THAT(error_of({8, 4, 2, 0, 2, 3, 5}), HasSubstr("heads is 0"));
  EXPECT_THAT(error_of({8, 4, 2, 4, -1, 3, 5}), HasSubstr("kv_heads is -1"));
  EXPECT_THAT(error_of({8, 4, 2, 3, 1, 3, 5}), HasSubstr("8 channels in 3 heads"));
  EXPECT_THAT(error_of({8, 4, 2, 8, 2, 3, 5}), HasSubstr("an even number of channels"));
  EXPECT_THAT(error_of({8, 4, 2, 4, 3, 3, 5}), HasSubstr("4 heads share 3 key-value heads"));
  EXPECT_THAT(error_of({huge, huge, huge, 1, 1, huge, huge}), HasSubstr("token_embedding_table of shape"));
  EXPECT_THAT(error_of({8, huge, huge, 4, 2, 3, 5}), HasSubstr("takes"));
  EXPECT_THAT(error_of({0x616b3432, 1, 8, 4, 2, 4, 2}), HasSubstr("version 1 or later"));
  EXPECT_THAT(error_of({8, 4}, -4 * floats_), HasSubstr("layers at byte 8"));
}

}  // namespace
}  // namespace sparsam
