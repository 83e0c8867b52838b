// GGUF files as models and back.
#pragma once

#include <optional>
#include <string>

#include "model/model.h"
#include "text/vocabulary.h"

namespace sparsam {

// Architectures llama, qwen2, qwen3, gemma, phi3, deci, gpt2 and gptneox, with what llama.cpp computes for them, except
// that a sliding window is followed where it ignores one, and that attention before a missing MLP (deci) is kept.
// Weights stay mapped as they are, quantised or not; queries and keys of llama and deci keep their interleaved pairs.
// Errors name the file and the key or tensor: unknown and missing ones, misshapen tensors, values that do not fit
// together, a vocabulary of another size than the embedding, mixtures of experts and other features that are not
// supported.
Model load_gguf(const fs::path& path);

// What a GGUF file carries beside the model.
struct GgufText {
  std::string name;                           // general.name
  std::optional<Vocabulary> vocabulary = {};  // none: llama.cpp then takes and gives ids only
  std::optional<std::string> chat_template = {};
  std::optional<std::string> manifest = {};  // sparsam.manifest: how the file came about; others pass over it
};
// Writes the model for llama.cpp, matrices in the number formats that they have, vectors in f32, as the architecture
// that computes the same: gpt2, gptneox, gemma, qwen3, qwen2, llama, or deci where layers differ or lack a half.
//   attention missing   head_count 0 (layer 0, where deci does not allow that: a linear map by zeros)
//   MLP missing         a gated MLP of 32 channels that are all zero: deci drops the attention of a layer without MLP
//   both missing        the layer is left out
// Errors: a feature of the model that no architecture expresses, by its name; more tokens than embeddings.
void save_gguf(const Model& model, const GgufText& text, const fs::path& path);

}  // namespace sparsam
