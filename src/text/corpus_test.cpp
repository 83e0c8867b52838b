#include "text/corpus.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "base/error.h"
#include "base/test_support.h"
#include "text/story.h"
#include "text/story_words.h"

namespace sparsam {
namespace {

TEST(Corpus, ParserFindsTheBitsOfTheGenerator) {
  StoryGenerator generator(1);
  for (int i = 0; i < 2000; ++i) {
    const Story story = generator.next();
    ASSERT_NEAR(story_bits(story.text), story.bits, 1e-9) << story.text;
    ASSERT_GE(story.words, 40);
    ASSERT_LE(story.words, 200);
  }
}

// Exact expectations against the mean of many stories, within four standard errors.
TEST(Corpus, ExpectationsAreTheMeans) {
  const StoryExpectation exact = expected_story();
  StoryGenerator generator(2);
  constexpr int count = sanitized ? 5000 : 20000;
  const double expected[3] = {exact.bits, exact.bytes, exact.words};
  double sum[3] = {}, squares[3] = {};
  for (int i = 0; i < count; ++i) {
    const Story story = generator.next();
    const double values[3] = {story.bits, static_cast<double>(story.text.size()), static_cast<double>(story.words)};
    for (int k = 0; k < 3; ++k) sum[k] += values[k], squares[k] += values[k] * values[k];
  }
  for (int k = 0; k < 3; ++k) {
    const double mean = sum[k] / count, error = std::sqrt((squares[k] / count - mean * mean) / count);
    EXPECT_NEAR(mean, expected[k], 4 * error);
    EXPECT_LT(error, 0.01 * mean);  // else the comparison would say nothing
  }
}

TEST(Corpus, SeedsDecide) {
  const Corpus a = embedded_corpus(20000, 7), b = embedded_corpus(20000, 7), c = embedded_corpus(20000, 8);
  EXPECT_EQ(a.text, b.text);
  EXPECT_EQ(a.bits, b.bits);
  EXPECT_NE(a.text, c.text);
  EXPECT_GE(a.text.size(), 20000u);
  EXPECT_EQ(a.text.substr(a.text.size() - 2), "\n\n");
  EXPECT_EQ(embedded_corpus(0, 1).text, "");
  double bits = 0;
  i64 stories = 0;
  for (size_t begin = 0, end; (end = a.text.find("\n\n", begin)) != std::string::npos; begin = end + 2, ++stories)
    bits += story_bits(a.text.substr(begin, end - begin));
  EXPECT_EQ(stories, a.stories);
  EXPECT_NEAR(bits, a.bits, 1e-9 * a.bits);
}

TEST(Corpus, OtherTextIsNoStory) {
  EXPECT_THROW(story_bits(""), Error);
  EXPECT_THROW(story_bits("It was a dark and stormy night."), Error);
  StoryGenerator generator(3);
  const std::string text = generator.next().text;
  EXPECT_NO_THROW(story_bits(text));
  EXPECT_THROW(story_bits(text + " "), Error);
  EXPECT_THROW(story_bits(text.substr(0, text.size() - 1)), Error);
  // A story that forgets who holds what, counts wrongly, disagrees or leaves a bracket open is none.
  std::string all = embedded_corpus(300000, 4).text;
  const auto broken = [&](const std::string& from, const std::string& to) {
    const size_t at = all.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    const size_t begin = all.rfind("\n\n", at) + 2, end = all.find("\n\n", at);
    std::string story = all.substr(begin, end - begin);
    ASSERT_NO_THROW(story_bits(story));
    story.replace(at - begin, from.size(), to);
    EXPECT_THROW(story_bits(story), Error) << story;
  };
  broken("two more", "three more");
  broken("one, two, three", "one, three, two");
  broken("wolves howl", "wolves howls");
  broken("wolf howls", "wolf barks");
  broken(" ).", " ].");
  broken(".'\"", ".\"'");
}

// For grammars small enough to be followed by hand.
TEST(Grammar, ExpectationOfAKnownGrammar) {
  const Table words(1, "a, bb, ccc");
  // X -> "." with 1/2, or a word and X again (at most twice). Bits of one turn: 1, or 1 + log2(3).
  const std::function<void(Walk&, int)> part = [&](Walk& walk, int left) {
    if (left == 0) return;
    enum { stop, more };
    if (walk.choose({text(stop, 1, "."), draw(more, 1, words, 0)}).id == more) part(walk, left - 1);
  };
  Expectation expectation;
  const Sizes mean = expectation.mean([&](Walk& walk) { return part(walk, 2), Sizes{}; });
  EXPECT_NEAR(mean.bits, 1.5 * (1 + 0.5 * std::log2(3.0)), 1e-12);
  EXPECT_NEAR(mean.bytes, 1.5 * (0.5 * 1 + 0.5 * 3), 1e-12);  // a word with its space: three bytes in the mean
  EXPECT_NEAR(mean.spaces, 1.5 * 0.5, 1e-12);
  Scorer scorer(" bb.");
  part(scorer, 2);
  EXPECT_TRUE(scorer.done());
  EXPECT_NEAR(scorer.bits, 2 + std::log2(3.0), 1e-12);
}

// Choices may offer all rows of a column at once, and the article "a" stands before some.
TEST(Grammar, WordsAreDistinct) {
  const StoryWords& words = story_words();
  for (const Table* table :
       {&words.names, &words.openings, &words.travels, &words.places, &words.colours, &words.things, &words.fruits,
        &words.numbers, &words.connectors, &words.animals, &words.qualities, &words.scenery, &words.relations,
        &words.deeds, &words.regards, &words.manners, &words.moods, &words.marks, &words.brackets}) {
    std::set<std::string_view> seen;
    for (int row = 0; row < table->rows(); ++row) EXPECT_TRUE(seen.insert(table->cell(row, 0).text).second);
  }
  for (int row = 0; row < words.colours.rows(); ++row)
    EXPECT_EQ(std::string_view("aeiou").find(words.colours.cell(row, 0).text[1]), std::string_view::npos);
}

}  // namespace
}  // namespace sparsam
