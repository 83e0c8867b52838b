// The inside of a tokenizer, shared by its readers (tokenizer_json.cpp, sentencepiece.cpp) and its work
// (tokenizer.cpp).
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/files.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/decoder.h"
#include "text/lexicon.h"
#include "text/normalizer.h"
#include "text/sentencepiece.h"
#include "text/splitter.h"
#include "text/unigram.h"
#include "text/vocabulary.h"
#include "text/word_piece.h"

namespace sparsam {

struct TokenizerData {
  std::string json;                // as read; empty when it was made from something else
  std::string where;               // what it was read from, for errors
  Lexicon names;                   // as the file writes them, added tokens included
  Lexicon units;                   // what pieces of text can become: bytes for byte-level BPE, else names
  std::vector<std::string> bytes;  // by id: what a token that is not the first stands for
  std::vector<bool> is_added;      // by id
  AddedTokens added;
  Normalizer normalizer;
  Splitter splitter;
  std::variant<std::monostate, Bpe, Unigram, WordPiece, SentencePiece> model;
  Decoder decoder;
  std::vector<i32> prefix, suffix;  // around a text
  SpecialIds special;
  std::optional<i32> end_of_text;
  std::optional<std::string> chat_template;
  std::optional<Vocabulary> vocabulary;  // that it was made from
  bool from_sentencepiece = false;       // what stands around a text is for the files beside it to say

  void place_bytes();  // once names, added tokens and decoder are there
  std::string text_of(i32 id, bool first) const;
  // Appends the tokens of a normalized text without added tokens. `first`: it is the beginning of what is encoded.
  void encode_section(std::string_view text, bool first, std::vector<i32>& out) const;
};

std::shared_ptr<TokenizerData> read_tokenizer_json(std::string_view json, std::string_view where);
std::shared_ptr<TokenizerData> read_vocabulary(const Vocabulary& vocabulary, std::string_view where);
// vocab.json and merges.txt of a directory whose tokenizer_config.json or config.json says how texts are cut.
std::shared_ptr<TokenizerData> read_vocab_and_merges(const fs::path& directory);
std::shared_ptr<TokenizerData> read_sentencepiece(std::string_view model, std::string_view where);

// The text of a tokenizer.json that means the same. Error: what no tokenizer.json can say.
std::string tokenizer_json(const Vocabulary& vocabulary, std::string_view where);

}  // namespace sparsam
