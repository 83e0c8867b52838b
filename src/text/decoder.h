// From tokens back to text: the decoders of tokenizer.json.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace sparsam {

class Decoder {
 public:
  struct ByteAlphabet {};  // the characters of byte_level.h to bytes; a token outside the alphabet stays
  struct ByteFallback {};  // <0x0A> to its byte
  struct Replace {
    std::string text, by;
  };
  struct Strip {  // up to so many of a character from the ends
    std::string text;
    size_t left, right;
  };
  struct Metaspace {  // `space` to a space, or to nothing in the first token
    std::string space;
    bool none_at_first;
  };
  struct WordPiece {  // a space before each word but the first; with `cleanup` none before . ? ! , n't 's and so on
    std::string prefix;
    bool cleanup;
  };
  using Step = std::variant<ByteAlphabet, ByteFallback, Replace, Strip, Metaspace, WordPiece>;
  std::vector<Step> steps;        // each token by itself
  std::vector<Step> whole_steps;  // the text of all tokens ("after Fuse"): Replace or Strip

  // `added`: its name is its text, whatever alphabet the others are written in.
  std::string token(std::string_view name, bool first, bool added) const;
  std::string finish(std::string text) const;
};

std::string replace_all(std::string_view text, std::string_view what, std::string_view by);  // `what` not empty

}  // namespace sparsam
