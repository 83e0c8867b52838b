#include "text/word_piece.h"

#include <algorithm>

namespace sparsam {

void WordPiece::encode(std::string_view word, std::vector<i32>& out) const {
  const auto begins_character = [](char c) { return (static_cast<u8>(c) & 0xC0) != 0x80; };
  const size_t before = out.size();
  const auto unknown = [&] { out.resize(before), out.push_back(unk_); };
  if (std::count_if(word.begin(), word.end(), begins_character) > longest_word_) return unknown();
  std::string rest;
  for (size_t i = 0; i < word.size();) {
    const size_t prefix = i == 0 ? 0 : prefix_.size();
    rest.assign(prefix_, 0, prefix).append(word.substr(i, lexicon_.longest()));
    i32 token = -1;
    size_t end = rest.size();
    for (; end > prefix; --end) {
      const bool whole_characters = i + end - prefix == word.size() || begins_character(word[i + end - prefix]);
      if (whole_characters && (token = lexicon_.find(std::string_view(rest).substr(0, end))) >= 0) break;
    }
    if (token < 0) return unknown();
    out.push_back(token);
    i += end - prefix;
  }
}

}  // namespace sparsam
