#include "model/llama2c.h"

#include "formats/llama2c.h"

namespace sparsam {

namespace {

Config config_of(const Llama2cHeader& header) {
  Config config{.vocab = header.vocab, .dim = header.dim, .context = header.context};
  config.norm = {.kind = NormKind::rms, .eps = 1e-5f};
  config.rotary = {.base = 10000, .pairing = Pairing::interleaved};
  config.tied = header.tied;
  const SoftmaxAttention attention{
      .heads = header.heads, .kv_heads = header.kv_heads, .head_dim = header.dim / header.heads};
  const GatedMlp mlp{.hidden = header.hidden, .activation = Function::silu};
  config.layers.assign(static_cast<size_t>(header.layers), Layer{.mixer = attention, .mlp = mlp});
  return config;
}

// One layer's part of a tensor over all layers; a vector (L, C) gives (1, C).
Matrix part(const TensorEntry& entry, i64 layers, i64 layer) {
  const i64 cols = entry.shape.back(), rows = entry.elements() / cols;
  return Matrix{entry.dtype, rows, cols, entry.bytes}.slice(layer * (rows / layers), rows / layers);
}

}  // namespace

Model load_llama2c(const fs::path& path) {
  const auto file = std::make_shared<Llama2cFile>(Llama2cFile::open(path));
  const Config config = config_of(file->header());
  validate(config, path.string());
  Model model{config, empty_params<Matrix>(config), file};
  const auto whole = [&](const char* name) { return part(file->at(name), 1, 0); };
  model.weights.token_embedding = whole("token_embedding_table");
  model.weights.final_norm.gain = whole("rms_final_weight");
  if (!config.tied) model.weights.head = whole("wcls");
  const i64 layers = file->header().layers;
  for (i64 i = 0; i < layers; ++i) {
    LayerParams<Matrix>& layer = model.weights.layers[static_cast<size_t>(i)];
    const auto of = [&](const char* name) { return part(file->at(name), layers, i); };
    layer.attention.norm.gain = of("rms_att_weight");
    layer.attention.q.weight = of("wq"), layer.attention.k.weight = of("wk");
    layer.attention.v.weight = of("wv"), layer.attention.o.weight = of("wo");
    layer.mlp.norm.gain = of("rms_ffn_weight");
    layer.mlp.gate.weight = of("w1"), layer.mlp.down.weight = of("w2"), layer.mlp.up.weight = of("w3");
  }
  return model;
}

}  // namespace sparsam
