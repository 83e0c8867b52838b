#include "infer/text_stream.h"

#include <gtest/gtest.h>

namespace sparsam {
namespace {

// Everything that comes out when `text` goes in, `step` bytes at a time; each piece must be whole characters.
std::string stream(std::string_view text, size_t step, std::vector<std::string> stops, bool* stopped = nullptr) {
  TextStream stream(std::move(stops));
  std::string out;
  for (size_t i = 0; i < text.size(); i += step) {
    const std::string piece = stream.feed(text.substr(i, step));
    EXPECT_EQ(whole_characters(piece), piece.size());
    out += piece;
  }
  if (!stream.stopped()) out += stream.finish();
  if (stopped) *stopped = stream.stopped();
  return out;
}

TEST(TextStream, PassesTextUnchangedWhereverTokensEnd) {
  const std::string text = "a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80z";  // 1, 2, 3 and 4 bytes
  for (size_t step = 1; step <= text.size(); ++step) EXPECT_EQ(stream(text, step, {}), text) << step;
}

TEST(TextStream, HoldsUnfinishedCharacters) {
  TextStream s({});
  EXPECT_EQ(s.feed("a\xe2"), "a");
  EXPECT_EQ(s.feed("\x82"), "");
  EXPECT_EQ(s.feed("\xac!"), "\xe2\x82\xac!");
}

TEST(TextStream, ReplacesIllFormedBytes) {
  EXPECT_EQ(stream("a\xff"
                   "b",
                   1, {}),
            "a\xef\xbf\xbd"
            "b");
  EXPECT_EQ(stream("a\xe2\x82", 1, {}), "a\xef\xbf\xbd");             // the text ends inside a character
  EXPECT_EQ(to_well_formed("\xe2\x82z"), "\xef\xbf\xbdz");            // one maximal subpart
  EXPECT_EQ(to_well_formed("\xc0\xaf").size(), 6u);                   // overlong: two
  EXPECT_EQ(to_well_formed("\xed\xa0\x80").size(), 9u);               // a surrogate: three
  EXPECT_EQ(to_well_formed("\xf4\x90\x80\x80").size(), 12u);          // above U+10FFFF: four
  EXPECT_EQ(to_well_formed("\xf4\x8f\xbf\xbf"), "\xf4\x8f\xbf\xbf");  // U+10FFFF
}

TEST(TextStream, StopsAcrossTokenBorders) {
  for (size_t step = 1; step < 12; ++step) {
    bool stopped = false;
    EXPECT_EQ(stream("one two END three", step, {"END"}, &stopped), "one two ") << step;
    EXPECT_TRUE(stopped);
  }
}

TEST(TextStream, GivesBackWhatOnlyBeganLikeAStop) {
  for (size_t step = 1; step < 6; ++step) {
    bool stopped = true;
    EXPECT_EQ(stream("a\n\nb\nc\n", step, {"\n\n\n"}, &stopped), "a\n\nb\nc\n") << step;
    EXPECT_FALSE(stopped);
  }
}

TEST(TextStream, TheEarliestOfSeveralStopsCounts) {
  EXPECT_EQ(stream("xyz abc", 7, {"abc", "z "}), "xy");
  EXPECT_EQ(stream("aab", 1, {"ab"}), "a");  // overlaps itself
  EXPECT_EQ(stream("abc", 1, {""}), "abc");  // an empty one is none
}

TEST(TextStream, IsSilentAfterAStop) {
  TextStream s({"."});
  EXPECT_EQ(s.feed("a.b"), "a");
  EXPECT_EQ(s.feed("c"), "");
  EXPECT_EQ(s.finish(), "");
}

}  // namespace
}  // namespace sparsam
