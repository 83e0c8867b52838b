// An encoder-decoder transformer with real, trained weights, written out of the operations alone: it transliterates
// Arabic names into Latin letters. Each kernel is compared with the reference while it runs (Checked). The expected
// letters and log probabilities are those of CTranslate2's own tests (python/tests/test_translator.py,
// tests/translator_test.cc).
#include "formats/ctranslate2.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <numeric>
#include <sstream>

#include "ops/decorators.h"
#include "tensor/arena.h"

namespace sparsam {
namespace {

constexpr i64 C = 32, H = 8, D = C / H, capacity = 20;
constexpr int layers = 6;
constexpr float scale = 0.5;  // 1 / sqrt(D)
constexpr i32 begin_of_text = 1, end_of_text = 2;
const fs::path data = fs::path(SPARSAM_DATA) / "weights/ct2-aren";

using Rows = Out<float, 2>;

// The name that version 1 of the model gives a tensor.
std::string old_name(std::string name) {
  const bool encoder = name.starts_with("encoder");
  const std::pair<std::string, std::string> renamed[] = {
      {"self_attention", encoder ? "multi_head" : "masked_multi_head"},
      {"/attention", "/multi_head"},
      {"embeddings/weight", "w_embs"},
      {"projection", "dense"},
      {"layer_norm", "LayerNorm"},
      {"weight", "kernel"},
      {"linear_0", "conv1d"},
      {"linear_1", "conv1d_1"},
      {"linear_2", "conv1d_2"}};
  for (const auto& [now, then] : renamed)
    if (const size_t at = name.find(now); at != name.npos) name.replace(at, now.size(), then);
  return "transformer/" + name + ":0";
}

std::vector<std::string> words(const std::string& text) {
  std::istringstream stream(text);
  return {std::istream_iterator<std::string>(stream), {}};
}

class Transliterator {
 public:
  struct Result {
    std::vector<std::string> letters;
    std::vector<float> log_probabilities;  // of the letters and of the end

    double score() const { return std::accumulate(log_probabilities.begin(), log_probabilities.end(), 0.); }
  };

  explicit Transliterator(const fs::path& directory)
      : file_(Ctranslate2File::open(directory / "model.bin")),
        cpu_(make_backend("cpu")),
        backend_(*cpu_),
        source_(words(read_text(directory / "source_vocabulary.txt"))),
        target_(words(read_text(directory / "target_vocabulary.txt"))) {}

  const Ctranslate2File& file() const { return file_; }

  // The likeliest letter, one at a time.
  Result run(const std::string& text) {
    std::vector<i32> ids;
    for (const std::string& letter : words(text))
      ids.push_back(static_cast<i32>(std::find(source_.begin(), source_.end(), letter) - source_.begin()));
    start(encode(ids));
    Result result;
    for (i32 id = begin_of_text; static_cast<i64>(result.letters.size()) < capacity;) {
      const auto logits = decode(id, static_cast<i64>(result.letters.size()))[0];
      const auto best = std::max_element(logits.begin(), logits.end());
      float sum = 0;
      for (const float logit : logits) sum += std::exp(logit - *best);
      result.log_probabilities.push_back(-std::log(sum));
      id = static_cast<i32>(best - logits.begin());
      if (id == end_of_text) break;
      result.letters.push_back(target_.at(static_cast<size_t>(id)));
    }
    return result;
  }

 private:
  struct Cache {
    MutableMatrix keys, values;
  };

  const std::vector<float>& weight(const std::string& name) {
    const auto [place, is_new] = weights_.try_emplace(name);
    if (is_new) place->second = file_.floats(file_.version() == 1 ? old_name(name) : name);
    return place->second;
  }
  In<float, 1> vector(const std::string& name) {
    const std::vector<float>& values = weight(name);
    return {values.data(), {static_cast<i64>(values.size())}};
  }
  Rows rows(i64 count, i64 cols = C) { return arena_.allocate<float>(count, cols); }

  // y = x w^T + b, with rows [first, first + out) of w.
  Rows linear(const std::string& name, In<float, 2> x, i64 first, i64 out) {
    const In<float, 1> w = vector(name + "/weight"), bias = vector(name + "/bias");
    const i64 in = x.shape(1);
    const auto y = rows(x.shape(0), out);
    backend_.run(Matmul{.y = y,
                        .x = x,
                        .w = as_matrix(w.as(w.size() / in, in)).slice(first, out),
                        .bias = bias.slice(first, out),
                        .compute = Compute::f32});
    return y;
  }
  Rows norm(const std::string& name, In<float, 2> x) {
    const auto y = rows(x.shape(0));
    backend_.run(
        LayerNorm{.y = y, .x = x, .gain = vector(name + "/gamma"), .bias = vector(name + "/beta"), .eps = 1e-5f});
    return y;
  }
  void add(const Rows& x, In<float, 2> branch) { backend_.run(Add{.y = x, .a = x, .b = branch}); }
  void feed_forward(const std::string& at, const Rows& x) {
    const auto hidden = linear(at + "/linear_0", norm(at + "/layer_norm", x), 0, 4 * C);
    backend_.run(Activation{.y = hidden, .x = hidden, .function = Function::relu});
    add(x, linear(at + "/linear_1", hidden, 0, C));
  }

  // sqrt(C) times the embedding, plus sines in the first half of the channels and cosines in the second of
  // (position + 1) / 10000^(i / (C / 2 - 1)).
  Rows embed(const std::string& side, In<i32, 1> ids, i64 start) {
    const auto x = rows(ids.size()), positions = rows(ids.size());
    const In<float, 1> table = vector(side + "/embeddings/weight");
    backend_.run(Embedding{.y = x, .tokens = ids, .table = as_matrix(table.as(table.size() / C, C))});
    backend_.run(Scale{.y = x, .x = x, .factor = std::sqrt(static_cast<float>(C))});
    for (i64 t = 0; t < ids.size(); ++t)
      for (i64 i = 0; i < C / 2; ++i) {
        const double angle = static_cast<double>(start + t + 1) /
                             std::pow(10'000., static_cast<double>(i) / static_cast<double>(C / 2 - 1));
        positions(t, i) = static_cast<float>(std::sin(angle));
        positions(t, C / 2 + i) = static_cast<float>(std::cos(angle));
      }
    add(x, positions);
    return x;
  }

  Rows encode(const std::vector<i32>& ids) {
    const i64 T = static_cast<i64>(ids.size());
    const auto x = embed("encoder", {ids.data(), {T}}, 0);
    for (int l = 0; l < layers; ++l) {
      const std::string layer = fmt::format("encoder/layer_{}/", l), at = layer + "self_attention";
      const auto n = norm(at + "/layer_norm", x), y = rows(T);
      const auto heads = [&](i64 part) { return linear(at + "/linear_0", n, part * C, C).as(1, T, H, D); };
      backend_.run(Attention{.y = y.as(1, T, H, D),
                             .q = heads(0),
                             .k = heads(1),
                             .v = heads(2),
                             .scale = scale,
                             .causal = false,
                             .compute = Compute::f32});
      add(x, linear(at + "/linear_1", y, 0, C));
      feed_forward(layer + "ffn", x);
    }
    return norm("encoder/layer_norm", x);
  }

  Cache cache(i64 positions) {
    const auto matrix = [&] {
      const auto x = arena_.zeros<float>(H * positions, D);
      return MutableMatrix{DType::f32, H * positions, D, std::as_writable_bytes(x.span())};
    };
    return {matrix(), matrix()};
  }
  void append(const Cache& cache, In<float, 2> k, In<float, 2> v, i64 start) {
    const i64 T = k.shape(0);
    backend_.run(CacheAppend{
        .keys = cache.keys, .values = cache.values, .k = k.as(T, H, D), .v = v.as(T, H, D), .start = start});
  }
  // One query at position `last`: it sees all up to there.
  Rows attend(const Cache& cache, In<float, 2> q, i64 last) {
    const auto y = rows(1);
    backend_.run(CachedAttention{.y = y.as(1, H, D),
                                 .q = q.as(1, H, D),
                                 .keys = cache.keys,
                                 .values = cache.values,
                                 .groups = H,
                                 .start = last,
                                 .scale = scale,
                                 .compute = Compute::f32});
    return y;
  }

  // Empty caches of the decoder's own positions, full ones of what the encoder made.
  void start(In<float, 2> memory) {
    memory_length_ = memory.shape(0);
    own_.clear(), others_.clear();
    for (int l = 0; l < layers; ++l) {
      const std::string at = fmt::format("decoder/layer_{}/attention/linear_1", l);
      own_.push_back(cache(capacity));
      others_.push_back(cache(memory_length_));
      append(others_.back(), linear(at, memory, 0, C), linear(at, memory, C, C), 0);
    }
  }

  // Logits (1, V) after one more letter.
  Rows decode(i32 id, i64 position) {
    const auto x = embed("decoder", {&id, {1}}, position);
    for (size_t l = 0; l < layers; ++l) {
      const std::string layer = fmt::format("decoder/layer_{}/", l);
      const std::string self = layer + "self_attention", cross = layer + "attention";
      const auto n = norm(self + "/layer_norm", x);
      const auto part = [&](i64 index) { return linear(self + "/linear_0", n, index * C, C); };
      append(own_[l], part(1), part(2), position);
      add(x, linear(self + "/linear_1", attend(own_[l], part(0), position), 0, C));

      const auto q = linear(cross + "/linear_0", norm(cross + "/layer_norm", x), 0, C);
      add(x, linear(cross + "/linear_2", attend(others_[l], q, memory_length_ - 1), 0, C));
      feed_forward(layer + "ffn", x);
    }
    return linear("decoder/projection", norm("decoder/layer_norm", x), 0, static_cast<i64>(target_.size()));
  }

  Ctranslate2File file_;
  std::unique_ptr<Backend> cpu_;
  Checked backend_;
  std::vector<std::string> source_, target_;
  std::map<std::string, std::vector<float>> weights_;
  Arena arena_;
  std::vector<Cache> own_, others_;  // by layer
  i64 memory_length_ = 0;
};

struct Variant {
  const char* directory;
  size_t tensors;
  double score;  // of "a t z m o n" in double precision, weights divided by their scales
};
class Transliteration : public testing::TestWithParam<Variant> {
  void SetUp() override {
    if (!fs::exists(data)) GTEST_SKIP() << "needs " << data;
  }
};

TEST_P(Transliteration, GivesTheKnownLetters) {
  Transliterator model(data / GetParam().directory);
  EXPECT_EQ(model.file().tensors().size(), GetParam().tensors);
  EXPECT_EQ(model.file().specification(), model.file().version() == 1 ? "" : "TransformerBase");
  const auto result = model.run("آ ت ز م و ن");
  EXPECT_EQ(result.letters, words("a t z m o n"));
  EXPECT_NEAR(result.score(), GetParam().score, 1e-5);
  EXPECT_EQ(model.run("آ ز ا").letters, words("a z z a"));
  EXPECT_EQ(model.run("آ ت ش ي س و ن").letters, words("a c h i s o n"));
}

INSTANTIATE_TEST_SUITE_P(Ctranslate2, Transliteration,
                         testing::Values(Variant{"v1-aren-transliteration", 200, -1.06174979},
                                         Variant{"v1-aren-transliteration-i16", 200, -1.05999151},
                                         Variant{"v2-aren-transliteration", 200, -1.06174979},
                                         Variant{"v2-aren-transliteration-i16", 269, -1.05999151},
                                         Variant{"v2-aren-transliteration-i8", 269, -1.08767479}),
                         [](const auto& test) {
                           std::string name = test.param.directory;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(Ctranslate2, LogProbabilitiesAreThePublishedOnes) {
  if (!fs::exists(data)) GTEST_SKIP() << "needs " << data;
  Transliterator model(data / "v2-aren-transliteration");
  const std::pair<const char*, std::vector<float>> published[] = {
      {"آ ت ز م و ن", {-0.106023f, -0.065410f, -0.056002f, -0.447953f, -0.230714f, -0.092184f, -0.063463f}},
      {"آ ت ش ي س و ن",
       {-0.072660f, -0.300309f, -0.181187f, -0.395671f, -0.025631f, -0.123466f, -0.002034f, -0.012639f}}};
  for (const auto& [text, expected] : published)
    EXPECT_THAT(model.run(text).log_probabilities, testing::Pointwise(testing::FloatNear(2e-6f), expected));
}

}  // namespace
}  // namespace sparsam
