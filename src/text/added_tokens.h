// Tokens that are recognised in the text before anything else: <|endoftext|> and the like.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"

namespace sparsam {

struct AddedToken {
  i32 id = 0;
  std::string content;
  bool special = false;      // left alone where the caller wants special tokens read as plain text
  bool strip_left = false;   // takes the whitespace before it
  bool strip_right = false;  // and after it
  bool early = true;         // looked for before the others ("normalized": false)
};

class AddedTokens {
 public:
  // Contents must not be empty.
  explicit AddedTokens(std::vector<AddedToken> tokens = {});
  const std::vector<AddedToken>& all() const { return tokens_; }

  // Calls text(view) on the stretches between the tokens and token(id) on each, in order. The leftmost token wins, the
  // longest among those that begin at the same place.
  template <class Text, class Token>
  void split(std::string_view whole, bool with_special, Text&& text, Token&& token) const {
    const auto rest = [&](std::string_view part) { find_each(late_, part, with_special, text, token); };
    find_each(early_, whole, with_special, rest, token);
  }

 private:
  struct Group {
    std::array<std::vector<i32>, 256> by_first_byte;  // indices into tokens_, longest first
    std::string first_bytes;                          // those in use
  };
  struct Found {
    size_t begin, end;  // whitespace that it takes included
    i32 id;
  };
  bool find(const Group& group, std::string_view text, size_t from, bool with_special, Found& found) const;

  template <class Text, class Token>
  void find_each(const Group& group, std::string_view whole, bool with_special, Text& text, Token& token) const {
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
