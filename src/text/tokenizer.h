// Text <-> token ids, as Hugging Face's tokenizer.json, sentencepiece's tokenizer.model and GGUF files define them.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "base/types.h"
#include "text/vocabulary.h"

namespace sparsam {

// What to do with special tokens that stand in the text as text ("<|endoftext|>").
enum class SpecialTokens { recognise, as_text };

struct TokenizerData;

// Immutable and cheap to copy; all threads may use one.
class Tokenizer {
 public:
  // `where` heads the errors. Everything that would change the ids and is not understood is refused by its name.
  static Tokenizer from_json(std::string_view json, std::string_view where);
  static Tokenizer from_vocabulary(const Vocabulary& vocabulary, std::string_view where);
  // A tokenizer.json, a sentencepiece .model, a .gguf with a vocabulary, a .bin of llama2.c, a rank file of tiktoken,
  // or a directory that holds tokenizer.json, else tokenizer.model (spiece.model), else vocab.json and merges.txt,
  // whose kind tokenizer_config.json or config.json must tell. Of a directory tokenizer_config.json and
  // chat_template.jinja are read too.
  static Tokenizer load(const fs::path& file_or_directory);
  std::string to_json() const;  // as tokenizer.json: the text that it was made from, or one that means the same

  // What a GGUF writer needs. Error: a tokenizer that llama.cpp could not follow, naming the part in question.
  Vocabulary vocabulary() const;
  const std::optional<std::string>& chat_template() const;  // as the file beside it (or the GGUF file) writes it

  i64 vocab_size() const;  // largest id + 1
  // Without the tokens that the file puts around a text. Any bytes. Ids are those of Hugging Face where the text is
  // UTF-8; ill-formed bytes become byte tokens. Errors: a byte for which the vocabulary has no token; a regular
  // expression that explodes on this text.
  std::vector<i32> encode(std::string_view text, SpecialTokens special = SpecialTokens::recognise) const;
  void encode(std::string_view text, std::vector<i32>& out, SpecialTokens special = SpecialTokens::recognise) const;
  // The text, as the file's decoder makes it: for byte-level BPE the exact bytes that were encoded. Error: an id that
  // the vocabulary does not have.
  std::string decode(std::span<const i32> ids) const;
  std::string_view bytes_of(i32 id) const;  // of one token that is not the first; the same error
  // Of a token by its bytes; where the vocabulary is not byte-level, by its name ("\u2581the").
  std::optional<i32> id_of(std::string_view bytes) const;

  // The tokens that belong around a text: beginning of text, [CLS] and [SEP], </s> after it and so on.
  const std::vector<i32>& prefix() const;
  const std::vector<i32>& suffix() const;
  std::optional<i32> end_of_text() const;        // <|endoftext|> or its like: ends each document
  std::optional<i32> beginning_of_text() const;  // where prefix() holds one
  std::optional<i32> mask_token() const;         // <mask> or [MASK]: stands for a token that is to be predicted
  // The same with the special token <mask>, whose id is vocab_size(); this where there is a mask token.
  Tokenizer with_mask_token() const;

  // The same ids as encode(), on all threads where the pre-tokenizer is GPT-2's (others: one thread).
  friend std::vector<i32> encode_parallel(const Tokenizer& tokenizer, std::string_view text);

 private:
  explicit Tokenizer(std::shared_ptr<const TokenizerData> data) : data_(std::move(data)) {}
  std::shared_ptr<const TokenizerData> data_;
};

std::vector<i32> encode_parallel(const Tokenizer& tokenizer, std::string_view text);

// The file that makes a directory one that Tokenizer::load() reads; nothing where there is none.
std::optional<fs::path> tokenizer_file(const fs::path& directory);

// Learns a tokenizer of `vocab` tokens from texts: id 0 is <|endoftext|>, then the 256 bytes in the order of their
// characters in the byte-level alphabet, then the merges, as Hugging Face's ByteLevelBPETokenizer numbers them when
// given that special token. Each step merges the most frequent pair; among equally frequent ones the pair whose first,
// then second byte string is the greatest. Pairs that occur once are not merged, so that a small text gives fewer
// tokens than asked for. <|endoftext|> in a text separates and is not learnt from. The result depends on the texts
// alone, not on threads. Errors: vocab below 257 or above 2^24.
// `progress` (fraction done, what is being done) may be empty.
using TrainProgress = std::function<void(double fraction, std::string_view stage)>;
Tokenizer train_tokenizer(std::span<const std::string_view> texts, i64 vocab, const TrainProgress& progress = {});

}  // namespace sparsam
