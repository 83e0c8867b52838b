// A vocabulary as GGUF files spell it: what lies between tokenizer.json, tokenizer.model and the keys tokenizer.ggml.*.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"

namespace sparsam {

// The numbers of tokenizer.ggml.token_type (and of sentencepiece's pieces).
enum class TokenType : i32 { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

// Ids that have a part to play, where they are known.
struct SpecialIds {
  std::optional<i32> bos = {}, eos = {}, unk = {}, pad = {}, sep = {}, cls = {}, mask = {};
};

struct Vocabulary : SpecialIds {
  // tokenizer.ggml.model: gpt2 (byte-level BPE), llama (sentencepiece BPE), t5 (Unigram) or bert (WordPiece).
  std::string model;
  std::string pre;  // tokenizer.ggml.pre: llama.cpp's name of the pre-tokenizer ("default": sentencepiece)
  std::vector<std::string> tokens;        // by id, all of them; ids that the source leaves out are unused "[PADn]"
  std::vector<TokenType> types;           // as many
  std::vector<float> scores;              // as many for llama and t5, else none
  std::vector<std::string> merges;        // "left right" in order of rank, for gpt2
  bool add_bos = false, add_eos = false;  // encode(..., with special tokens) puts them around the text (bert: cls, sep)
  bool add_space_prefix = false;          // llama, t5: a text begins as if a space stood before it
  bool remove_extra_whitespaces = false;  // t5 (and sentencepiece's BPE models that say so)
  std::string charsmap = {};              // t5: sentencepiece's table of normalisations, as bytes
  bool lowercase = true;                  // bert: and without accents
  bool specials_take_space = false;       // whitespace after a special token belongs to it, as in Phi-3
};

// The vocabulary that llama2.c keeps beside its models (tokenizer.bin, tok512.bin): i32 length of the longest token,
// then for each f32 score, i32 length, bytes; as sentencepiece's BPE, with spaces for "\u2581".
Vocabulary read_llama2c_vocabulary(std::string_view bytes, std::string_view where);

// Rank files of tiktoken: lines of a token in base64 and its rank. Those of r50k, p50k, cl100k and Llama 3 are known.
bool is_tiktoken(std::string_view bytes);  // by its first line
Vocabulary read_tiktoken_vocabulary(std::string_view bytes, std::string_view where);

}  // namespace sparsam
