// Training data: text files, tokenised once into token files that are memory-mapped, and the order in which their
// windows are read.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "text/token_file.h"
#include "text/tokenizer.h"

namespace sparsam {

// A text, and what keeps its bytes alive. Any bytes are text: NUL and ill-formed UTF-8 become byte tokens.
struct Document {
  std::string name;
  std::string_view text;
  std::shared_ptr<const void> owner;
};

// Mapped; "-" is standard input. Errors: a missing file; no text at all.
std::vector<Document> open_documents(std::span<const std::string> paths);
Document corpus_document(i64 bytes, u64 seed);  // of the embedded corpus

u64 hash_of(std::span<const Document> documents);

// The last `fraction` of the bytes is held out; the cut is at the end of a paragraph or line where one is near.
struct Split {
  std::vector<Document> train, held_out;
};
Split hold_out(std::vector<Document> documents, double fraction);

// The tokens of the documents, each followed by end_of_text. They are kept in `directory`/<name>-<hash>.tokens, where
// the hash is of texts and tokenizer, and read from there the next time.
TokenFile tokenize(std::span<const Document> documents, const Tokenizer& tokenizer, const fs::path& directory,
                   std::string_view name);

// Bytes of text that each token stands for (0: end_of_text and its like).
std::vector<i32> token_bytes(const Tokenizer& tokenizer);

// The numbers below `count` in random order.
std::vector<u32> shuffled(i64 count, Random random);

// Which window of T + 1 tokens comes when. Each epoch cuts the tokens into W windows from an offset drawn for it and
// shuffles them; both are pure functions of (seed, epoch), so that a sample is a pure function of (seed, index).
class Sampler {
 public:
  // Error when there are fewer than T + 1 tokens. `tokens` must outlive this.
  Sampler(const TokenFile& tokens, i64 length, u64 seed);
  i64 windows() const { return windows_; }       // of an epoch, W
  void copy(i64 sample, std::span<i32> window);  // T + 1 tokens; sample = 0, 1, ...

 private:
  void begin_epoch(i64 epoch);
  const TokenFile& tokens_;
  i64 length_, windows_, epoch_ = -1, offset_ = 0;
  u64 seed_;
  std::vector<u32> order_;
};

}  // namespace sparsam
