#include "levers/quantise.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <sstream>

#include "base/test_support.h"
#include "infer/session.h"
#include "infer/test_support.h"

namespace sparsam {
namespace {

using testing::HasSubstr;

constexpr Architecture wide{
    .vocab = 300, .context = 64, .layers = 2, .dim = 256, .heads = 4, .kv_heads = 2, .hidden = 256, .tied = false};

Config config_of(i64 layers, bool tied = false) {
  Architecture a = wide;
  a.layers = layers, a.tied = tied;
  return make_config(a);
}

std::vector<float> logits_of(const Model& model, const std::vector<i32>& ids) {
  const auto backend = make_backend("cpu");
  Session session(model, *backend, {.cache = DType::f32});
  const auto logits = session.prefill(ids);
  return {logits.begin(), logits.end()};
}
// |a - b| / |b|
double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double off = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) off += std::pow(double{a[i]} - b[i], 2), size += double{b[i]} * b[i];
  return std::sqrt(off / size);
}

const auto ids = random_ids(40, 300, 11);

// llama.cpp describes Q4_K_M as Q6_K for half of the attention.wv and feed_forward.w2 tensors, else Q4_K.
TEST(Recipes, SpendMoreBitsWhereLlamaCppDoes) {
  const Config config = config_of(32);
  std::map<DType, int> values, downs;
  for (int i = 0; i < 32; ++i) {
    const std::string at = fmt::format("model.layers.{}.", i);
    ++values[recipe_type("q4_k_m", at + "self_attn.v_proj.weight", config, false)];
    ++downs[recipe_type("q4_k_m", at + "mlp.down_proj.weight", config, false)];
    EXPECT_EQ(recipe_type("q4_k_m", at + "self_attn.q_proj.weight", config, false), DType::q4_k);
  }
  const std::map<DType, int> halves{{DType::q4_k, 16}, {DType::q6_k, 16}};
  EXPECT_EQ(values, halves);
  EXPECT_EQ(downs, halves);
  const auto type = [&](std::string_view recipe, std::string_view name, bool tied = false) {
    return recipe_type(recipe, name, config_of(32, tied), false);
  };
  EXPECT_EQ(type("q4_k_m", "lm_head.weight"), DType::q6_k);
  EXPECT_EQ(type("q4_k_m", "model.embed_tokens.weight"), DType::q4_k);
  EXPECT_EQ(type("q4_k_m", "model.embed_tokens.weight", true), DType::q6_k);
  EXPECT_EQ(type("q8_0", "lm_head.weight"), DType::q8_0);
  EXPECT_EQ(type("Q4_0", "lm_head.weight"), DType::q6_k);
  EXPECT_EQ(type("q4_k_s", "model.layers.3.self_attn.v_proj.weight"), DType::q5_k);
  EXPECT_EQ(type("q4_k_s", "model.layers.4.self_attn.v_proj.weight"), DType::q4_k);
  EXPECT_EQ(type("f16", "lm_head.weight"), DType::f16);
  EXPECT_EQ(recipe_type("q4_0", "model.layers.0.mlp.down_proj.weight", config, true), DType::q4_1);
  EXPECT_THAT(error_of([] { check_recipe("q4_k_l"); }),
              HasSubstr("unknown quantisation 'q4_k_l'; did you mean q4_k_m"));
}

// tests/data/golden/quant/mixtures.txt: the formats that llama-quantize (llama.cpp v0.5.0) gave the matrices of random
// Llama models of 17 layers and 256 channels, as GGUF files, in the order of the parameters.
TEST(Recipes, AreThoseOfLlamaQuantize) {
  std::istringstream lines(read_text(SPARSAM_TEST_DATA "/golden/quant/mixtures.txt"));
  int models = 0;
  for (std::string line; std::getline(lines, line); ++models) {
    std::istringstream words(line);
    std::string recipe, head, format;
    words >> recipe >> head;
    const bool tied = head == "tied";
    const Config config = make_config({.vocab = 96,
                                       .context = 64,
                                       .layers = 17,
                                       .dim = 256,
                                       .heads = 8,
                                       .kv_heads = tied ? 2 : 8,
                                       .hidden = 512,
                                       .tied = tied});
    for_each_parameter(parameter_specs(config), [&](const std::string& name, const ParameterSpec& spec) {
      if (spec.is_vector) return;
      words >> format;
      EXPECT_EQ(name_of(recipe_type(recipe, name, config, false)), format) << recipe << " " << head << " " << name;
    });
    EXPECT_FALSE(words >> format);
  }
  EXPECT_EQ(models, 28);
}

// A dropped half does not count: the choice goes by the halves that are there.
TEST(Recipes, CountTheLayersThatHaveTheMatrix) {
  Config config = config_of(32);
  config.layers[1].mixer = std::monostate{};
  EXPECT_EQ(recipe_type("q4_k_s", "model.layers.4.self_attn.v_proj.weight", config, false), DType::q5_k);
  EXPECT_EQ(recipe_type("q4_k_s", "model.layers.5.self_attn.v_proj.weight", config, false), DType::q4_k);
}

TEST(Quantise, MoreBitsLeaveLessError) {
  const TinyModel tiny = tiny_model(wide);
  const std::vector<float> exact = logits_of(tiny.model, ids);
  EXPECT_EQ(logits_of(quantise(tiny.model, "f32").model, ids), exact);
  double before = 0;
  for (const auto& [recipe, least, most] : std::vector<std::tuple<std::string, double, double>>{{"f16", 1e-5, 1e-3},
                                                                                                {"q8_0", 1e-3, 2e-2},
                                                                                                {"q6_k", 5e-3, 6e-2},
                                                                                                {"q5_k_m", 1e-2, 0.1},
                                                                                                {"q4_k_m", 2e-2, 0.2},
                                                                                                {"q4_0", 4e-2, 0.3},
                                                                                                {"q2_k", 0.1, 0.8}}) {
    const Quantised quantised = quantise(tiny.model, recipe);
    const double off = distance(logits_of(quantised.model, ids), exact);
    EXPECT_GT(off, std::max(least, before)) << recipe;
    EXPECT_LT(off, most) << recipe;
    before = off;
    i64 bytes = 0;
    for (const QuantisedMatrix& m : quantised.matrices) {
      bytes += m.bytes;
      EXPECT_GT(m.relative, 0) << m.name;
      EXPECT_LT(m.relative, 0.3) << m.name;
      EXPECT_EQ(m.weighted, m.relative) << m.name;
    }
    EXPECT_EQ(quantised.matrices.size(), 2u + 2u * 7u);
    EXPECT_LT(bytes, weight_bytes(quantised.model));  // that plus the vectors
  }
}

TEST(Quantise, SaysWhereBlocksDoNotFit) {
  const Quantised quantised = quantise(tiny_model().model, "q4_k_m");  // 32 channels, 48 hidden: not whole blocks
  for (const QuantisedMatrix& m : quantised.matrices) {
    const bool down = m.name.ends_with("down_proj.weight"), tied = m.name == "model.embed_tokens.weight";
    EXPECT_EQ(m.to, down ? DType::f16 : tied || m.wanted == DType::q6_k ? DType::q8_0 : DType::q5_0) << m.name;
  }
  const std::string table = error_table(quantised.matrices);
  EXPECT_THAT(table, HasSubstr("f32 -> q5_0"));
  EXPECT_THAT(table, HasSubstr("not q4_k: its blocks of 256 do not divide 32"));
  EXPECT_TRUE(std::isfinite(logits_of(quantised.model, ids)[0]));
}

TEST(Quantise, KeepsWhatHasItsFormat) {
  const Quantised once = quantise(tiny_model(wide).model, "q8_0"), twice = quantise(once.model, "q8_0");
  EXPECT_EQ(twice.model.weights.layers[1].mlp.up.weight.bytes.data(),
            once.model.weights.layers[1].mlp.up.weight.bytes.data());
  const Quantised wider = quantise(once.model, "f32");
  EXPECT_EQ(logits_of(wider.model, ids).size(), 300u);
  EXPECT_LT(distance(logits_of(wider.model, ids), logits_of(once.model, ids)), 1e-5);
}

TEST(Quantise, RefusesWhatAFormatCannotHold) {
  const TinyModel tiny = tiny_model(wide);
  float& weight = tiny.flat->views.layers[1].attention.k.weight(3, 7);
  weight = 1e6f;
  EXPECT_THAT(error_of([&] { quantise(tiny.model, "f16"); }),
              HasSubstr("model.layers.1.self_attn.k_proj.weight: 1000000 at (3, 7) is no number that f16 can hold"));
  weight = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(error_of([&] { quantise(tiny.model, "q4_k_m"); }), HasSubstr("nan at (3, 7)"));
}

// The first projections read the normed embeddings, the head the hidden states: both are made here without a model.
TEST(Importance, IsTheMeanSquareOfTheInputs) {
  const TinyModel tiny = tiny_model();
  const auto backend = make_backend("cpu");
  const Importance importance = measure_importance(tiny.model, *backend, ids, {.context = 16});
  EXPECT_EQ(importance.tokens, 40);
  const Config& config = tiny.model.config;
  std::vector<double> expected(static_cast<size_t>(config.dim));
  const In<float, 2> table = as_view(tiny.model.weights.token_embedding);
  const In<float, 1> gain = as_vector(tiny.model.weights.layers[0].attention.norm.gain);
  for (const i32 id : ids) {
    double square = 0;
    for (const float value : table[id]) square += double{value} * value;
    const double r = 1 / std::sqrt(square / static_cast<double>(config.dim) + config.norm.eps);
    for (i64 c = 0; c < config.dim; ++c)
      expected[static_cast<size_t>(c)] += std::pow(table(id, c) * r * gain[c], 2) / static_cast<double>(ids.size());
  }
  const auto& attention = importance.of.layers[0].attention;
  ASSERT_EQ(attention.q.weight.size(), expected.size());
  for (size_t c = 0; c < expected.size(); ++c) EXPECT_NEAR(attention.q.weight[c], expected[c], 1e-5 * expected[c]);
  EXPECT_EQ(attention.v.weight, attention.q.weight);
  EXPECT_NE(importance.of.layers[1].attention.q.weight, attention.q.weight);
  EXPECT_EQ(importance.of.layers[2].mlp.down.weight.size(), 48u);
  EXPECT_EQ(importance.of.token_embedding.size(), 32u);  // tied: the head's
  EXPECT_TRUE(attention.norm.gain.empty());
  EXPECT_THAT(error_of([&] { measure_importance(tiny.model, *backend, {}); }), HasSubstr("no tokens"));
}

// Columns whose inputs are large are kept more exactly, and so are the products: here of the first queries, whose
// inputs are made without a model.
TEST(Importance, MovesErrorsToWhereInputsAreSmall) {
  const TinyModel tiny = tiny_model(wide);
  Random random(5);
  const auto gain = tiny.flat->views.layers[0].attention.norm.gain;
  for (float& g : gain.span()) g = static_cast<float>(std::exp(random.normal()));
  const auto backend = make_backend("cpu");
  const Importance importance = measure_importance(tiny.model, *backend, random_ids(512, 300, 3));
  const auto product_error = [&](const Model& model) {
    const Matrix exact = tiny.model.weights.layers[0].attention.q.weight,
                 rounded = model.weights.layers[0].attention.q.weight;
    double sum = 0;
    for (const i32 id : ids) {
      const In<float, 1> x = as_view(tiny.model.weights.token_embedding)[id];
      double size = 0;
      for (const float value : x) size += double{value} * value;
      for (i64 o = 0; o < exact.rows; ++o) {
        double off = 0;
        for (i64 c = 0; c < exact.cols; ++c) off += (double{exact.at(o, c)} - rounded.at(o, c)) * x[c] * gain.data()[c];
        sum += off * off / size;
      }
    }
    return sum;
  };
  for (const std::string recipe : {"q4_0", "q4_k_m", "q5_0", "q8_0"}) {
    const Quantised plain = quantise(tiny.model, recipe), weighted = quantise(tiny.model, recipe, &importance);
    EXPECT_LT(product_error(weighted.model), 0.8 * product_error(plain.model)) << recipe;
    for (const QuantisedMatrix& m : weighted.matrices)
      if (m.name == "model.layers.0.self_attn.q_proj.weight") {
        EXPECT_LT(m.weighted, m.relative) << recipe;
      }
  }
}

}  // namespace
}  // namespace sparsam
