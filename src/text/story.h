// The grammar of the embedded corpus: a story as a walk through states. See grammar.h for what a Walk does with it.
#pragma once

#include <array>
#include <compare>

#include "text/grammar.h"

namespace sparsam {

// What must be remembered from sentence to sentence. The rows are some_row in an Expectation, where only the rest
// tells states apart: few enough to be followed all.
struct StoryState {
  static constexpr int things = 2, most_people = 3, most_fruits = 12;
  enum class Phase { opening, events, over };

  Phase phase = Phase::opening;
  int people = 0;                                                      // 2 or 3
  std::array<int, most_people> name = {some_row, some_row, some_row};  // rows of names
  std::array<int, things> colour = {some_row, some_row};               // rows
  std::array<int, things> thing = {some_row, some_row};                // rows
  std::array<int, things> holder = {0, 1};                             // persons
  int fruit = some_row;                                                // row
  int fruit_owner = 0, fruits = 0;                                     // person, how many
  int last = -1;                                                       // the person whom "she" or "he" means, or -1
  int events = 0;                                                      // sentences so far
  auto operator<=>(const StoryState&) const = default;                 // NOLINT(modernize-use-nullptr)
};

// Writes the next sentence or two and changes the state; false, and nothing done, once the story is over.
bool tell(Walk& walk, StoryState& state);

}  // namespace sparsam
