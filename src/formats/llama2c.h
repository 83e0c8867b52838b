// The checkpoints of llama2.c, version 0: seven i32 (dim, hidden, layers, heads, kv_heads, vocab, context; a negative
// vocab: the head is not the token embedding), then the tensors in f32, each over all layers, without names.
// Source: legacy_export() in export.py and memory_map_weights() in run.c of karpathy/llama2.c.
#pragma once

#include <vector>

#include "formats/safetensors.h"

namespace sparsam {

struct Llama2cHeader {
  i64 dim = 0, hidden = 0, layers = 0, heads = 0, kv_heads = 0, vocab = 0, context = 0;
  bool tied = true;
};

// A file that stays mapped as long as this lives. The header is checked against itself and against the file's length,
// which it gives to the byte. Errors name the file, what was found and what was expected.
class Llama2cFile {
 public:
  static Llama2cFile open(const fs::path& path);

  const Llama2cHeader& header() const { return header_; }
  // In the order of the file, named as in run.c: token_embedding_table (V, C), rms_att_weight (L, C), wq (L, C, C),
  // wk and wv (L, G D, C), wo (L, C, C), rms_ffn_weight (L, C), w1 (L, F, C), w2 (L, C, F), w3 (L, F, C),
  // rms_final_weight (C), freq_cis_real and freq_cis_imag (T, D / 2), untied: wcls (V, C).
  const std::vector<TensorEntry>& tensors() const { return tensors_; }
  const TensorEntry& at(std::string_view name) const;  // one of those names
  const fs::path& path() const { return file_.path(); }

 private:
  explicit Llama2cFile(const fs::path& path) : file_(path) {}

  MappedFile file_;
  Llama2cHeader header_;
  std::vector<TensorEntry> tensors_;
};

}  // namespace sparsam
