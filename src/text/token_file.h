// A flat file of tokens, memory-mapped: training data. Layout, little-endian:
//   bytes 0-7 "SPARSTOK", u32 version = 1, u32 bytes per token (2 or 4), u64 vocab, u64 count, u64 hash, then the
//   tokens.
// Two bytes per token where vocab <= 65536.
#pragma once

#include <span>
#include <string_view>

#include "base/files.h"
#include "base/types.h"

namespace sparsam {

class TokenFile {
 public:
  // Errors: not a token file, another version, a size that disagrees with the header.
  static TokenFile open(const fs::path& path);

  i64 size() const { return count_; }   // tokens
  i64 vocab() const { return vocab_; }  // ids are below
  u64 hash() const { return hash_; }    // of what it was made from
  const fs::path& path() const { return file_.path(); }
  // Error: an id that is not below vocab() (a damaged file).
  i32 operator[](i64 index) const;
  void copy(i64 begin, i64 count, i32* out) const;  // tokens [begin, begin + count)

 private:
  explicit TokenFile(const fs::path& path) : file_(path) {}
  MappedFile file_;
  i64 count_ = 0, vocab_ = 0;
  int token_bytes_ = 0;
  u64 hash_ = 0;
};

// Atomically; ids must lie in [0, vocab). hash: hash_text(tokenizer.to_json(), hash_text(text)) by convention.
void write_token_file(const fs::path& path, std::span<const i32> ids, i64 vocab, u64 hash);

// 64 bits of a text (not cryptographic), the same on every machine.
u64 hash_text(std::string_view text, u64 seed = 0);

}  // namespace sparsam
