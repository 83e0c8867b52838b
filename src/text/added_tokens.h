// Tokens that are recognised in the text before anything else: <|endoftext|> and the like.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"
#include "text/normalizer.h"

namespace sparsam {

struct AddedToken {
  i32 id = 0;
  std::string content;
  bool special = false;      // left alone where the caller wants special tokens read as plain text
  bool strip_left = false;   // takes the whitespace before it
  bool strip_right = false;  // and after it
  bool early = true;         // looked for before the text is normalized ("normalized": false)
  bool single_word = false;  // only where no word character stands beside it
};

class AddedTokens {
 public:
  // Contents must not be empty. Those that are not early are normalized as the text is.
  explicit AddedTokens(std::vector<AddedToken> tokens = {}, const Normalizer& normalizer = {});
  const std::vector<AddedToken>& all() const { return tokens_; }

  // Calls text(view, first) on the normalized stretches between the tokens and token(id) on each, in order; `first`
  // says that it is the beginning of the whole. The leftmost token wins, the longest among those that begin at the
  // same place. A view lives during its call, unless there is no normalizer: then it is a part of `whole`.
  template <class Text, class Token>
  void split(std::string_view whole, bool with_special, const Normalizer& normalizer, Text&& text,
             Token&& token) const {
    const auto rest = [&](std::string_view part) {
      const bool first = part.data() == whole.data();
      const auto late = [&](std::string_view normal) {
        find_each(
            late_, normal, with_special,
            [&](std::string_view piece) { text(piece, first && piece.data() == normal.data()); }, token);
      };
      normalizer.empty() ? late(part) : late(normalizer.apply(part));
    };
    find_each(early_, whole, with_special, rest, token);
  }

 private:
  struct Pattern {
    std::string content;
    i32 token;  // index into tokens_
  };
  struct Group {
    std::array<std::vector<Pattern>, 256> by_first_byte;  // longest first
    std::string first_bytes;                              // those in use
  };
  struct Found {
    size_t begin, end;  // whitespace that it takes included
    i32 id;
  };
  bool find(const Group& group, std::string_view text, size_t from, bool with_special, Found& found) const;

  template <class Text, class Token>
  void find_each(const Group& group, std::string_view whole, bool with_special, Text&& text, Token& token) const {
    size_t done = 0;
    for (Found found{}; find(group, whole, done, with_special, found); done = found.end) {
      if (found.begin > done) text(whole.substr(done, found.begin - done));
      token(found.id);
    }
    if (done < whole.size()) text(whole.substr(done));
  }

  std::vector<AddedToken> tokens_;
  Group early_, late_;
};

}  // namespace sparsam
