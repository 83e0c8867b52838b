// The inside of a tokenizer, shared by its reader (tokenizer_json.cpp) and its work (tokenizer.cpp).
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/splitter.h"

namespace sparsam {

struct TokenizerData {
  std::string json;                                // as read
  std::vector<std::optional<std::string>> tokens;  // bytes by id; some ids may be unused
  std::unordered_map<std::string_view, i32> ids;   // of the model's tokens (added ones excluded), by bytes
  AddedTokens added;
  Splitter splitter;
  MergeTable merges;
  std::array<i32, 256> byte_ids{};  // -1: no token
  bool byte_level = true;           // symbols are bytes; else the characters of UTF-8
  bool ignore_merges = false;       // a piece that is a token as a whole is that token
  std::optional<i32> end_of_text, beginning_of_text;
  std::vector<i32> prefix, suffix;
  std::optional<std::string> chat_template;

  void encode_section(std::string_view text, std::vector<i32>& out) const;  // text without added tokens
  void encode_piece(std::string_view piece, std::vector<i32>& symbols) const;
};

}  // namespace sparsam
