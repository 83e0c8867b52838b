// For tests of what runs models: tiny ones with random weights, and a tokenizer for them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model/model.h"
#include "text/tokenizer.h"

namespace sparsam {

inline const Architecture tiny_llama_like{
    .vocab = 300, .context = 64, .layers = 3, .dim = 32, .heads = 4, .kv_heads = 2, .hidden = 48};
inline const Architecture tiny_gpt_like{.vocab = 300,
                                        .context = 64,
                                        .layers = 2,
                                        .dim = 24,
                                        .heads = 3,
                                        .hidden = 40,
                                        .gated = false,
                                        .activation = Function::gelu_tanh,
                                        .norm = NormKind::layer,
                                        .norm_bias = true,
                                        .positions = Positions::learned,
                                        .residual = Residual::parallel,
                                        .qkv_bias = true,
                                        .out_bias = true,
                                        .mlp_bias = true,
                                        .tied = false};

// Weights in f32 that a test may change. The tables are large enough for predictions that are far from uniform.
struct TinyModel {
  std::shared_ptr<FlatParams> flat;
  Model model;
};
inline TinyModel tiny_model(const Architecture& architecture = tiny_llama_like, u64 seed = 1) {
  const Config config = make_config(architecture);
  const auto specs = parameter_specs(config);
  auto flat = std::make_shared<FlatParams>(specs);
  initialize(specs, flat->views, seed);
  for (const auto& table : {flat->views.token_embedding, flat->views.position_embedding, flat->views.head})
    for (float& value : table.span()) value *= 25;
  return {flat, model_of(config, flat)};
}

inline std::vector<i32> random_ids(i64 count, i64 vocab, u64 seed) {
  Random random(seed);
  std::vector<i32> ids(static_cast<size_t>(count));
  for (i32& id : ids) id = static_cast<i32>(random.below(static_cast<u64>(vocab)));
  return ids;
}

// 257 to 300 tokens: <|endoftext|>, the bytes, and merges.
inline const Tokenizer& tiny_tokenizer() {
  static const Tokenizer tokenizer = [] {
    const std::string text = "the cat sat on the mat and the dog sat on the log; the cat and the dog ran, ran, ran. ";
    const std::string_view texts[] = {text};
    return train_tokenizer(texts, 300);
  }();
  return tokenizer;
}

}  // namespace sparsam
