// The table of normalisations in a sentencepiece model ("precompiled_charsmap"): a trie of character sequences, kept
// as a double array (XOR-compressed, as in darts-clone), whose leaves point to NUL-ended replacements.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"

namespace sparsam {

class Charsmap {
 public:
  // `bytes`: u32 size of the array, the array, the replacements; little endian. Everything that a search can reach is
  // checked. Errors: sizes that do not fit, a node outside the array, a replacement outside the bytes.
  Charsmap(std::string_view bytes, std::string_view where);

  // The text with each grapheme cluster of fewer than 6 bytes, else each character, replaced where the table knows it:
  // Hugging Face's reading of the table. (A cluster is replaced by what stands for its shortest known beginning.)
  void append(std::string& out, std::string_view text) const;
  const std::string& bytes() const { return bytes_; }

 private:
  std::optional<std::string_view> find(std::string_view text) const;  // of the shortest prefix in the table

  std::string bytes_;
  std::vector<u32> units_;
  size_t replacements_ = 0;  // where they begin in bytes_
};

}  // namespace sparsam
