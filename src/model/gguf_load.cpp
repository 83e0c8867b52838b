#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <utility>
#include <vector>

#include "base/error.h"
#include "formats/gguf.h"
#include "model/gguf.h"
#include "model/gguf_architectures.h"

namespace sparsam {

namespace {

constexpr i64 most_layers = 4096, most_size = i64{1} << 24;

// --- the description ------------------------------------------------------------------------------------------------

// The keys of one architecture, and the tensors whose presence says what the keys do not.
struct Description {
  const GgufFile& file;
  const GgufArchitecture& architecture;
  GgufFields& fields;

  std::string key(std::string_view name) const { return fmt::format("{}.{}", architecture.name, name); }
  std::string where() const { return file.path().string(); }
  template <class T>
  T required(std::string_view name, Limits<T> limits = {}) {
    return fields.required<T>(key(name), limits);
  }
  template <class T>
  T or_default(std::string_view name, std::type_identity_t<T> otherwise, Limits<T> limits = {}) {
    return fields.or_default<T>(key(name), std::move(otherwise), limits);
  }
  bool has(const std::string& tensor) const { return file.find(tensor) != nullptr; }

  // One number for all layers, or an array with one for each. Nothing when the key is absent.
  std::vector<i64> per_layer(std::string_view name, i64 layers) {
    const GgufValue* value = fields.find(key(name));
    if (!value) return {};
    const i64 least = architecture.layers_differ ? 0 : 1;
    if (!std::holds_alternative<GgufArray>(*value))
      return std::vector<i64>(static_cast<size_t>(layers), required<i64>(name, {.least = least, .most = most_size}));
    auto values = required<std::vector<i64>>(name);
    if (static_cast<i64>(values.size()) != layers)
      fail("{}: {} has {} values, expected one for each of {} layers", where(), key(name), values.size(), layers);
    for (const i64 n : values)
      if (n < least || n > most_size)
        fail("{}: {} holds {}, expected {} to {}", where(), key(name), n, least, most_size);
    return values;
  }
  // A key that may stand there with the one value that changes nothing.
  template <class T>
  void only(std::string_view name, T value, const char* feature) {
    if (or_default<T>(name, value) != value) fail("{}: {}: {} not supported", where(), key(name), feature);
  }
};

RotaryScaling read_scaling(Description& d, i64 context) {
  const auto factor = d.or_default<float>("rope.scaling.factor", d.or_default<float>("rope.scale_linear", 1),
                                          {.least = 0, .most = 1e6f});
  const auto type = d.or_default<std::string>("rope.scaling.type", "linear");
  const float stretch = d.or_default<float>("rope.scaling.attn_factor", 1);
  d.fields.ignore(d.key("rope.scaling.finetuned"));
  const i64 original =
      d.or_default<i64>("rope.scaling.original_context_length", context, {.least = 1, .most = most_size});
  if (const TensorEntry* factors = d.file.find(gguf_rope_factors)) {
    if (factors->dtype != DType::f32)
      fail("{}: {} is of {}, expected f32", d.where(), factors->name, name_of(factors->dtype));
    if (factor != 1 && factor != 0) fail("{}: {} beside a scaling by {}", d.where(), gguf_rope_factors, factor);
    const auto* begin = reinterpret_cast<const float*>(factors->bytes.data());
    return FactorScaling{{begin, begin + factors->elements()}};
  }
  if (type == "yarn") {
    d.only<float>("rope.scaling.yarn_ext_factor", 1, "a part of YaRN is");
    return YarnScaling{.factor = factor,
                       .beta_fast = d.or_default<float>("rope.scaling.yarn_beta_fast", 32),
                       .beta_slow = d.or_default<float>("rope.scaling.yarn_beta_slow", 1),
                       .attention_factor = yarn_stretch(factor) * stretch,
                       .original_context = original};
  }
  if (type == "longrope" || d.has("rope_factors_long.weight"))
    fail("{}: rotary positions scaled by LongRoPE are not supported", d.where());
  if (stretch != 1) fail("{}: {} {} without YaRN, expected 1", d.where(), d.key("rope.scaling.attn_factor"), stretch);
  if (type == "linear" && factor != 0 && factor != 1) return LinearScaling{factor};
  if (type != "linear" && type != "none")
    fail_unknown("scaling of rotary positions", printable(type), std::vector<std::string>{"none", "linear", "yarn"},
                 d.where());
  return {};
}

bool is_zero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}
bool is_zero(const TensorEntry* entry) { return entry && is_zero(entry->bytes); }

Layer read_layer(const Description& d, const std::string& at, const SoftmaxAttention& attention, i64 hidden) {
  Layer layer;
  if (attention.heads > 0) {
    SoftmaxAttention a = attention;
    a.qkv_bias = d.has(at + "attn_q.bias") || d.has(at + "attn_qkv.bias");
    a.out_bias = d.has(at + "attn_output.bias");
    a.qk_norm = d.architecture.qk_norm;
    layer.mixer = a;
  }
  if (hidden > 0) {
    const bool bias = d.has(at + "ffn_up.bias");
    if (d.architecture.gated)
      layer.mlp = GatedMlp{.hidden = hidden, .activation = d.architecture.activation, .bias = bias};
    else
      layer.mlp = Mlp{.hidden = hidden, .activation = d.architecture.activation, .bias = bias};
  }
  return layer;
}

void read_layers(Description& d, Config& config) {
  const i64 layers = d.required<i64>("block_count", {.least = 1, .most = most_layers});
  const std::vector<i64> heads = d.per_layer("attention.head_count", layers);
  if (heads.empty()) d.required<i64>("attention.head_count");
  std::vector<i64> kv_heads = d.per_layer("attention.head_count_kv", layers);
  if (kv_heads.empty()) kv_heads = heads;
  const std::vector<i64> hidden = d.per_layer("feed_forward_length", layers);
  if (hidden.empty()) d.required<i64>("feed_forward_length");
  const i64 widest = *std::max_element(heads.begin(), heads.end());
  if (widest == 0) fail("{}: no layer has attention, expected at least one", d.where());
  const bool said = d.fields.find(d.key("attention.key_length")) != nullptr;
  if (!said && config.dim % widest != 0)
    fail("{}: {} channels are no multiple of {} heads", d.where(), config.dim, widest);
  const i64 head_dim = d.or_default<i64>("attention.key_length", config.dim / widest, {.least = 1, .most = most_size});
  if (const i64 value = d.or_default<i64>("attention.value_length", head_dim); value != head_dim)
    fail("{}: values of {} channels and keys of {}, expected as many", d.where(), value, head_dim);
  const i64 window = d.or_default<i64>("attention.sliding_window", 0, {.least = 0, .most = most_size});
  for (size_t i = 0; i < heads.size(); ++i) {
    const std::string at = fmt::format("blk.{}.", i);
    const bool linear = heads[i] > 0 && kv_heads[i] == 0;
    if (linear && !is_zero(d.file.find(at + "attn_output.weight")))
      fail("{}: layer {} has a linear map for attention, which is not supported", d.where(), i);
    const SoftmaxAttention attention{
        .heads = linear ? 0 : heads[i], .kv_heads = kv_heads[i], .head_dim = head_dim, .window = window};
    config.layers.push_back(read_layer(d, at, attention, hidden[i]));
  }
  if (config.positions != Positions::rotary) return;
  const i64 turned = d.or_default<i64>("rope.dimension_count", head_dim, {.least = 0, .most = most_size});
  if (turned != head_dim && !d.architecture.partial_rotary)
    fail("{}: {} of the {} channels of a head are turned, expected all", d.where(), turned, head_dim);
  config.rotary.channels = turned == head_dim ? 0 : turned;
}

Config read_config(Description& d) {
  const TensorEntry* embedding = d.file.find("token_embd.weight");
  if (!embedding) fail("{}: the tensor token_embd.weight is missing", d.where());
  Config config;
  config.vocab = embedding->shape.front();
  config.dim = d.required<i64>("embedding_length", {.least = 1, .most = most_size});
  config.context = d.required<i64>("context_length", {.least = 1, .most = most_size});
  const GgufArchitecture& a = d.architecture;
  config.norm = {.kind = a.norm,
                 .gain = true,
                 .bias = a.norm_bias(),
                 .eps = d.required<float>(
                     a.norm == NormKind::rms ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon",
                     {.least = 0, .most = 1})};
  config.positions = a.positions;
  if (a.positions == Positions::rotary) {
    config.rotary = {.base = d.or_default<float>("rope.freq_base", 10000), .channels = 0, .pairing = a.pairing};
    config.rotary.scaling = read_scaling(d, config.context);
  }
  if (d.fields.find(d.key("use_parallel_residual")) && d.required<bool>("use_parallel_residual"))
    config.residual = Residual::parallel;
  config.tied = !d.has("output.weight");
  if (a.scaled_embedding) config.embedding_scale = std::sqrt(static_cast<float>(config.dim));
  d.only<i64>("vocab_size", config.vocab, "another number of tokens than the embedding has is");
  d.only<i64>("expert_count", 0, "mixtures of experts are");
  d.only<i64>("expert_used_count", 0, "mixtures of experts are");
  d.only<bool>("attention.causal", true, "attention to later tokens is");
  d.only<float>("attention.clamp_kqv", 0, "clamped attention is");
  d.only<float>("attention.max_alibi_bias", 0, "ALiBi is");
  d.fields.ignore(d.key("tensor_data_layout"));
  read_layers(d, config);
  d.fields.finish(d.key(""));
  validate(config, d.where());
  return config;
}

// The vocabulary inside the file must fit the embedding: ids and texts are looked up by each other.
void check_vocabulary(GgufFields& fields, i64 vocab) {
  if (const GgufValue* tokens = fields.find("tokenizer.ggml.tokens")) {
    const auto* array = std::get_if<GgufArray>(tokens);
    const auto* texts = array ? std::get_if<std::vector<std::string>>(&array->items) : nullptr;
    if (!texts) fields.fail_value("tokenizer.ggml.tokens", *tokens, "an array of texts");
    if (static_cast<i64>(texts->size()) != vocab)
      fail("{}: tokenizer.ggml.tokens has {} tokens, the embedding {}", fields.where(), texts->size(), vocab);
  }
  for (const char* name : {"bos", "eos", "eot", "eom", "unknown", "seperator", "padding", "cls", "mask"})
    fields.optional<i64>(fmt::format("tokenizer.ggml.{}_token_id", name), {.least = 0, .most = vocab - 1});
}

// --- the weights ----------------------------------------------------------------------------------------------------

struct Storage {
  GgufFile file;
  std::vector<Buffer> converted;  // vectors that the file holds in another number format
};

// The tensors that have not been taken yet, fused ones cut into the rows of their parts.
struct Tensors {
  std::string where;
  std::map<std::string, TensorEntry, std::less<>> left;

  struct Part {
    const char* name;
    i64 rows;
  };
  void cut(const std::string& at, const char* fused, std::span<const Part> parts) {
    for (const char* kind : {".weight", ".bias"}) {
      const auto node = left.extract(at + fused + kind);
      if (node.empty()) continue;
      const TensorEntry& whole = node.mapped();
      i64 rows = 0, begin = 0;
      for (const Part& part : parts) rows += part.rows;
      if (whole.shape.front() != rows)
        fail("{}: the tensor {} has shape {}, expected {} rows", where, whole.name, whole.shape_text(), rows);
      const i64 row_bytes = static_cast<i64>(whole.bytes.size()) / rows;
      for (const Part& part : parts) {
        TensorEntry entry{at + part.name + kind, whole.dtype, whole.shape, {}};
        entry.shape.front() = part.rows;
        entry.bytes =
            whole.bytes.subspan(static_cast<size_t>(begin * row_bytes), static_cast<size_t>(part.rows * row_bytes));
        begin += part.rows;
        if (!left.emplace(entry.name, entry).second) fail("{}: {} stands beside {}", where, entry.name, whole.name);
      }
    }
  }
  Matrix take(const std::string& name, const ParameterSpec& spec, Storage& storage) {
    const auto node = left.extract(name);
    const TensorEntry expected{
        name, {}, spec.is_vector ? std::vector<i64>{spec.cols} : std::vector<i64>{spec.rows, spec.cols}, {}};
    if (node.empty()) fail("{}: the tensor {} of shape {} is missing", where, name, expected.shape_text());
    const TensorEntry& entry = node.mapped();
    if (entry.shape != expected.shape)
      fail("{}: the tensor {} has shape {}, expected {}", where, name, entry.shape_text(), expected.shape_text());
    const bool real = entry.dtype == DType::f32 || entry.dtype == DType::f16 || entry.dtype == DType::bf16;
    if (!real && (spec.is_vector || !is_quantised(entry.dtype)))
      fail("{}: the tensor {} is of {}, expected f32, f16{}", where, name, name_of(entry.dtype),
           spec.is_vector ? " or bf16" : ", bf16 or a quantised format");
    const Matrix stored{entry.dtype, spec.rows, spec.cols, entry.bytes};
    if (!spec.is_vector || entry.dtype == DType::f32) return stored;
    Buffer& buffer = storage.converted.emplace_back(bytes_for(DType::f32, spec.size()));
    for (i64 i = 0; i < spec.size(); ++i) buffer.as<float>()[static_cast<size_t>(i)] = stored.at(0, i);
    return {DType::f32, spec.rows, spec.cols, buffer.bytes()};
  }
};

void cut_fused(Tensors& tensors, const GgufArchitecture& architecture, const Config& config) {
  for (size_t i = 0; i < config.layers.size(); ++i) {
    const std::string at = fmt::format("blk.{}.", i);
    if (const auto* a = std::get_if<SoftmaxAttention>(&config.layers[i].mixer)) {
      const i64 queries = a->heads * a->head_dim, keys = a->kv_heads * a->head_dim;
      tensors.cut(at, "attn_qkv",
                  std::array<Tensors::Part, 3>{{{"attn_q", queries}, {"attn_k", keys}, {"attn_v", keys}}});
    }
    if (const auto* m = std::get_if<GatedMlp>(&config.layers[i].mlp); m && architecture.fused_gate_up)
      tensors.cut(at, "ffn_up", std::array<Tensors::Part, 2>{{{"ffn_gate", m->hidden}, {"ffn_up", m->hidden}}});
  }
}

// Halves that are written as zeros, since deci cannot do without them (gguf.h).
void drop_zero_maps(Tensors& tensors, const Config& config) {
  for (size_t i = 0; i < config.layers.size(); ++i)
    if (!has_attention(config.layers[i]))
      for (const char* name : {"attn_norm.weight", "attn_output.weight"})
        tensors.left.erase(fmt::format("blk.{}.{}", i, name));
}
void drop_zero_mlps(Model& model) {
  constexpr i64 widest = 256;
  for (size_t i = 0; i < model.config.layers.size(); ++i) {
    const auto* m = std::get_if<GatedMlp>(&model.config.layers[i].mlp);
    if (!m || m->hidden > widest || m->bias) continue;
    const Matrix& down = model.weights.layers[i].mlp.down.weight;
    if (!is_zero(down.bytes)) continue;
    model.config.layers[i].mlp = std::monostate{};
    model.weights.layers[i].mlp = {};
  }
}

}  // namespace

Model load_gguf(const fs::path& path) {
  auto storage = std::make_shared<Storage>(Storage{GgufFile::open(path), {}});
  const GgufFile& file = storage->file;
  GgufFields fields(file);
  const std::string where = path.string();
  const auto name = fields.required<std::string>("general.architecture");
  Description description{file, gguf_architecture(name, where), fields};
  if (fields.or_default<i64>("split.count", 1) > 1)
    fail("{}: one of several files of a model, which are not supported; join them first", where);
  const Config config = read_config(description);
  check_vocabulary(fields, config.vocab);

  Tensors tensors{where, {}};
  for (const TensorEntry& entry : file.tensors()) tensors.left.emplace(entry.name, entry);
  tensors.left.erase(gguf_rope_factors);
  cut_fused(tensors, description.architecture, config);
  if (description.architecture.layers_differ) drop_zero_maps(tensors, config);
  Model model{config, empty_params<Matrix>(config), storage};
  for_each_parameter(
      parameter_specs(config),
      [&](const std::string& parameter, const ParameterSpec& spec, Matrix& matrix) {
        matrix = tensors.take(gguf_tensor_name(parameter).value(), spec, *storage);
      },
      model.weights);
  if (!tensors.left.empty())
    fail("{}: the tensor {} has no place in the model that the metadata describe", where,
         printable(tensors.left.begin()->first));
  if (description.architecture.layers_differ) drop_zero_mlps(model);
  return model;
}

}  // namespace sparsam
