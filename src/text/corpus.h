// The embedded corpus: endless little stories from a probabilistic grammar written for this project. Its sentences need
// what transformers are for: subject and verb agree over a distance, names and who holds what must be remembered,
// numbers are counted and added, quotes and brackets nest. The grammar is unambiguous (every choice shows in the text
// at once, see story.h), so the information content of a text is known exactly, and with it the best loss that any
// model can reach.
#pragma once

#include <string>
#include <string_view>

#include "base/random.h"
#include "base/types.h"

namespace sparsam {

struct Story {
  std::string text;
  double bits = 0;  // -log2 P(text)
  i64 words = 0;
};

class StoryGenerator {
 public:
  explicit StoryGenerator(u64 seed) : random_(seed) {}
  Story next();

 private:
  Random random_;
};

// Stories, each followed by an empty line ("\n\n"); ended by the first one that reaches the wanted size.
struct Corpus {
  std::string text;
  double bits = 0;  // of all the stories; their separators carry no information
  i64 stories = 0, words = 0;
  double bits_per_byte() const { return text.empty() ? 0.0 : bits / static_cast<double>(text.size()); }
};
Corpus embedded_corpus(i64 bytes, u64 seed);  // bytes >= 0

// -log2 P of one story (without separator), found by parsing it. Error: not a story of the grammar.
double story_bits(std::string_view story);

// Exact expectations over the grammar, computed from it (not sampled); a fraction of a second.
struct StoryExpectation {
  double bits = 0, bytes = 0, words = 0;                       // of one story; bytes without separator
  double bits_per_byte() const { return bits / (bytes + 2); }  // of an endless corpus, separators included
};
StoryExpectation expected_story();
double entropy_bits_per_story();  // expected_story().bits

}  // namespace sparsam
