// What decoding needs to leave blocks of keys unread: the norm of all scores, mean keys, the description.
#include "model/key_blocks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/test_support.h"
#include "model/transformer.h"
#include "ops/test_support.h"

namespace sparsam {
namespace {

using testing::HasSubstr;

struct Made {
  std::vector<Buffer> memory;
  KeyBlocks blocks;
};
Made made(const Matrix& keys, i64 size, bool few) {
  Made result;
  const auto backend = make_backend("cpu");
  const ParameterTokens tokens{.tokens = keys.rows, .tau = 1, .blocks = {.size = size, .read = 1}};
  result.blocks = key_blocks(tokens, keys, few, *backend, result.memory);
  return result;
}

// |K x| without K, of more keys than dimensions and of fewer.
TEST(KeyBlocks, TheRootGivesTheNormOfAllScores) {
  const auto backend = make_backend("cpu");
  const Config config;
  const RotaryTables rotary;
  // Eight deviations of what rounding numbers of such a format does to the length of a vector of d of them; the blocks
  // of q8_0 that hold the diagonal are coarse.
  for (const auto& [dtype, deviations] : std::vector<std::pair<DType, double>>{
           {DType::f32, 1e-5}, {DType::bf16, 1e-2}, {DType::f16, 1.3e-3}, {DType::q8_0, 4e-2}, {DType::q4_0, 4e-2}})
    for (const i64 d : {32, 64, 160, 100})
      for (const i64 tokens : {110, 160, 700}) {
        if (is_quantised(dtype) && d % 32 != 0) continue;
        SCOPED_TRACE(fmt::format("{} keys of {} in {}", tokens, d, name_of(dtype)));
        Operands a(static_cast<u64>(tokens + d));
        const Matrix keys = a.matrix(dtype, tokens, d);
        const auto x = a.normal(3, d);
        const Made key_blocks = made(keys, 16, true);
        Arena arena;
        const Execution e{*backend, arena, Compute::f32, config, rotary, {}, 1, 3, {}};
        ASSERT_FALSE(key_blocks.blocks.root.empty());
        const auto root = root_product(e, key_blocks.blocks, x);
        for (i64 n = 0; n < 3; ++n) {
          double all = 0, from_root = 0;
          for (i64 p = 0; p < tokens; ++p) {
            double score = 0;
            for (i64 i = 0; i < d; ++i) score += double{x(n, i)} * keys.at<double>(p, i);
            all += score * score;
          }
          for (const float value : root[n]) from_root += double{value} * value;
          EXPECT_NEAR(std::sqrt(from_root / all), 1, deviations / std::sqrt(static_cast<double>(d)));
        }
      }
}

TEST(KeyBlocks, MeansAreThoseOfTheBlocks) {
  Operands a(1);
  const Matrix keys = a.matrix(DType::f32, 11, 5);
  const Made few = made(keys, 4, false);
  ASSERT_EQ(few.blocks.means.rows, 3);
  EXPECT_TRUE(few.blocks.root.empty());
  for (i64 i = 0; i < 5; ++i) {
    EXPECT_NEAR(few.blocks.means.at(0, i), (keys.at(0, i) + keys.at(1, i) + keys.at(2, i) + keys.at(3, i)) / 4, 1e-6);
    EXPECT_NEAR(few.blocks.means.at(2, i), (keys.at(8, i) + keys.at(9, i) + keys.at(10, i)) / 3, 1e-6);
  }
  const MutableMatrix wrong = a.matrix(DType::bf16, 8, 4);
  wrong.set(3, 2, NAN);
  EXPECT_THAT(error_of([&] { made(wrong, 4, false); }), HasSubstr("not finite"));
}

// What is counted is what is stored.
TEST(KeyBlocks, BytesAreThoseThatAreRead) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::q8_0, DType::q4_0}) {
    Operands a(2);
    const TokenParams<Matrix> w{a.matrix(dtype, 640, 160), a.matrix(dtype, 96, 640)};
    ParameterTokens tokens{.tokens = 640, .tau = 1};
    const double all = static_cast<double>(w.keys.bytes.size() + w.values.bytes.size());
    EXPECT_EQ(token_bytes_read(tokens, w), all);
    tokens.blocks = {.size = 16, .read = 10};
    const auto added = [&](const Matrix& keys) { return static_cast<double>(made(keys, 16, true).blocks.bytes()); };
    EXPECT_NEAR(token_bytes_read(tokens, w), all / 4 + added(w.keys), 1e-6);
    // Keys that are no more than the root.
    const TokenParams<Matrix> few{a.matrix(dtype, 64, 160), a.matrix(dtype, 96, 64)};
    const double keys = static_cast<double>(few.keys.bytes.size()),
                 values = static_cast<double>(few.values.bytes.size());
    tokens.tokens = 64, tokens.blocks.read = 1;
    EXPECT_NEAR(token_bytes_read(tokens, few), keys + values / 4 + added(few.keys), 1e-6);
  }
}

TEST(KeyBlocks, DescriptionsAreReadAsWrittenAndWhatCannotBeIsRefused) {
  const Config whole = make_config(preset("tokenformer-nano"));
  Config config = whole;
  std::get<SoftmaxAttention>(config.layers[1].mixer).k.blocks = {.size = 7, .read = 11};
  std::get<ParameterTokens>(config.layers[2].mlp).blocks = {.size = 16, .read = 3};
  EXPECT_TRUE(config_from_json(to_json(config), "test") == config);
  EXPECT_TRUE(leaves_out(config));
  EXPECT_TRUE(without_thresholds(config) == whole);
  const auto refusal = [&](auto&& change) {
    Config wrong = config;
    change(std::get<SoftmaxAttention>(wrong.layers[1].mixer).k);
    return error_of([&] { validate(wrong, "test"); });
  };
  EXPECT_EQ(refusal([](auto&) {}), "no error");
  EXPECT_THAT(refusal([](auto& t) { t.blocks.read = 12; }), HasSubstr("blocks that are read is 12, expected 1 to 11"));
  EXPECT_THAT(refusal([](auto& t) { t.blocks.read = 0; }), HasSubstr("blocks that are read is 0"));
  EXPECT_THAT(refusal([](auto& t) { t.blocks.size = 73; }), HasSubstr("size of the blocks of parameter tokens is 73"));
  EXPECT_THAT(refusal([](auto& t) { t.blocks.size = 0; }), HasSubstr("size of the blocks of parameter tokens is 0"));
  EXPECT_THAT(refusal([](auto& t) { t.theta = Theta::softmax; }),
              HasSubstr("blocks of parameter tokens are of l2_gelu"));
  EXPECT_THAT(refusal([](auto& t) { t.old = 8, t.mask = 0.5f; }), HasSubstr("without a mask"));
}

}  // namespace
}  // namespace sparsam
