// Regular expressions of tokenizer.json files. They are written for Oniguruma; PCRE2 (compiled to machine code) runs
// them after a small translation. Ill-formed UTF-8 in the text matches nothing and ends what stands before it.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>

#include "base/types.h"
#include "text/byte_level.h"

namespace sparsam {

class Regex {
 public:
  // Errors: a pattern that does not compile, or a construct that means something else in PCRE2 (\w, \b, \h, &&):
  // both named, with `where`.
  Regex(std::string_view pattern, std::string_view where);

  const std::string& pattern() const { return pattern_; }

  struct Match {
    size_t begin, end;
  };
  class Scratch;  // memory for one thread's matches
  std::shared_ptr<Scratch> scratch() const;
  // The first match at or after `from`. Errors: a match that takes far more steps than the text has bytes (a pattern
  // that explodes).
  bool find(std::string_view text, size_t from, Scratch& scratch, Match& match) const;

  // Calls piece(view) on the matches and on what lies between them: together they are the text (Hugging Face
  // "Isolated").
  template <class Piece>
  void split(std::string_view text, Piece&& piece) const {
    const std::shared_ptr<Scratch> memory = scratch();
    size_t done = 0, from = 0;
    const auto cut = [&](size_t end) {
      if (end > done) piece(text.substr(done, end - done)), done = end;
    };
    for (Match match{}; from <= text.size() && find(text, from, *memory, match);) {
      cut(match.begin), cut(match.end);
      from = match.end;
      if (match.end == match.begin) from += static_cast<size_t>(std::max(1, utf8_at(text, from).length));
    }
    cut(text.size());
  }

 private:
  std::string pattern_;
  std::shared_ptr<void> code_;
};

// What the GPT-2 pattern asks of a character: \p{L}, \p{N}, \s (White_Space) or none of them.
enum class CharClass : u8 { other, letter, number, space };
CharClass char_class(u32 code_point);  // outside ASCII from a table that PCRE2 fills on first use

}  // namespace sparsam
