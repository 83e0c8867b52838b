#include "train/schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

namespace sparsam {
namespace {

TEST(Schedule, WarmsUpLinearlyToThePeak) {
  for (const ScheduleKind kind : {ScheduleKind::cosine, ScheduleKind::wsd, ScheduleKind::constant}) {
    const Schedule s{.kind = kind, .peak = 0.5, .final = 0.05, .warmup = 4, .decay = 10, .steps = 100};
    EXPECT_DOUBLE_EQ(s.learning_rate(1), 0.125);
    EXPECT_DOUBLE_EQ(s.learning_rate(3), 0.375);
    EXPECT_DOUBLE_EQ(s.learning_rate(4), 0.5);
  }
}

TEST(Schedule, CosineHasItsClosedForm) {
  const Schedule s{.kind = ScheduleKind::cosine, .peak = 1, .final = 0.1, .warmup = 20, .steps = 120};
  EXPECT_DOUBLE_EQ(s.learning_rate(70), 0.55);                                        // half way
  EXPECT_DOUBLE_EQ(s.learning_rate(45), 0.1 + 0.45 * (1 + std::numbers::sqrt2 / 2));  // a quarter
  EXPECT_DOUBLE_EQ(s.learning_rate(120), 0.1);
  for (i64 step = 21; step <= 120; ++step) EXPECT_LT(s.learning_rate(step), s.learning_rate(step - 1)) << step;
}

TEST(Schedule, WsdIsStableThenDecays) {
  const Schedule s{.kind = ScheduleKind::wsd, .peak = 1, .final = 0.2, .warmup = 10, .decay = 40, .steps = 100};
  for (i64 step = 10; step <= 60; ++step) EXPECT_DOUBLE_EQ(s.learning_rate(step), 1) << step;
  EXPECT_DOUBLE_EQ(s.learning_rate(80), 0.6);
  EXPECT_DOUBLE_EQ(s.learning_rate(100), 0.2);
}

TEST(Schedule, ConstantStays) {
  const Schedule s{.kind = ScheduleKind::constant, .peak = 0.3, .final = 0, .warmup = 0, .steps = 9};
  for (i64 step = 1; step <= 9; ++step) EXPECT_DOUBLE_EQ(s.learning_rate(step), 0.3);
}

TEST(Schedule, DegenerateLengthsAreFinite) {
  for (const ScheduleKind kind : {ScheduleKind::cosine, ScheduleKind::wsd, ScheduleKind::constant})
    for (const i64 steps : {1, 2, 3})
      for (const i64 warmup : {0, 1, 5})
        for (const i64 decay : {0, 1, 7}) {
          const Schedule s{kind, 1, 0.1, warmup, decay, steps};
          for (i64 step = 1; step <= steps; ++step) {
            EXPECT_GT(s.learning_rate(step), 0);
            EXPECT_LE(s.learning_rate(step), 1);
          }
        }
}

}  // namespace
}  // namespace sparsam
