#include "train/l1_schedule.h"

#include <gmock/gmock.h>

#include <cmath>

#include "base/error.h"

namespace sparsam {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

L1Schedule resolved(std::string_view text, i64 steps) {
  L1Schedule schedule(text);
  schedule.resolve(steps);
  return schedule;
}

TEST(L1Schedule, AConstant) {
  const L1Schedule schedule = resolved("1e-2", 100);
  for (const i64 step : {1, 50, 100, 1000}) EXPECT_EQ(schedule.weight(step), 0.01);
}

// ProSparse's schedule of its 7B model.
TEST(L1Schedule, StagesEndAtTheirWeights) {
  const L1Schedule schedule = resolved("0@5000,5e-3@6000,5e-2@10000,5e-2@12000,2e-1@16000,2e-1@16500", 20000);
  for (const auto& [step, weight] : std::vector<std::pair<i64, double>>{{1, 0},
                                                                        {5000, 0},
                                                                        {6000, 5e-3},
                                                                        {10000, 5e-2},
                                                                        {11000, 5e-2},
                                                                        {12000, 5e-2},
                                                                        {16000, 0.2},
                                                                        {16500, 0.2},
                                                                        {20000, 0.2}})
    EXPECT_DOUBLE_EQ(schedule.weight(step), weight) << step;
  // Half way the sine is at its middle; a quarter of the way (1 - 1 / sqrt 2) / 2 is done.
  EXPECT_DOUBLE_EQ(schedule.weight(5500), 2.5e-3);
  EXPECT_DOUBLE_EQ(schedule.weight(13000), 5e-2 + 0.15 * (1 - std::sqrt(0.5)) / 2);
  for (i64 step = 1; step < 20000; ++step) EXPECT_LE(schedule.weight(step), schedule.weight(step + 1));
}

TEST(L1Schedule, PercentOfTheRun) {
  const L1Schedule percent = resolved("0@10%,1@50%,3@100%", 400), steps = resolved("0@40,1@200,3@400", 400);
  for (i64 step = 1; step <= 400; ++step) EXPECT_DOUBLE_EQ(percent.weight(step), steps.weight(step)) << step;
}

TEST(L1Schedule, QuotesWhatIsWrong) {
  const auto refused = [](const char* text, const char* why) {
    EXPECT_THAT([&] { resolved(text, 100); }, ThrowsMessage<Error>(HasSubstr(why))) << text;
  };
  refused("", "--l1: '' in '', expected a number of 0");
  refused("much", "'much' in 'much'");
  refused("-1", "'-1'");
  refused("nan", "'nan'");
  refused("1e-2,2e-2", "'1e-2' does not say where the stage ends");
  refused("1e-2@5,2e-2", "'2e-2' does not say where the stage ends");
  refused("1e-2@5,", "'' in ''");
  refused("1e-2@", "'' in '1e-2@'");
  refused("1e-2@5x", "'5x' in '1e-2@5x'");
  refused("1e-2@120%", "'120' in '1e-2@120%', expected a number of 0 to 100");
  refused("0@50,1@50", "stage 2 ends at step 50, the one before it at 50");
  refused("0@50%,1@30", "stage 2 ends at step 30, the one before it at 50");
}

}  // namespace
}  // namespace sparsam
