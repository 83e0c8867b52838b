// Bytes of tokens in, presentable text out: only whole UTF-8 characters, and nothing of a stop string, wherever the
// borders of the tokens fall.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"

namespace sparsam {

class TextStream {
 public:
  explicit TextStream(std::vector<std::string> stops);  // stop strings; empty ones are ignored

  // Takes the bytes of the next token and returns the text that is now certain. Ill-formed UTF-8 becomes U+FFFD.
  std::string feed(std::string_view bytes);
  // The end: what was held back because more might have followed.
  std::string finish();
  bool stopped() const { return stopped_; }  // a stop string was complete; it and all after it are discarded

 private:
  std::string release(size_t bytes);

  std::vector<std::string> stops_;
  std::string held_;  // bytes that are not out yet
  bool stopped_ = false;
};

// Length of the longest prefix of `bytes` that does not end inside a UTF-8 character (Unicode 15, table 3-7).
size_t whole_characters(std::string_view bytes);
// The text with every ill-formed sequence replaced by U+FFFD (one for each maximal subpart).
std::string to_well_formed(std::string_view bytes);

}  // namespace sparsam
