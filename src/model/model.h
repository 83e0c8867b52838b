// A model: its description and its weights, which lie in a mapped file or in memory.
#pragma once

#include <memory>
#include <optional>

#include "base/files.h"
#include "base/random.h"
#include "model/config.h"
#include "model/params.h"
#include "tensor/arena.h"

namespace sparsam {

struct Model {
  Config config;
  Params<Matrix> weights;               // vectors (norms, biases) are always f32
  std::shared_ptr<const void> storage;  // keeps the bytes of the weights alive

  Matrix head() const { return head_of(config, weights); }
};

// One flat f32 buffer that holds every parameter of a description once: weights being trained, gradients, moments.
struct FlatParams {
  Buffer buffer;
  Params<Out<float, 2>> views;  // vectors are (1, n)

  explicit FlatParams(const Params<ParameterSpec>& specs);
  Out<float, 1> all() const { return {buffer.as<float>().data(), {buffer.size() / 4}}; }
};

// Draws weights by the description's specs: the same seed gives the same bits.
void initialize(const Params<ParameterSpec>& specs, const Params<Out<float, 2>>& weights, u64 seed);
// A model that reads the f32 weights in `flat` (shared, not copied).
Model model_of(const Config& config, const std::shared_ptr<const FlatParams>& flat);
// Random weights of any dtype, for benchmarks.
Model random_model(const Config& config, DType dtype, u64 seed);

i64 weight_bytes(const Model& model);
// Bytes of weights read to decode one token: all matrices once, of the tables only rows (unless tied).
i64 decode_bytes(const Model& model);

struct LoadOptions {
  // The MLPs' activation where the files do not tell, or tell wrongly: a name of ops/activation.h, "drelu" (relu of
  // both branches) or "fatrelu:0.01" with its threshold. Empty: as the files say.
  std::string activation = {};
};

// A Hugging Face directory (model/hugging_face.h: config.json with model.safetensors, or pytorch_model.bin, or shards
// of either with an index), a .safetensors or .bin file with config.json beside it, a .gguf file, a llama2c .bin file.
// Weights stay mapped where their layout allows it; vectors of another dtype are converted, fused or transposed
// matrices taken apart. Missing, unknown and misshapen tensors are Errors that name them.
Model load_model(const fs::path& path, const LoadOptions& options = {});
// Writes config.json and model.safetensors into `directory`, which exists; each file whole or not at all. A model that
// one of transformers' families expresses is written as that family's (llama, mistral, qwen2, qwen3, gpt2), others with
// their description under the key "sparsam". Numbers stay as they are; quantised matrices are written in f32.
void save_model(const Model& model, const fs::path& directory);

}  // namespace sparsam
