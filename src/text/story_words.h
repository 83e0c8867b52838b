// The words of the embedded corpus. All their forms are lower-case letters (names: capitalised); no form stands twice
// in one column, nor in two columns that one choice offers.
#pragma once

#include "text/grammar.h"

namespace sparsam {

struct StoryWords {
  Table names;       // name, subject at the start of a sentence, elsewhere
  Table openings;    // of the story
  Table travels;     // plural verbs that go before "to the"
  Table places;      //
  Table colours;     // of things; begin with consonants, as all words do that follow "a"
  Table things;      //
  Table fruits;      // singular, plural
  Table numbers;     // one ... twelve; row = number - 1
  Table connectors;  // before a sentence
  Table animals;     // singular, plural, its sound with a singular and with a plural subject
  Table qualities;   // of animals
  Table scenery;     // singular, plural
  Table relations;   // prepositions
  Table deeds;       // intransitive verbs: singular, plural
  Table regards;     // transitive verbs: singular, plural
  Table manners;     // adverbs
  Table moods;       //
  Table marks;       // words on a sign
  Table brackets;    // opening, closing
};
const StoryWords& story_words();

}  // namespace sparsam
