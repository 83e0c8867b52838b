// WordPiece (Schuster & Nakajima 2012; as in BERT): of each word the longest token first, then the longest of the rest.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/lexicon.h"

namespace sparsam {

class WordPiece {
 public:
  // Tokens within a word begin with `prefix`. A word that cannot be cut into tokens, or of more than
  // `longest_word` characters, is `unk` as a whole.
  WordPiece(const Lexicon& lexicon, std::string prefix, i32 unk, i64 longest_word)
      : lexicon_(lexicon), prefix_(std::move(prefix)), unk_(unk), longest_word_(longest_word) {}
  void encode(std::string_view word, std::vector<i32>& out) const;  // appends
  const std::string& prefix() const { return prefix_; }

 private:
  const Lexicon& lexicon_;
  std::string prefix_;
  i32 unk_;
  i64 longest_word_;
};

}  // namespace sparsam
