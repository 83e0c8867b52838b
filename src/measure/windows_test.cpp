#include "measure/windows.h"

#include <gtest/gtest.h>

#include <numeric>

namespace sparsam {
namespace {

TokenText text_of(i64 tokens, std::optional<i32> beginning = {}) {
  TokenText text{{}, beginning, "text"};
  text.tokens.resize(static_cast<size_t>(tokens));
  std::iota(text.tokens.begin(), text.tokens.end(), 0);
  return text;
}

// How often each token is scored.
std::vector<int> scored(const WindowedText& text) {
  std::vector<int> times(text.tokens.size());
  for (const Window& w : text.windows)
    for (i64 i = w.first_scored; i < w.length; ++i) ++times[static_cast<size_t>(w.begin + i)];
  return times;
}

TEST(Stride, ScoresEveryTokenButTheFirstExactlyOnce) {
  for (const i64 count : {2, 7, 8, 9, 15, 16, 17, 40})
    for (const i64 stride : {1, 3, 4, 7}) {
      const auto text = cut(text_of(count), {.protocol = Protocol::stride, .context = 8, .stride = stride});
      std::vector<int> once(static_cast<size_t>(count), 1);
      once[0] = 0;
      EXPECT_EQ(scored(text), once) << count << " tokens, stride " << stride;
      for (const Window& w : text.windows) {
        EXPECT_LE(w.begin + w.length, count);
        EXPECT_LE(w.length, 8);
        EXPECT_TRUE(w.begin == 0 || w.first_scored >= 8 - stride);  // context before each scored token
      }
    }
}

TEST(Stride, WindowsAreThoseOfHuggingFacesGuide) {
  // for begin in range(0, 10, 2): end = min(begin + 4, 10); target = end - previous end
  const auto text = cut(text_of(10), {.protocol = Protocol::stride, .context = 4, .stride = 2});
  ASSERT_EQ(text.windows.size(), 4u);
  const i64 expected[][3] = {{0, 4, 1}, {2, 4, 2}, {4, 4, 2}, {6, 4, 2}};  // begin, length, first scored
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(text.windows[i].begin, expected[i][0]);
    EXPECT_EQ(text.windows[i].length, expected[i][1]);
    EXPECT_EQ(text.windows[i].first_scored, expected[i][2]);
  }
}

TEST(Stride, TheBeginningTokenIsContextOnly) {
  const auto text = cut(text_of(5, 99), {.protocol = Protocol::stride, .context = 8, .stride = 4});
  EXPECT_EQ(text.tokens, (std::vector<i32>{99, 0, 1, 2, 3, 4}));
  EXPECT_EQ(scored(text), (std::vector<int>{0, 1, 1, 1, 1, 1}));
  EXPECT_FALSE(text.restart);
}

TEST(LlamaCpp, ScoresTheSecondHalfOfWholeWindows) {
  const auto text = cut(text_of(21), {.protocol = Protocol::llama_cpp, .context = 8, .stride = 4});
  // Logits at places 4, 5, 6 of each window predict 5, 6, 7; the last five tokens fill no window.
  EXPECT_EQ(scored(text), (std::vector<int>{0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0}));
  EXPECT_FALSE(text.restart);
  EXPECT_TRUE(cut(text_of(21, 99), {.protocol = Protocol::llama_cpp, .context = 8, .stride = 4}).restart);
}

TEST(Windows, RefuseTextsThatAreTooShort) {
  EXPECT_THROW(cut(text_of(7), {.protocol = Protocol::llama_cpp, .context = 8}), Error);
  EXPECT_THROW(cut(text_of(1), {.protocol = Protocol::stride, .context = 8, .stride = 4}), Error);
  EXPECT_THROW(cut(text_of(0, 99), {.protocol = Protocol::stride, .context = 8, .stride = 4}), Error);
}

TEST(WindowOptions, AreCheckedAgainstTheModel) {
  Config config;
  config.vocab = 10, config.dim = 4, config.context = 64;
  EXPECT_EQ(resolve({}, config).context, 64);
  EXPECT_EQ(resolve({}, config).stride, 32);
  EXPECT_EQ(resolve({.context = 100}, config).context, 100);  // rotary positions go on
  EXPECT_THROW(resolve({.context = 8, .stride = 8}, config), Error);
  EXPECT_THROW(resolve({.context = 1}, config), Error);
  config.positions = Positions::learned;
  EXPECT_THROW(resolve({.context = 100}, config), Error);
  EXPECT_THROW(protocol_from_name("lama.cpp"), Error);
  EXPECT_EQ(protocol_from_name("llama.cpp"), Protocol::llama_cpp);
}

TEST(Windows, FindTheTextThatStandsInAnother) {
  std::vector<i32> a(400), b(400);
  for (i32 i = 0; i < 400; ++i) a[static_cast<size_t>(i)] = i % 97, b[static_cast<size_t>(i)] = 200 + i % 89;
  EXPECT_EQ(overlap(a, a), 1);
  EXPECT_EQ(overlap(b, a), 0);
  std::copy(a.begin(), a.begin() + 131, b.begin() + 7);  // 100 runs of 32
  EXPECT_DOUBLE_EQ(overlap(b, a), 100 / 369.0);
  EXPECT_EQ(overlap({}, a), 0);
}

}  // namespace
}  // namespace sparsam
