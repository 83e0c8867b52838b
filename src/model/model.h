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

  Matrix head() const { return config.tied ? weights.token_embedding : weights.head; }
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

// Hugging Face directories: config.json and model.safetensors (or shards with an index). Weights stay mapped; vectors
// of another dtype are converted. Missing, unknown and misshapen tensors are Errors that name them.
Model load_model(const fs::path& directory);
// Writes config.json and model.safetensors into `directory`, which exists; each file whole or not at all.
void save_model(const Model& model, const fs::path& directory);

}  // namespace sparsam
