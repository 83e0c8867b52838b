#include "measure/classification.h"

#include <gmock/gmock.h>

#include "measure/masking.h"

namespace sparsam {
namespace {

using ::testing::ElementsAre;

// Closed forms: of 10 texts of three classes, one never predicted, and of a fourth class that does not occur.
TEST(ConfusionMatrix, AccuracyAndF1) {
  ConfusionMatrix matrix(4);
  const auto add = [&](i32 label, i32 predicted, int times) {
    for (int i = 0; i < times; ++i) matrix.add(label, predicted);
  };
  add(0, 0, 4), add(0, 1, 1), add(1, 1, 2), add(1, 0, 1), add(2, 0, 2);
  EXPECT_EQ(matrix.count(), 10);
  EXPECT_DOUBLE_EQ(matrix.accuracy(), 0.6);
  EXPECT_DOUBLE_EQ(matrix.f1(0), 2 * 4.0 / (5 + 7));
  EXPECT_DOUBLE_EQ(matrix.f1(1), 2 * 2.0 / (3 + 3));
  EXPECT_DOUBLE_EQ(matrix.f1(2), 0);
  EXPECT_DOUBLE_EQ(matrix.macro_f1(), (8.0 / 12 + 4.0 / 6 + 0) / 3);
}

TEST(ConfusionMatrix, TheFirstAmongEqualsIsPredicted) {
  const std::vector<float> logits{1, 3, 3, -1, -2, -3};
  EXPECT_THAT(most_probable({logits.data(), {2, 3}}), ElementsAre(1, 0));
}

// Samples of 1, 3 and 20 tokens: the number of the sample, repeated.
i64 repeated(i64 sample, std::span<i32> ids, std::span<i32> targets) {
  constexpr i64 lengths[] = {1, 3, 20};
  for (i64 t = 0; t < lengths[sample]; ++t) {
    ids[static_cast<size_t>(t)] = static_cast<i32>(sample + 1);
    if (targets.size() > 1) targets[static_cast<size_t>(t)] = t == 0 ? 7 : -1;
  }
  if (targets.size() == 1) targets[0] = static_cast<i32>(10 * sample);
  return lengths[sample];
}

TEST(Samples, ABatchIsPaddedToFewLengths) {
  const Batch two = read_batch(repeated, 0, 2, 64, false);
  EXPECT_EQ(two.tokens().length(), 16);
  EXPECT_THAT(two.lengths, ElementsAre(1, 3));
  EXPECT_EQ(two.real_tokens, 4);
  EXPECT_EQ(two.predictions, 2);
  EXPECT_EQ(two.ids[16], 2);
  EXPECT_EQ(two.ids[19], 0);
  EXPECT_EQ(two.targets[19], -1);
  EXPECT_EQ(read_batch(repeated, 1, 2, 64, true).tokens().length(), 32);
  EXPECT_THAT(read_batch(repeated, 1, 2, 64, true).targets, ElementsAre(10, 20));
  const Batch alone = read_batch(repeated, 2, 1, 20, true);  // no room for padding
  EXPECT_EQ(alone.tokens().length(), 20);
  EXPECT_TRUE(alone.lengths.empty());
}

TEST(Masking, EightyTenTen) {
  constexpr size_t vocab = 50, count = 200'000;
  Masking masking{49, std::vector<bool>(vocab, true), 0.15};
  masking.hideable[0] = masking.hideable[49] = false;
  std::vector<i32> ids(count), targets(count, 5);
  for (size_t i = 0; i < count; ++i) ids[i] = static_cast<i32>(i % 49);
  const std::vector<i32> before = ids;
  hide_tokens(masking, Random(3, 4), ids, targets);
  double chosen = 0, masked = 0, same = 0, possible = 0;
  for (size_t i = 0; i < count; ++i) {
    possible += before[i] != 0;
    if (targets[i] < 0) {
      ASSERT_EQ(ids[i], before[i]);
      continue;
    }
    ASSERT_EQ(targets[i], before[i]);
    ASSERT_NE(before[i], 0);  // not hideable
    ++chosen, masked += ids[i] == 49, same += ids[i] == before[i];
  }
  // Five standard deviations: sqrt(p (1 - p) / n). A replacement is any token, the mask and the same one too.
  EXPECT_NEAR(chosen / possible, 0.15, 0.004);
  EXPECT_NEAR(masked / chosen, 0.8 + 0.1 / vocab, 0.012);
  EXPECT_NEAR(same / chosen, 0.1 + 0.1 / vocab, 0.009);
  std::vector<i32> again = before, other = before;
  hide_tokens(masking, Random(3, 4), again, targets);
  hide_tokens(masking, Random(3, 5), other, targets);
  EXPECT_EQ(again, ids);
  EXPECT_NE(other, ids);
}

TEST(Masking, TheTokenizerGetsAMaskToken) {
  const std::vector<std::string_view> texts{"the hat and the cat and the bat"};
  const Tokenizer plain = train_tokenizer(texts, 262);
  EXPECT_FALSE(plain.mask_token());
  const Tokenizer masked = plain.with_mask_token();
  ASSERT_EQ(masked.mask_token(), static_cast<i32>(plain.vocab_size()));
  EXPECT_EQ(masked.vocab_size(), plain.vocab_size() + 1);
  EXPECT_EQ(masked.encode("the cat"), plain.encode("the cat"));
  EXPECT_THAT(masked.encode("<mask>"), ElementsAre(*masked.mask_token()));
  EXPECT_EQ(masked.with_mask_token().to_json(), masked.to_json());
  const Masking masking = masking_of(masked, 0.15, "it");
  EXPECT_FALSE(masking.hideable[static_cast<size_t>(*masked.mask_token())]);
  EXPECT_FALSE(masking.hideable[static_cast<size_t>(*masked.end_of_text())]);
  EXPECT_TRUE(masking.hideable[static_cast<size_t>(masked.encode("c")[0])]);
}

}  // namespace
}  // namespace sparsam
