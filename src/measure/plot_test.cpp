#include "measure/plot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace sparsam {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(Plot, PutsTheEndsOfALineAtTheEndsOfTheAxes) {
  const std::string text =
      svg({.title = "a < b", .x_label = "x", .y_label = "y", .series = {{"one", {{1, 0}, {3, 10}}}}});
  EXPECT_THAT(text, HasSubstr("points=\"70.0,369.3 550.0,55.7 \""));  // 5 % of the height stays free on both sides
  EXPECT_THAT(text, HasSubstr("a &lt; b"));
}

TEST(Plot, PutsPowersOfTenAtEqualDistances) {
  const std::string text = svg({.title = "",
                                .x_label = "",
                                .y_label = "",
                                .series = {{"p", {{1, 0}, {10, 1}, {100, 2}}, false}},
                                .log_x = true});
  EXPECT_THAT(text, HasSubstr("<circle cx=\"310.0\""));
}

TEST(Plot, DrawsMarksAndBandInTheColourOfTheLine) {
  const std::string text =
      svg({.title = "",
           .x_label = "",
           .y_label = "",
           .series = {{.name = "fit", .points = {{1, 1}, {2, 2}}, .marks = {{1, 1}}, .band = {{1, 0, 2}, {2, 1, 3}}}}});
  EXPECT_THAT(text, HasSubstr("<circle cx=\"70.0\" cy=\"264.8\" r=\"3.5\" fill=\"#0072b2\"/>"));
  EXPECT_THAT(text, HasSubstr("<polygon points=\"70.0,369.3 550.0,264.8 550.0,55.7 70.0,160.2 \" fill=\"#0072b2\""));
}

TEST(Plot, LeavesOutWhatIsNotANumber) {
  const std::string text =
      svg({.title = "", .x_label = "", .y_label = "", .series = {{"p", {{1, NAN}, {2, 1}, {0, INFINITY}}}}});
  EXPECT_THAT(text, Not(HasSubstr("nan")));
  EXPECT_THAT(text, Not(HasSubstr("inf")));
}

}  // namespace
}  // namespace sparsam
