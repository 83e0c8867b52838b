#include "measure/perplexity.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "base/test_support.h"
#include "formats/json.h"
#include "infer/test_support.h"
#include "measure/divergence.h"
#include "measure/finite.h"

namespace sparsam {
namespace {

// log-softmax in double precision of the logits after each token of one sequence, from the reference backend.
std::vector<std::vector<double>> log_probabilities(const Model& model, const std::vector<i32>& ids) {
  const auto backend = make_backend("reference");
  const Transformer transformer(model, *backend, Compute::f32, static_cast<i64>(ids.size()));
  Arena arena;
  const auto hidden =
      transformer.forward({.ids = {ids.data(), {static_cast<i64>(ids.size())}}, .sequences = 1, .start = 0}, arena);
  const auto logits = transformer.logits(hidden, arena);
  std::vector<std::vector<double>> result;
  for (i64 n = 0; n < logits.shape(0); ++n) {
    double sum = 0;
    for (const float z : logits[n]) sum += std::exp(static_cast<double>(z));
    auto& row = result.emplace_back();
    for (const float z : logits[n]) row.push_back(static_cast<double>(z) - std::log(sum));
  }
  return result;
}

class PerplexityTest : public testing::Test {
 protected:
  PerplexityTest() : tiny(model_for_tokenizer(1)), other(model_for_tokenizer(2)), backend(make_backend("cpu")) {}
  static TinyModel model_for_tokenizer(u64 seed) {
    Architecture architecture = tiny_llama_like;
    architecture.vocab = tiny_tokenizer().vocab_size();
    return tiny_model(architecture, seed);
  }
  TokenText text(i64 tokens, std::optional<i32> beginning = {}) const {
    return {random_ids(tokens, tiny_tokenizer().vocab_size(), 9), beginning, "text"};
  }

  TinyModel tiny, other;
  std::unique_ptr<Backend> backend;
};

TEST_F(PerplexityTest, EqualsTheDefinitionForEveryProtocol) {
  for (const Protocol protocol : {Protocol::stride, Protocol::llama_cpp})
    for (const std::optional<i32> beginning : {std::optional<i32>{}, std::optional<i32>{5}}) {
      const WindowOptions options{.protocol = protocol, .context = 16, .stride = 6, .batch_tokens = 48};
      const TokenText scored = text(90, beginning);
      const Transformer model(tiny.model, *backend, Compute::f32, 16);
      const Perplexity p = summarize(measure_losses(model, tiny_tokenizer(), scored, options));

      double nats = 0;
      i64 tokens = 0, bytes = 0;
      const WindowedText windowed = cut(scored, options);
      for (const Window& w : windowed.windows) {
        std::vector<i32> ids(windowed.tokens.begin() + w.begin, windowed.tokens.begin() + w.begin + w.length);
        if (protocol == Protocol::llama_cpp && beginning) ids[0] = *beginning;
        const auto log_p = log_probabilities(tiny.model, ids);
        for (i64 i = w.first_scored; i < w.length; ++i) {
          const i32 target = ids[static_cast<size_t>(i)];
          nats -= log_p[static_cast<size_t>(i - 1)][static_cast<size_t>(target)];
          bytes += static_cast<i64>(tiny_tokenizer().bytes_of(target).size()), ++tokens;
        }
      }
      EXPECT_EQ(p.tokens, tokens);
      EXPECT_EQ(p.bytes, bytes);
      EXPECT_NEAR(p.nats_per_token.mean, nats / static_cast<double>(tokens), 1e-4);
      EXPECT_NEAR(p.perplexity, std::exp(nats / static_cast<double>(tokens)), 1e-4 * p.perplexity);
      EXPECT_NEAR(p.bits_per_byte, nats / std::numbers::ln2 / static_cast<double>(bytes), 1e-4);
      EXPECT_LT(p.low, p.perplexity);
      EXPECT_GT(p.high, p.perplexity);
    }
}

TEST_F(PerplexityTest, OfAUniformModelIsItsVocabulary) {
  for (float& value : tiny.flat->views.token_embedding.span()) value = 0;  // tied: all logits are 0
  const Transformer model(tiny.model, *backend, Compute::f32, 16);
  const Perplexity p = summarize(measure_losses(model, tiny_tokenizer(), text(50), {.context = 16, .stride = 8}));
  EXPECT_NEAR(p.perplexity, static_cast<double>(tiny.model.config.vocab), 1e-3);
}

TEST_F(PerplexityTest, TextsAddUp) {
  const Transformer model(tiny.model, *backend, Compute::f32, 16);
  const WindowOptions options{.context = 16, .stride = 8};
  Losses all = measure_losses(model, tiny_tokenizer(), text(40), options);
  const Perplexity first = summarize(all);
  const Losses second_losses = measure_losses(model, tiny_tokenizer(), text(70), options);
  const Perplexity second = summarize(second_losses);
  all.add(second_losses);
  const Perplexity both = summarize(all);
  EXPECT_EQ(both.tokens, first.tokens + second.tokens);
  const double nats = first.nats_per_token.mean * static_cast<double>(first.tokens) +
                      second.nats_per_token.mean * static_cast<double>(second.tokens);
  EXPECT_NEAR(both.nats_per_token.mean, nats / static_cast<double>(both.tokens), 1e-9);
}

TEST_F(PerplexityTest, RefusesWhatIsNoNumber) {
  tiny.flat->views.final_norm.gain.data()[3] = std::nanf("");
  const Transformer model(tiny.model, *backend, Compute::f32, 16);
  const WindowOptions options{.context = 16, .stride = 8};
  EXPECT_THROW(measure_losses(model, tiny_tokenizer(), text(50), options), Error);
  EXPECT_THROW(measure_divergence(model, model, tiny_tokenizer(), text(50), options), Error);
}

TEST_F(PerplexityTest, DivergenceFromItselfIsExactlyZero) {
  const Transformer model(tiny.model, *backend, Compute::f32, 16);
  const Divergence d =
      summarize(measure_divergence(model, model, tiny_tokenizer(), text(60), {.context = 16, .stride = 8}));
  EXPECT_EQ(d.tokens, 59);
  EXPECT_EQ(d.kl.mean, 0);
  EXPECT_EQ(d.kl_max, 0);
  EXPECT_EQ(d.top1_agreement.mean, 1);
  EXPECT_EQ(d.base.perplexity, d.other.perplexity);
}

TEST_F(PerplexityTest, DivergenceEqualsTheDefinition) {
  const WindowOptions options{.context = 32, .stride = 16};
  const TokenText scored = text(32);
  const Transformer base(tiny.model, *backend, Compute::f32, 32), changed(other.model, *backend, Compute::f32, 32);
  const Divergence d = summarize(measure_divergence(base, changed, tiny_tokenizer(), scored, options));
  const auto log_p = log_probabilities(tiny.model, scored.tokens),
             log_q = log_probabilities(other.model, scored.tokens);
  double kl = 0, same = 0, greatest = 0;
  for (size_t t = 0; t + 1 < 32; ++t) {
    double of_token = 0;
    for (size_t v = 0; v < log_p[t].size(); ++v) of_token += std::exp(log_p[t][v]) * (log_p[t][v] - log_q[t][v]);
    kl += of_token, greatest = std::max(greatest, of_token);
    same += std::max_element(log_p[t].begin(), log_p[t].end()) - log_p[t].begin() ==
            std::max_element(log_q[t].begin(), log_q[t].end()) - log_q[t].begin();
  }
  EXPECT_NEAR(d.kl.mean, kl / 31, 1e-4);
  EXPECT_NEAR(d.kl_max, greatest, 1e-3);
  EXPECT_NEAR(d.top1_agreement.mean, same / 31, 1e-12);
  const Perplexity alone = summarize(measure_losses(changed, tiny_tokenizer(), scored, options));
  EXPECT_NEAR(d.other.perplexity, alone.perplexity, 1e-4 * alone.perplexity);
}

TEST(CompareRows, ByHand) {
  const float p[] = {std::log(0.5f), std::log(0.25f), std::log(0.25f)}, q[] = {0, 0, 0};
  const RowDivergence row = compare_rows({p, {3}}, {q, {3}}, 1);
  // 1/2 log(3/2) + 2 1/4 log(3/4)
  EXPECT_NEAR(row.kl, 0.5 * std::log(1.5) + 0.5 * std::log(0.75), 1e-7);
  EXPECT_NEAR(row.base_nats, std::log(4), 1e-7);
  EXPECT_NEAR(row.other_nats, std::log(3), 1e-7);
  EXPECT_TRUE(row.same_top);
}

TEST(CompareRows, LargeLogitsDoNotOverflow) {
  const float p[] = {1000, 0}, q[] = {0, 1000};
  const RowDivergence row = compare_rows({p, {2}}, {q, {2}}, 0);
  EXPECT_NEAR(row.kl, 1000, 1e-6);
  EXPECT_FALSE(row.same_top);
}

TEST_F(PerplexityTest, DivergenceNeedsOneVocabulary) {
  Architecture larger = tiny_llama_like;
  larger.vocab = tiny.model.config.vocab + 1;
  const TinyModel stranger = tiny_model(larger);
  const Transformer base(tiny.model, *backend, Compute::f32, 16), changed(stranger.model, *backend, Compute::f32, 16);
  EXPECT_THROW(measure_divergence(base, changed, tiny_tokenizer(), text(50), {.context = 16, .stride = 8}), Error);
}

TEST(CheckFinite, NamesTheTensorAndThePlace) {
  const TinyModel tiny = tiny_model();
  check_finite(tiny.model, "model");
  tiny.flat->views.layers[1].mlp.up.weight(2, 7) = std::numeric_limits<float>::infinity();
  EXPECT_EQ(error_of([&] { check_finite(tiny.model, "model"); }),
            "model: tensor model.layers.1.mlp.up_proj.weight holds inf at (2, 7), expected finite numbers");
}

TEST(CheckFinite, ReadsSixteenBits) {
  for (const DType dtype : {DType::bf16, DType::f16}) {
    const Model model = random_model(make_config(tiny_llama_like), dtype, 1);
    check_finite(model, "model");
    const Matrix& w = model.weights.layers[2].attention.v.weight;
    const_cast<std::byte*>(w.bytes.data())[2 * 37 + 1] = std::byte{0x7f};  // exponent all ones, or nearly
    const_cast<std::byte*>(w.bytes.data())[2 * 37] = std::byte{0xff};
    EXPECT_THROW(check_finite(model, "model"), Error) << name_of(dtype);
  }
}

TEST(CheckFinite, ReadsTheScalesOfBlocks) {
  const TinyModel tiny = tiny_model();
  for (const DType dtype : {DType::q8_0, DType::q5_1, DType::q4_0}) {
    Model model = tiny.model;
    Matrix& w = model.weights.layers[0].attention.o.weight;
    const std::vector<float> zeros(32);
    std::vector<std::byte> bytes(static_cast<size_t>(bytes_for(dtype, w.size())));
    const Matrix blocks{dtype, w.rows, w.cols, bytes};
    for (i64 r = 0; r < w.rows; ++r) quantize_row(dtype, zeros, {}, bytes.data() + r * blocks.row_bytes());
    w = blocks;
    check_finite(model, "model");
    bytes[static_cast<size_t>(5 * blocks.row_bytes()) + (dtype == DType::q5_1 ? 3 : 1)] = std::byte{0x7c};
    const std::string error = error_of([&] { check_finite(model, "model"); });
    EXPECT_NE(error.find("o_proj.weight holds"), std::string::npos) << error;
    EXPECT_NE(error.find("at (5, 0)"), std::string::npos) << error;
  }
}

// What an independent implementation recorded of a real model, in double precision.
TEST(Perplexity, LogitsOfARealModelAreTheRecordedOnes) {
  const fs::path directory = SPARSAM_DATA "/weights/derived/stories260K";
  if (!fs::exists(directory)) GTEST_SKIP() << directory << " is absent";
  const Model model = load_model(directory);
  const Json expected = parse_json(read_text(directory / "expected.json"), "expected.json");
  const auto backend = make_backend("cpu");
  const Transformer transformer(model, *backend, Compute::f32, 512);
  for (const Json& g : expected["generations"]) {
    const auto ids = g["prompt_ids"].get<std::vector<i32>>();
    Arena arena;
    const i64 n = static_cast<i64>(ids.size());
    const auto hidden = transformer.forward({.ids = {ids.data(), {n}}, .sequences = 1, .start = 0}, arena);
    const auto logits = transformer.logits(hidden.slice(n - 1, 1), arena);
    const auto wanted = g["last_logits_first16"].get<std::vector<double>>();
    for (size_t v = 0; v < wanted.size(); ++v)
      EXPECT_NEAR(static_cast<double>(logits(0, static_cast<i64>(v))), wanted[v], 2e-4);
    // loss = log-sum-exp - logit
    const i32 target = g["greedy_ids"][0].get<i32>();
    const auto loss = transformer.losses(hidden.slice(n - 1, 1), {&target, {1}}, arena);
    EXPECT_NEAR(static_cast<double>(loss[0] + logits(0, target)), g["logsumexp"].get<double>(), 2e-4);
  }
}

}  // namespace
}  // namespace sparsam
