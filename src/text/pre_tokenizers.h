// The pre-tokenizers of byte-level BPE that GGUF files name in tokenizer.ggml.pre.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace sparsam {

struct PreTokenizer {
  std::vector<std::string> names;  // that mean the same, the most common first
  std::vector<std::string>
      patterns;                // each cuts the pieces of the one before; matches and what lies between are pieces
  bool ignore_merges = false;  // a piece that is a token as a whole is that token
  bool add_bos = false;        // unless the file says otherwise
};

const std::vector<PreTokenizer>& known_pre_tokenizers();
// Error: an unknown name, with those that are known.
const PreTokenizer& pre_tokenizer_named(std::string_view name, std::string_view where);

}  // namespace sparsam
