#include "infer/session.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <tuple>

#include "base/threads.h"
#include "formats/json.h"
#include "infer/test_support.h"

namespace sparsam {
namespace {

// Logits (N, V) of whole sequences, from the reference backend.
std::vector<std::vector<float>> whole_logits(const Model& model, const std::vector<i32>& ids) {
  const auto backend = make_backend("reference");
  const Transformer transformer(model, *backend, Compute::f32, static_cast<i64>(ids.size()));
  Arena arena;
  const auto hidden =
      transformer.forward({.ids = {ids.data(), {static_cast<i64>(ids.size())}}, .sequences = 1, .start = 0}, arena);
  const auto logits = transformer.logits(hidden, arena);
  std::vector<std::vector<float>> rows;
  for (i64 n = 0; n < logits.shape(0); ++n) rows.emplace_back(logits[n].begin(), logits[n].end());
  return rows;
}

double greatest_difference(In<float, 1> a, const std::vector<float>& b) {
  double greatest = 0;
  for (i64 i = 0; i < a.size(); ++i)
    greatest = std::max(greatest, std::abs(static_cast<double>(a[i]) - b[static_cast<size_t>(i)]));
  return greatest;
}

// Logits are of size 3; f32 sums of 50 products a dozen deep differ by a few 1e-6 between orders of summation.
constexpr double f32_tolerance = 5e-5;

class SessionTest : public testing::TestWithParam<Architecture> {};

TEST_P(SessionTest, StepsEqualTheWholeSequence) {
  const TinyModel tiny = tiny_model(GetParam());
  const auto ids = random_ids(20, tiny.model.config.vocab, 3);
  const auto expected = whole_logits(tiny.model, ids);
  const auto backend = make_backend("cpu");
  Session session(tiny.model, *backend, {.cache = DType::f32, .first_capacity = 2});
  for (size_t i = 0; i < ids.size(); ++i) {
    EXPECT_LT(greatest_difference(session.step(ids[i]), expected[i]), f32_tolerance) << "step " << i;
    EXPECT_EQ(session.position(), static_cast<i64>(i) + 1);
  }
  EXPECT_EQ(session.capacity(), 32);
}

TEST_P(SessionTest, PrefillInChunksEqualsTheWholeSequence) {
  const TinyModel tiny = tiny_model(GetParam());
  const auto ids = random_ids(23, tiny.model.config.vocab, 4);
  const auto expected = whole_logits(tiny.model, ids);
  const auto backend = make_backend("cpu");
  for (const i64 chunk : {1, 4, 23, 512}) {
    Session session(tiny.model, *backend, {.cache = DType::f32, .first_capacity = 5, .chunk = chunk});
    EXPECT_LT(greatest_difference(session.prefill(ids), expected.back()), f32_tolerance) << "chunks of " << chunk;
  }
}

TEST_P(SessionTest, SixteenBitCachesAreClose) {
  const TinyModel tiny = tiny_model(GetParam());
  const auto ids = random_ids(16, tiny.model.config.vocab, 5);
  const auto expected = whole_logits(tiny.model, ids);
  const auto backend = make_backend("cpu");
  Session half(tiny.model, *backend, {.cache = DType::f16}), brain(tiny.model, *backend, {.cache = DType::bf16});
  const double f16_error = greatest_difference(half.prefill(ids), expected.back());
  const double bf16_error = greatest_difference(brain.prefill(ids), expected.back());
  EXPECT_LT(f16_error, 0.02);
  EXPECT_LT(bf16_error, 0.16);
  EXPECT_GT(bf16_error, f16_error);  // 8 bits of mantissa against 11
}

INSTANTIATE_TEST_SUITE_P(Architectures, SessionTest, testing::Values(tiny_llama_like, tiny_gpt_like),
                         [](const auto& p) { return p.param.gated ? "Llama" : "Gpt"; });

TEST(Session, RewindsExactly) {
  const TinyModel tiny = tiny_model();
  const auto ids = random_ids(12, 300, 6);
  const auto backend = make_backend("cpu");
  Session session(tiny.model, *backend);
  session.prefill(std::span(ids).first(7));
  const auto first = session.step(ids[7]);
  const std::vector<float> before(first.begin(), first.end());
  session.prefill(std::span(ids).subspan(8));
  session.rewind(7);
  EXPECT_EQ(session.position(), 7);
  const auto again = session.step(ids[7]);
  EXPECT_EQ(std::vector<float>(again.begin(), again.end()), before);
}

TEST(Session, RefusesMoreThanItsPositionsAndStaysAsItWas) {
  const TinyModel tiny = tiny_model();
  const auto ids = random_ids(6, 300, 7);
  const auto backend = make_backend("cpu");
  Session session(tiny.model, *backend, {.positions = 8});
  session.prefill(ids);
  EXPECT_THROW(session.prefill(std::span(ids).first(3)), Error);
  EXPECT_EQ(session.position(), 6);
  session.prefill(std::span(ids).first(2));
  EXPECT_THROW(session.step(1), Error);
  session.rewind(0);
  EXPECT_THROW(session.step(300), Error);  // outside the vocabulary
  EXPECT_EQ(session.position(), 0);
}

TEST(Session, CacheHoldsOnlyLayersWithAttention) {
  TinyModel tiny = tiny_model();
  const auto backend = make_backend("cpu");
  Session full(tiny.model, *backend, {.cache = DType::f16, .first_capacity = 16});
  full.step(1);
  EXPECT_EQ(full.cache_bytes(), 3 * 2 * 2 * 8 * 16 * 2);  // layers, keys and values, heads, channels, positions, bytes
  tiny.model.config.layers[1].mixer = std::monostate{};
  Session less(tiny.model, *backend, {.cache = DType::f16, .first_capacity = 16});
  less.step(1);
  EXPECT_EQ(less.cache_bytes(), 2 * 2 * 2 * 8 * 16 * 2);
}

TEST(Session, ScratchDoesNotGrowWithSteps) {
  const TinyModel tiny = tiny_model();
  const auto backend = make_backend("cpu");
  Session session(tiny.model, *backend);
  session.step(1);
  const i64 after_one = session.scratch_bytes();
  for (i32 i = 0; i < 40; ++i) session.step(i);
  EXPECT_EQ(session.scratch_bytes(), after_one);
}

// A real model whose greedy continuations and logits an independent implementation wrote (double precision).
TEST(Session, ContinuesStoriesAsRecorded) {
  const fs::path directory = SPARSAM_DATA "/weights/derived/stories260K";
  if (!fs::exists(directory)) GTEST_SKIP() << directory << " is absent";
  const Model model = load_model(directory);
  const Json expected = parse_json(read_text(directory / "expected.json"), "expected.json");
  const auto backend = make_backend("cpu");
  for (const Json& generation : expected["generations"]) {
    Session session(model, *backend, {.cache = DType::f32});
    std::vector<i32> ids;
    In<float, 1> logits = session.prefill(generation["prompt_ids"].get<std::vector<i32>>());
    const auto wanted = generation["greedy_ids"].get<std::vector<i32>>();
    while (ids.size() < wanted.size()) {
      ids.push_back(static_cast<i32>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
      if (ids.size() < wanted.size()) logits = session.step(ids.back());
    }
    EXPECT_EQ(ids, wanted);
  }
}

// The matrices of the layers in another format, in `memory`.
void store_as(DType dtype, Model& model, std::deque<std::vector<std::byte>>& memory) {
  const auto store = [&](Matrix& m) {
    if (m.empty()) return;
    auto& bytes = memory.emplace_back(static_cast<size_t>(m.rows * bytes_for(dtype, m.cols)));
    const MutableMatrix to{dtype, m.rows, m.cols, bytes};
    std::vector<float> row(static_cast<size_t>(m.cols));
    for (i64 i = 0; i < m.rows; ++i) {
      read_row(m, i, row);
      if (is_quantised(dtype))
        quantize_row(dtype, row, {}, bytes.data() + i * bytes_for(dtype, m.cols));
      else
        for (i64 j = 0; j < m.cols; ++j) to.set(i, j, row[static_cast<size_t>(j)]);
    }
    m = to;
  };
  for (auto& [attention, mlp] : model.weights.layers)
    for (auto* linear : {&attention.q, &attention.k, &attention.v, &attention.o}) store(linear->weight);
  for (auto& [attention, mlp] : model.weights.layers)
    for (auto* linear : {&mlp.gate, &mlp.up, &mlp.down}) store(linear->weight);
}

// Skipping what is zero changes the order of sums and nothing else, over a thousand tokens, in each format whose
// columns are skipped; and it repeats bit for bit.
TEST(Session, SkippedZerosChangeNothing) {
  const int before = threads();
  set_threads(1);  // the products are too small to share
  Architecture relu = tiny_llama_like;
  relu.context = 1000, relu.hidden = 160, relu.layers = 2;
  for (const auto& [function, threshold, both] :
       std::vector<std::tuple<Function, float, bool>>{{Function::relu, 0.f, false},
                                                      {Function::fatrelu, 1.f, false},
                                                      {Function::relu, 0.f, true},
                                                      {Function::relu2, 0.f, false}})
    for (const auto& [gated, dtype] : std::vector<std::pair<bool, DType>>{{true, DType::f32},
                                                                          {false, DType::f32},
                                                                          {true, DType::bf16},
                                                                          {true, DType::q8_0},
                                                                          {false, DType::q4_0},
                                                                          {true, DType::q4_0}}) {
      if (dtype != DType::f32 && function != Function::relu) continue;
      relu.activation = function, relu.activation_threshold = threshold;
      relu.gated = gated, relu.activate_up = gated && both;
      TinyModel tiny = tiny_model(relu);
      std::deque<std::vector<std::byte>> memory;
      if (dtype != DType::f32) store_as(dtype, tiny.model, memory);
      const auto backend = make_backend("cpu");
      Session dense(tiny.model, *backend, {.cache = DType::f32, .skip_zeros = false});
      Session sparse(tiny.model, *backend, {.cache = DType::f32}), again(tiny.model, *backend, {.cache = DType::f32});
      double greatest = 0;
      for (const i32 id : random_ids(1000, tiny.model.config.vocab, 3)) {
        const In<float, 1> found = sparse.step(id), repeated = again.step(id);
        ASSERT_TRUE(std::equal(found.begin(), found.end(), repeated.begin()));
        const In<float, 1> expected = dense.step(id);
        greatest = std::max(greatest, greatest_difference(found, {expected.begin(), expected.end()}));
      }
      EXPECT_LT(greatest, f32_tolerance) << name_of(function) << (gated ? ", gated, " : ", ") << name_of(dtype);
      EXPECT_GT(greatest, 0) << "nothing was skipped";
    }
  set_threads(before);
}

// Neurons below a threshold: the masked dense pass over the whole sequence is the slow twin.
TEST(Session, TruncatedNeuronsAreThoseOfTheMaskedPass) {
  for (const auto measure : {Truncation::Measure::output, Truncation::Measure::gate})
    for (const Architecture& architecture : {tiny_llama_like, tiny_gpt_like}) {
      TinyModel tiny = tiny_model(architecture);
      const auto whole = whole_logits(tiny.model, random_ids(30, tiny.model.config.vocab, 4));
      tiny.model.config.truncation.assign(tiny.model.config.layers.size(),
                                          {.measure = measure, .threshold = 0.11f, .keep = 0});
      const auto ids = random_ids(30, tiny.model.config.vocab, 4);
      const auto expected = whole_logits(tiny.model, ids);
      const auto backend = make_backend("cpu");
      Session session(tiny.model, *backend, {.cache = DType::f32});
      double changed = 0;
      for (size_t i = 0; i < ids.size(); ++i) {
        const In<float, 1> found = session.step(ids[i]);
        EXPECT_LT(greatest_difference(found, expected[i]), f32_tolerance) << "step " << i;
        changed = std::max(changed, greatest_difference(found, whole[i]));
      }
      EXPECT_GT(changed, 1e-3) << "nothing was left out";
    }
}

// Small inputs of all projections are left out: token by token as in the masked dense pass over all of them, which
// knows no transposed weights, and bit for bit again. Alone, and beside neurons that are zero or below a threshold.
TEST(Session, SmallInputsAreThoseOfTheMaskedPass) {
  const int before = threads();
  set_threads(1);
  for (const auto& [function, truncation] :
       std::vector<std::pair<Function, float>>{{Function::silu, 0.f}, {Function::relu, 0.f}, {Function::silu, 0.1f}})
    for (Architecture architecture : {tiny_llama_like, tiny_gpt_like}) {
      architecture.context = 1000, architecture.activation = function;
      TinyModel tiny = tiny_model(architecture);
      const auto ids = random_ids(1000, tiny.model.config.vocab, 4);
      const size_t layers = tiny.model.config.layers.size();
      if (truncation > 0)
        tiny.model.config.truncation.assign(layers, {.measure = Truncation::Measure::output, .threshold = truncation});
      const auto whole = whole_logits(tiny.model, ids);
      tiny.model.config.inputs.dense_positions = 4;
      tiny.model.config.inputs.layers.assign(layers, {.qkv = 0.5f, .o = 0.1f, .up = 0.4f, .down = 0.05f});
      tiny.model.config.inputs.layers.back() = {};
      const auto expected = whole_logits(tiny.model, ids);
      const auto backend = make_backend("cpu");
      Session session(tiny.model, *backend, {.cache = DType::f32}), again(tiny.model, *backend, {.cache = DType::f32});
      double changed = 0, at_first = 0;
      for (size_t i = 0; i < ids.size(); ++i) {
        const In<float, 1> found = session.step(ids[i]), repeated = again.step(ids[i]);
        ASSERT_TRUE(std::equal(found.begin(), found.end(), repeated.begin()));
        ASSERT_LT(greatest_difference(found, expected[i]), f32_tolerance) << "step " << i;
        (i < 4 ? at_first : changed) = std::max(i < 4 ? at_first : changed, greatest_difference(found, whole[i]));
      }
      EXPECT_LT(at_first, f32_tolerance) << "the first positions are whole";
      EXPECT_GT(changed, 1e-3) << "nothing was left out";
    }
  set_threads(before);
}

// From which fraction of live inputs on a weight is read as a whole stands in the model: from 0 on decoding is the
// dense product bit for bit, from 1 on it is not, and what was measured lies between.
TEST(Session, CrossoversOfTheModelDecideHowWeightsAreRead) {
  for (const Function function : {Function::silu, Function::relu}) {
    Architecture architecture = tiny_llama_like;
    architecture.activation = function;
    TinyModel tiny = tiny_model(architecture);
    const auto ids = random_ids(40, tiny.model.config.vocab, 4);
    tiny.model.config.inputs.layers.assign(tiny.model.config.layers.size(),
                                           {.qkv = 0.5f, .o = 0.1f, .up = 0.4f, .down = 0.05f});
    const auto backend = make_backend("cpu");
    std::vector<Crossover> measured = Session(tiny.model, *backend).sparse().measure_input_crossovers(*backend);
    EXPECT_GE(measured.size(), 3u);
    Session masked(tiny.model, *backend, {.cache = DType::f32, .skip_zeros = false});
    std::vector<std::vector<float>> expected;
    for (const i32 id : ids) {
      const In<float, 1> logits = masked.step(id);
      expected.emplace_back(logits.begin(), logits.end());
    }
    for (const float fraction : {0.f, 1.f}) {
      for (Crossover& c : measured) {
        EXPECT_TRUE(c.fractions[0] >= 0 && c.fractions[0] <= 1 && c.fractions[1] >= 0 && c.fractions[1] <= 1);
        c.fractions = {fraction, fraction};
      }
      tiny.model.config.crossovers = measured;
      Session session(tiny.model, *backend, {.cache = DType::f32});
      double difference = 0;
      for (size_t i = 0; i < ids.size(); ++i)
        difference = std::max(difference, greatest_difference(session.step(ids[i]), expected[i]));
      if (fraction == 0)
        EXPECT_EQ(difference, 0);
      else
        EXPECT_TRUE(difference > 0 && difference < f32_tolerance) << difference;
    }
  }
}

// Parameter tokens that add little, and small inputs of their keys: as above, for each Theta and both measures.
TEST(Session, SparseTokensAreThoseOfTheMaskedPass) {
  const int before = threads();
  set_threads(1);
  for (const Theta theta : {Theta::l2_gelu, Theta::gelu_l2, Theta::softmax})
    for (const auto measure : {Truncation::Measure::output, Truncation::Measure::gate}) {
      Architecture architecture = tiny_llama_like;
      architecture.context = 200, architecture.attention_tokens = 40, architecture.mlp_tokens = 96;
      architecture.hidden = 0, architecture.gated = false, architecture.theta = theta;
      TinyModel tiny = tiny_model(architecture);
      const auto ids = random_ids(200, tiny.model.config.vocab, 4);
      const auto whole = whole_logits(tiny.model, ids);
      for (const NeuronSite site : neuron_sites(tiny.model.config))
        if (site.layer != 1)
          set_truncation(tiny.model.config, site,
                         {.measure = measure,
                          .threshold = measure == Truncation::Measure::output ? 0.2f : 0.5f,
                          .keep = site.place == SitePlace::v ? 11 : 0});
      tiny.model.config.inputs.layers.assign(3, {.qkv = 0.3f, .o = 0.05f, .up = 0.2f});
      const auto expected = whole_logits(tiny.model, ids);
      const auto backend = make_backend("cpu");
      Session session(tiny.model, *backend, {.cache = DType::f32}), again(tiny.model, *backend, {.cache = DType::f32});
      EXPECT_GT(session.sparse().bytes(), 0);
      double changed = 0;
      for (size_t i = 0; i < ids.size(); ++i) {
        const In<float, 1> found = session.step(ids[i]), repeated = again.step(ids[i]);
        ASSERT_TRUE(std::equal(found.begin(), found.end(), repeated.begin()));
        ASSERT_LT(greatest_difference(found, expected[i]), f32_tolerance) << "step " << i;
        changed = std::max(changed, greatest_difference(found, whole[i]));
      }
      EXPECT_GT(changed, 1e-3) << "nothing was left out";
    }
  set_threads(before);
}

// Blocks of keys that are not read, beside the pass that computes all scores: it chooses alike, but where rounding
// decides between two blocks, which is seen once in a few thousand choices.
TEST(Session, UnreadKeysAreThoseOfTheMaskedPass) {
  const int before = threads();
  set_threads(1);
  for (const auto& [dtype, tolerance] : std::vector<std::pair<DType, double>>{
           {DType::f32, f32_tolerance}, {DType::bf16, 5e-3}, {DType::q8_0, 5e-3}, {DType::q4_0, 5e-3}})
    for (const bool thresholds : {false, true}) {
      Architecture architecture = tiny_llama_like;
      architecture.context = 300, architecture.attention_tokens = 64, architecture.mlp_tokens = 160;
      architecture.hidden = 0, architecture.gated = false;
      TinyModel tiny = tiny_model(architecture);
      std::deque<std::vector<std::byte>> memory;
      if (dtype != DType::f32) store_as(dtype, tiny.model, memory);
      const auto ids = random_ids(300, tiny.model.config.vocab, 4);
      const auto whole = whole_logits(tiny.model, ids);
      for (const NeuronSite site : neuron_sites(tiny.model.config)) {
        ParameterTokens& tokens =
            *tokens_of(tiny.model.config.layers[static_cast<size_t>(site.layer)])[static_cast<size_t>(site.place)];
        if (site.layer != 1) tokens.blocks = {.size = site.place == SitePlace::k ? 7 : 16, .read = 2};
        if (thresholds && site.layer != 2)
          tokens.truncation = {.measure = Truncation::Measure::output, .threshold = 0.2f, .keep = 0};
      }
      if (thresholds) tiny.model.config.inputs.layers.assign(3, {.qkv = 0.3f, .o = 0.05f, .up = 0.2f});
      const auto expected = whole_logits(tiny.model, ids);
      const auto backend = make_backend("cpu");
      Session session(tiny.model, *backend, {.cache = DType::f32}), again(tiny.model, *backend, {.cache = DType::f32});
      Session dense(tiny.model, *backend, {.cache = DType::f32, .skip_zeros = false});
      EXPECT_GT(session.sparse().choosing_bytes(), dense.sparse().choosing_bytes());
      for (const i64 chunk : {3, 64}) {  // rows that are few, and many
        Session chunks(tiny.model, *backend, {.cache = DType::f32, .chunk = chunk});
        EXPECT_LT(greatest_difference(chunks.prefill(ids), expected.back()), tolerance) << name_of(dtype);
      }
      double changed = 0, greatest = 0;
      for (size_t i = 0; i < ids.size(); ++i) {
        const In<float, 1> found = session.step(ids[i]), repeated = again.step(ids[i]), slow = dense.step(ids[i]);
        ASSERT_TRUE(std::equal(found.begin(), found.end(), repeated.begin()));
        ASSERT_LT(greatest_difference(found, expected[i]), tolerance) << name_of(dtype) << ", step " << i;
        ASSERT_LT(greatest_difference(slow, expected[i]), f32_tolerance) << name_of(dtype) << ", step " << i;
        greatest = std::max(greatest, greatest_difference(found, expected[i]));
        changed = std::max(changed, greatest_difference(found, whole[i]));
      }
      EXPECT_GT(changed, 1e-2) << "nothing was left out";
      EXPECT_GT(greatest, 0) << "nothing was skipped";
    }
  set_threads(before);
}

}  // namespace
}  // namespace sparsam
