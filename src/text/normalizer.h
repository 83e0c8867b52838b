// What happens to a text before it is cut into pieces: the normalizers of tokenizer.json, in the order of the file.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/charsmap.h"
#include "text/regex.h"
#include "text/unicode.h"

namespace sparsam {

class Normalizer {
 public:
  struct Lowercase {};
  struct StripAccents {};  // takes nonspacing marks out
  struct Nmt {};           // sentencepiece's: some controls out, all kinds of space one
  struct ByteAlphabet {};  // bytes to the characters of byte_level.h
  struct Prepend {         // unless the text is empty
    std::string text;
  };
  struct Strip {
    bool left, right;
  };
  struct Replace {
    std::string text;  // or else
    std::optional<Regex> regex;
    std::string by;
  };
  struct Bert {
    bool clean_text, chinese_characters, strip_accents, lowercase;
  };
  using Step =
      std::variant<NormalForm, Lowercase, StripAccents, Nmt, ByteAlphabet, Prepend, Strip, Replace, Bert, Charsmap>;
  std::vector<Step> steps;

  bool empty() const { return steps.empty(); }
  std::string apply(std::string_view text) const;
};

}  // namespace sparsam
