#include "ops/truncate.h"

#include <gmock/gmock.h>

#include "ops/cpu_test_support.h"

namespace sparsam {
namespace {

using ::testing::ElementsAre;

using TruncateTest = CpuTest;

TEST_F(TruncateTest, IsTheReferences) {
  for (const i64 F : ragged_sizes)
    for (const i64 keep : {i64{0}, i64{1}, F / 2, F}) {
      Operands a(4);
      const auto h = a.normal(5, F);
      const Truncate op{.y = a.filled(nan_f, 5, F),
                        .active = a.filled(nan_f, 5),
                        .h = h,
                        .s = keep % 2 ? h : a.normal(5, F),
                        .w = F % 2 ? a.normal(F) : View<float, 1>(),
                        .threshold = 0.3f,
                        .keep = keep};
      expect_right(op, fmt::format("{} of {}", keep, F));
    }
}

struct Result {
  std::vector<float> y, active;
};
Result truncate(std::vector<float> h, std::vector<float> w, float threshold, i64 keep, i64 rows = 1) {
  const i64 F = static_cast<i64>(h.size()) / rows;
  Result r{std::vector<float>(h.size(), 7.f), std::vector<float>(static_cast<size_t>(rows), 7.f)};
  make_backend("reference")
      ->run(Truncate{.y = {r.y.data(), {rows, F}},
                     .active = {r.active.data(), {rows}},
                     .h = {h.data(), {rows, F}},
                     .s = {h.data(), {rows, F}},
                     .w = w.empty() ? In<float, 1>{} : In<float, 1>{w.data(), {F}},
                     .threshold = threshold,
                     .keep = keep});
  return r;
}

TEST(Truncate, ComparesTheNormOfTheNeuronsOutput) {
  const Result r = truncate({1, -2, 3, -0.5f, 0}, {4, 0.5f, 1, 2, 9}, 2, 0);
  EXPECT_THAT(r.y, ElementsAre(1, 0, 3, 0, 0));  // norms 4, 1, 3, 1, 0
  EXPECT_THAT(r.active, ElementsAre(2));
}

TEST(Truncate, AThresholdThatIsReachedPasses) {
  EXPECT_THAT(truncate({2, -2, 1.999f}, {}, 2, 0).y, ElementsAre(2, -2, 0));
  EXPECT_THAT(truncate({0, 1}, {}, 0, 0).active, ElementsAre(2));  // zeros reach a threshold of zero
}

TEST(Truncate, KeepsTheGreatestOfEachRow) {
  const Result r = truncate({1, -5, 3, 4, 2, 2, 9, 2}, {}, 0, 2, 2);
  EXPECT_THAT(r.y, ElementsAre(0, -5, 0, 4, 2, 2, 9, 2));  // the second row's last place is shared
  EXPECT_THAT(r.active, ElementsAre(2, 4));
}

TEST(Truncate, LetsNaNPass) {
  const Result r = truncate({NAN, 1}, {}, 2, 0);
  EXPECT_TRUE(std::isnan(r.y[0]));
  EXPECT_EQ(r.active[0], 1);
}

}  // namespace
}  // namespace sparsam
