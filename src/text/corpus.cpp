#include "text/corpus.h"

#include <algorithm>

#include "base/error.h"
#include "text/story.h"

namespace sparsam {
namespace {

// Every fragment brings the space before it; a story begins without one.
constexpr std::string_view margin = " ";

// What remains to be told from a state, in the mean. Each state is worked out once.
Sizes expected_from(const StoryState& state, Expectation& scopes, std::map<StoryState, Sizes>& known) {
  if (state.phase == StoryState::Phase::over) return {};
  if (const auto found = known.find(state); found != known.end()) return found->second;
  Expectation paths(scopes);
  const Sizes sizes = paths.mean([&](Walk& walk) {
    StoryState next = state;
    tell(walk, next);
    return expected_from(next, scopes, known);
  });
  return known.emplace(state, sizes).first->second;
}

}  // namespace

Story StoryGenerator::next() {
  Sampler sampler(random_);
  for (StoryState state; tell(sampler, state);) {
  }
  Story story{sampler.text.substr(margin.size()), sampler.bits, 0};
  story.words = 1 + std::count(story.text.begin(), story.text.end(), ' ');
  return story;
}

Corpus embedded_corpus(i64 bytes, u64 seed) {
  Corpus corpus;
  StoryGenerator generator(seed);
  while (static_cast<i64>(corpus.text.size()) < bytes) {
    const Story story = generator.next();
    corpus.text += story.text;
    corpus.text += "\n\n";
    corpus.bits += story.bits, corpus.words += story.words, ++corpus.stories;
  }
  return corpus;
}

double story_bits(std::string_view story) {
  const std::string text = std::string(margin).append(story);
  Scorer scorer(text);
  for (StoryState state; tell(scorer, state);) {
  }
  if (!scorer.done()) fail("not a story: it is over at byte {}, the text is not", scorer.position() - margin.size());
  return scorer.bits;
}

StoryExpectation expected_story() {
  Expectation scopes;
  std::map<StoryState, Sizes> known;
  const Sizes sizes = expected_from(StoryState{}, scopes, known);
  const double begin = static_cast<double>(margin.size());
  return {.bits = sizes.bits, .bytes = sizes.bytes - begin, .words = sizes.spaces - begin + 1};
}

double entropy_bits_per_story() { return expected_story().bits; }

}  // namespace sparsam
