#include "ops/choose_blocks.h"

#include <gmock/gmock.h>

#include "ops/cpu_test_support.h"

namespace sparsam {
namespace {

using ::testing::ElementsAre;

using ChooseBlocksTest = CpuTest;

TEST_F(ChooseBlocksTest, IsTheReferences) {
  for (const i64 tokens : ragged_sizes)
    for (const i64 size : {i64{1}, i64{4}, tokens})
      for (const i64 keep : {i64{1}, i64{3}, tokens}) {
        Operands a(4);
        const i64 rows = 5, blocks = (tokens + size - 1) / size;
        ChooseBlocks op{.y = a.filled(nan_f, rows, tokens), .c = a.normal(rows, blocks), .size = size, .keep = keep};
        const std::string what = fmt::format("{} blocks of {}, {} kept", blocks, size, keep);
        expect_right(op, what);
        op.h = a.normal(rows, tokens);
        expect_right(op, what + ", given h");
        op.y = a.normal(rows, tokens), op.h = op.y;
        expect_right(op, what + " in place");
      }
}

std::vector<float> choose(std::vector<float> c, i64 size, i64 keep, i64 tokens) {
  std::vector<float> y(static_cast<size_t>(tokens), 7.f);
  const auto run = [&](const char* backend) {
    make_backend(backend)->run(ChooseBlocks{
        .y = {y.data(), {1, tokens}}, .c = {c.data(), {1, static_cast<i64>(c.size())}}, .size = size, .keep = keep});
    return y;
  };
  EXPECT_EQ(run("cpu"), run("reference"));
  return y;
}

TEST(ChooseBlocks, TakesTheGreatestAndNotTheLongest) {
  EXPECT_THAT(choose({-9, 1, 2}, 2, 1, 5), ElementsAre(0, 0, 0, 0, 1));  // the last block has one
  EXPECT_THAT(choose({-9, 1, 2}, 2, 2, 6), ElementsAre(0, 0, 1, 1, 1, 1));
  EXPECT_THAT(choose({-9, 1, 2}, 1, 7, 3), ElementsAre(1, 1, 1));
}

TEST(ChooseBlocks, OfEqualOnesTheEarlierAndNaNFirst) {
  EXPECT_THAT(choose({1, 3, 3, 3}, 1, 2, 4), ElementsAre(0, 1, 1, 0));
  EXPECT_THAT(choose({1, 3, NAN, 2}, 1, 1, 4), ElementsAre(0, 0, 1, 0));
}

}  // namespace
}  // namespace sparsam
