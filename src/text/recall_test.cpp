#include "text/recall.h"

#include <gmock/gmock.h>

#include <map>
#include <set>

namespace sparsam {
namespace {

using Sequence = std::pair<std::vector<i32>, std::vector<i32>>;

Sequence drawn(u64 seed, i64 sample, i64 pairs, i64 T) {
  std::vector<i32> ids(static_cast<size_t>(T), 77), targets(static_cast<size_t>(T), 77);
  draw_recall(seed, sample, pairs, ids, targets);
  return {ids, targets};
}

TEST(Recall, EachKeyIsAskedForOnceAndHasOneAnswer) {
  for (const auto& [pairs, T] : std::vector<std::pair<i64, i64>>{{1, 4}, {4, 16}, {16, 256}, {64, 256}, {127, 509}})
    for (i64 sample = 0; sample < 20; ++sample) {
      const auto [ids, targets] = drawn(5, sample, pairs, T);
      std::map<i32, i32> value_of;
      for (i64 p = 0; p < pairs; ++p) {
        const i32 key = ids[static_cast<size_t>(2 * p)], value = ids[static_cast<size_t>(2 * p + 1)];
        EXPECT_TRUE(key >= 1 && key <= recall_keys) << key;
        EXPECT_TRUE(value > recall_keys && value < recall_vocab) << value;
        EXPECT_TRUE(value_of.emplace(key, value).second) << "key " << key << " twice";
        EXPECT_EQ(targets[static_cast<size_t>(2 * p)], -1);
      }
      std::set<i32> asked;
      for (size_t t = static_cast<size_t>(2 * pairs); t < ids.size(); ++t) {
        if (targets[t] < 0) continue;
        EXPECT_EQ(targets[t], value_of.at(ids[t]));
        EXPECT_EQ(targets[t], ids[t + 1]);  // the answer stands there
        EXPECT_TRUE(asked.insert(ids[t]).second);
      }
      EXPECT_EQ(asked.size(), value_of.size());
    }
}

TEST(Recall, SeedAndNumberDecideTheSequence) {
  EXPECT_EQ(drawn(1, 2, 8, 64), drawn(1, 2, 8, 64));
  EXPECT_NE(drawn(1, 2, 8, 64), drawn(1, 3, 8, 64));
  EXPECT_NE(drawn(1, 2, 8, 64), drawn(2, 2, 8, 64));
}

TEST(Recall, MixesPowersOfTwo) {
  EXPECT_THAT(recall_mixture(64), ::testing::ElementsAre(4, 8, 16, 32, 64));
  EXPECT_THAT(recall_mixture(20), ::testing::ElementsAre(4, 8, 16, 20));
  EXPECT_THAT(recall_mixture(4), ::testing::ElementsAre(4));
}

}  // namespace
}  // namespace sparsam
