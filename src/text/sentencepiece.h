// Models of Google's sentencepiece (tokenizer.model, spiece.model), run by its library.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/vocabulary.h"

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace sparsam {

class SentencePiece {
 public:
  // `model`: the bytes of the file, a protocol buffer. They are walked and checked before the library sees them.
  // Errors: ill-formed fields, pieces without text, scores that are no numbers, a table of normalisations that points
  // outside itself, and what the library finds.
  SentencePiece(std::string_view model, std::string_view where);
  void encode(std::string_view text, std::vector<i32>& out) const;  // appends; ill-formed UTF-8 counts as U+FFFD

  // Its model is "llama" (BPE), "t5" (Unigram), or for the two that GGUF has no name for "word" and "char".
  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  Vocabulary vocabulary_;
  std::shared_ptr<const sentencepiece::SentencePieceProcessor> processor_;
};

}  // namespace sparsam
