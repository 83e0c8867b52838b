#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <deque>
#include <map>
#include <utility>
#include <vector>

#include "base/error.h"
#include "formats/gguf.h"
#include "model/execution.h"
#include "model/gguf.h"
#include "model/gguf_architectures.h"
#include "model/pairing.h"

namespace sparsam {

namespace {

constexpr i64 zero_width = 32;  // of the MLP that stands for a missing one

// --- which architecture ---------------------------------------------------------------------------------------------

// The same model without the layers that have neither half.
Model without_empty_layers(const Model& model) {
  Model result = model;
  result.config.layers.clear(), result.weights.layers.clear();
  for (size_t i = 0; i < model.config.layers.size(); ++i) {
    if (!has_attention(model.config.layers[i]) && !has_mlp(model.config.layers[i])) continue;
    result.config.layers.push_back(model.config.layers[i]);
    result.weights.layers.push_back(model.weights.layers[i]);
  }
  return result;
}

const SoftmaxAttention* first_attention(const Config& config) {
  for (const Layer& layer : config.layers)
    if (const auto* a = std::get_if<SoftmaxAttention>(&layer.mixer)) return a;
  return nullptr;
}
bool mlp_bias(const Layer& layer) {
  if (const auto* m = std::get_if<Mlp>(&layer.mlp)) return m->bias;
  const auto* m = std::get_if<GatedMlp>(&layer.mlp);
  return m && m->bias;
}

// The architecture that comes nearest; what it cannot say is for check_expressible() to name.
const char* nearest(const Config& config) {
  if (config.positions == Positions::learned) return "gpt2";
  if (config.norm.kind == NormKind::layer) return "gptneox";
  if (config.embedding_scale != 1) return "gemma";
  const SoftmaxAttention* a = first_attention(config);
  if (a && a->qk_norm) return "qwen3";
  const Layer& first = config.layers.front();
  for (const Layer& layer : config.layers)
    if (!(layer == first) || !has_attention(layer) || !has_mlp(layer)) return "deci";
  return a->qkv_bias && !a->out_bias && !mlp_bias(first) && a->heads * a->head_dim == config.dim ? "qwen2" : "llama";
}

struct Refusal {
  const std::string& where;
  const char* architecture;
  void when(bool missing, std::string_view feature) const {
    if (missing) fail("{}: GGUF's architecture {} does not have {}", where, architecture, feature);
  }
};

void check_layer(const GgufArchitecture& g, const Config& config, const Layer& layer, const Refusal& refuse) {
  using Biases = GgufArchitecture::Biases;
  const auto check_bias = [&](bool bias, bool of_queries, const char* what) {
    refuse.when(bias && g.biases == Biases::queries && !of_queries, fmt::format("biases of {}", what));
    refuse.when(!bias && g.biases == Biases::all, fmt::format("{} without bias", what));
  };
  refuse.when(!g.layers_differ && (!has_attention(layer) || !has_mlp(layer)), "layers without attention or MLP");
  if (const auto* a = std::get_if<SoftmaxAttention>(&layer.mixer)) {
    refuse.when(a->qk_norm != g.qk_norm, a->qk_norm ? "norms of queries and keys" : "heads without norms");
    refuse.when(a->inner_norm, "a norm inside attention");
    refuse.when(a->window > 0 && a->window < config.context, "sliding windows");
    refuse.when(!g.free_heads && a->heads * a->head_dim != config.dim, "heads of another size than dim / heads");
    check_bias(a->qkv_bias, true, "queries, keys and values");
    check_bias(a->out_bias, false, "attention's output");
  }
  const auto check_mlp = [&](const auto& m, bool gated) {
    refuse.when(gated != g.gated, gated ? "gated MLPs" : "MLPs without gate");
    refuse.when(m.activation != g.activation, fmt::format("the activation {}", name_of(m.activation)));
    check_bias(m.bias, false, "the MLP");
  };
  if (const auto* m = std::get_if<Mlp>(&layer.mlp)) check_mlp(*m, false);
  if (const auto* m = std::get_if<GatedMlp>(&layer.mlp)) {
    check_mlp(*m, true);
    refuse.when(m->activate_up, "an activation of both branches of the MLP");
    refuse.when(m->inner_norm, "a norm inside the MLP");
  }
}

void check_expressible(const GgufArchitecture& g, const Config& config, const std::string& where) {
  const Refusal refuse{where, g.name};
  refuse.when(config.norm.kind != g.norm, fmt::format("norms of kind {}", enum_name(config.norm.kind)));
  for (const Layer& layer : config.layers) refuse.when(has_parameter_tokens(layer), "parameter tokens");
  refuse.when(!config.norm.gain, "norms without gain");
  refuse.when(config.final_affine, "a final norm unlike the others");
  refuse.when(config.norm.bias != g.norm_bias(), g.norm_bias() ? "norms without bias" : "norms with bias");
  refuse.when(config.positions != g.positions, fmt::format("positions of kind {}", enum_name(config.positions)));
  refuse.when(config.rotary.channels != 0 && !g.partial_rotary, "a rotation of some channels of a head");
  refuse.when(config.residual == Residual::parallel && g.name != std::string_view("gptneox"), "parallel residuals");
  refuse.when(config.branch_scale != 1 || config.logit_scale != 1, "scales of branches or logits");
  const float scale = g.scaled_embedding ? std::sqrt(static_cast<float>(config.dim)) : 1;
  refuse.when(std::abs(config.embedding_scale - scale) > 1e-4f * scale,
              fmt::format("embeddings scaled by {}", config.embedding_scale));
  refuse.when(g.scaled_embedding && !config.tied, "a head of its own");
  const RotaryScaling& scaling = config.rotary.scaling;
  refuse.when((std::holds_alternative<Llama3Scaling>(scaling) || std::holds_alternative<FactorScaling>(scaling)) &&
                  !g.rope_factors,
              "rotary frequencies with factors");
  if (const auto* yarn = std::get_if<YarnScaling>(&scaling))
    refuse.when(yarn->beta_fast != 32 || yarn->beta_slow != 1 || !yarn->truncate, "YaRN with other ramps than 32 to 1");
  for (const Truncation& truncation : config.truncation) refuse.when(truncation.active(), "truncated MLPs");
  for (const InputThresholds& inputs : config.inputs.layers) refuse.when(inputs.active(), "thresholds of inputs");
  for (const Layer& layer : config.layers) {
    check_layer(g, config, layer, refuse);
    refuse.when(!g.layers_differ && layer.mlp != config.layers.front().mlp, "layers that differ");
  }
}

// --- metadata -------------------------------------------------------------------------------------------------------

// The number by which llama.cpp calls the number format that most of the weights have.
u32 file_type(const Model& model) {
  constexpr std::pair<DType, u32> types[] = {
      {DType::f32, 0},   {DType::f16, 1},   {DType::q4_0, 2},    {DType::q4_1, 3},  {DType::q8_0, 7},
      {DType::q5_0, 8},  {DType::q5_1, 9},  {DType::q2_k, 10},   {DType::q3_k, 12}, {DType::q4_k, 15},
      {DType::q5_k, 17}, {DType::q6_k, 18}, {DType::iq4_nl, 25}, {DType::bf16, 32}};
  std::map<DType, i64> elements;
  for_each_parameter(
      parameter_specs(model.config),
      [&](const std::string&, const ParameterSpec& spec, const Matrix& m) {
        if (!spec.is_vector) elements[m.dtype] += spec.size();
      },
      model.weights);
  const auto most = std::max_element(elements.begin(), elements.end(),
                                     [](const auto& a, const auto& b) { return a.second < b.second; });
  for (const auto& [dtype, type] : types)
    if (dtype == most->first) return type;
  return 0;
}

// Head counts and widths as deci wants them: an array with one number a layer.
struct Counts {
  std::vector<i32> heads, kv_heads, hidden;
};
Counts counts_of(const Config& config) {
  Counts counts;
  for (const Layer& layer : config.layers) {
    const auto* a = std::get_if<SoftmaxAttention>(&layer.mixer);
    const bool first = counts.heads.empty();  // llama.cpp derives the size of heads from layer 0
    counts.heads.push_back(static_cast<i32>(a ? a->heads : first ? first_attention(config)->heads : 0));
    counts.kv_heads.push_back(static_cast<i32>(a ? a->kv_heads : 0));
    const auto* gated = std::get_if<GatedMlp>(&layer.mlp);
    const auto* plain = std::get_if<Mlp>(&layer.mlp);
    counts.hidden.push_back(static_cast<i32>(gated ? gated->hidden : plain ? plain->hidden : zero_width));
  }
  return counts;
}

void add_rotary(GgufMetadata& out, const std::string& at, const Config& config, i64 head_dim) {
  const Rotary& rotary = config.rotary;
  out.emplace_back(at + "rope.dimension_count", static_cast<u32>(rotary.channels ? rotary.channels : head_dim));
  out.emplace_back(at + "rope.freq_base", rotary.base);
  if (const auto* linear = std::get_if<LinearScaling>(&rotary.scaling)) {
    out.emplace_back(at + "rope.scaling.type", std::string("linear"));
    out.emplace_back(at + "rope.scaling.factor", linear->factor);
  } else if (const auto* yarn = std::get_if<YarnScaling>(&rotary.scaling)) {
    out.emplace_back(at + "rope.scaling.type", std::string("yarn"));
    out.emplace_back(at + "rope.scaling.factor", yarn->factor);
    out.emplace_back(at + "rope.scaling.original_context_length", static_cast<u32>(yarn->original_context));
    out.emplace_back(at + "rope.scaling.attn_factor", yarn->attention_factor / yarn_stretch(yarn->factor));
  }
}

void add_description(GgufMetadata& out, const GgufArchitecture& g, const Config& config) {
  const std::string at = std::string(g.name) + ".";
  const auto add = [&](const char* key, i64 value) { out.emplace_back(at + key, static_cast<u32>(value)); };
  add("vocab_size", config.vocab), add("context_length", config.context), add("embedding_length", config.dim);
  add("block_count", static_cast<i64>(config.layers.size()));
  const Counts counts = counts_of(config);
  const auto add_counts = [&](const char* key, const std::vector<i32>& values) {
    g.layers_differ ? static_cast<void>(out.emplace_back(at + key, GgufArray{values})) : add(key, values.front());
  };
  add_counts("feed_forward_length", counts.hidden);
  add_counts("attention.head_count", counts.heads);
  add_counts("attention.head_count_kv", counts.kv_heads);
  const i64 head_dim = first_attention(config)->head_dim;
  add("attention.key_length", head_dim), add("attention.value_length", head_dim);
  out.emplace_back(at + (g.norm == NormKind::rms ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon"),
                   config.norm.eps);
  if (g.norm == NormKind::layer && g.positions == Positions::rotary)
    out.emplace_back(at + "use_parallel_residual", config.residual == Residual::parallel);
  if (g.positions == Positions::rotary) add_rotary(out, at, config, head_dim);
}

// The vocabulary, filled up to the rows of the embedding with tokens that are never used.
void add_vocabulary(GgufMetadata& out, const Vocabulary& v, i64 rows, const std::string& where) {
  if (static_cast<i64>(v.tokens.size()) > rows)
    fail("{}: the tokenizer has {} tokens, the model's vocabulary {}", where, v.tokens.size(), rows);
  std::vector<std::string> tokens = v.tokens;
  std::vector<i32> types;
  for (const TokenType type : v.types) types.push_back(static_cast<i32>(type));
  std::vector<float> scores = v.scores;
  constexpr float never = -10000;
  for (i64 id = static_cast<i64>(tokens.size()); id < rows; ++id) {
    tokens.push_back(fmt::format("[PAD{}]", id));
    types.push_back(static_cast<i32>(TokenType::unused));
    if (!scores.empty()) scores.push_back(never);
  }
  const std::string at = "tokenizer.ggml.";
  out.emplace_back(at + "model", v.model);
  if (!v.pre.empty()) out.emplace_back(at + "pre", v.pre);
  out.emplace_back(at + "tokens", GgufArray{std::move(tokens)});
  out.emplace_back(at + "token_type", GgufArray{std::move(types)});
  if (!scores.empty()) out.emplace_back(at + "scores", GgufArray{std::move(scores)});
  if (!v.merges.empty()) out.emplace_back(at + "merges", GgufArray{v.merges});
  const std::pair<const char*, std::optional<i32>> ids[] = {
      {"bos", v.bos},       {"eos", v.eos}, {"unknown", v.unk}, {"padding", v.pad},
      {"seperator", v.sep}, {"cls", v.cls}, {"mask", v.mask}};
  for (const auto& [name, id] : ids)
    if (id) out.emplace_back(fmt::format("{}{}_token_id", at, name), static_cast<u32>(*id));
  out.emplace_back(at + "add_bos_token", v.add_bos);
  out.emplace_back(at + "add_eos_token", v.add_eos);
  if (!v.scores.empty()) out.emplace_back(at + "add_space_prefix", v.add_space_prefix);
  if (v.remove_extra_whitespaces) out.emplace_back(at + "remove_extra_whitespaces", true);
  if (!v.charsmap.empty())
    out.emplace_back(at + "precompiled_charsmap", GgufArray{std::vector<u8>(v.charsmap.begin(), v.charsmap.end())});
}

// --- tensors --------------------------------------------------------------------------------------------------------

struct Tensors {
  const std::string& where;
  std::vector<TensorEntry> entries = {};
  std::deque<std::vector<std::byte>> made = {};  // what the model does not hold as the file wants it

  void add(const std::string& name, const Matrix& m, bool is_vector) {
    entries.push_back(
        {name, m.dtype, is_vector ? std::vector<i64>{m.cols} : std::vector<i64>{m.rows, m.cols}, m.bytes});
  }
  void add_made(const std::string& name, DType dtype, std::vector<i64> shape, std::vector<std::byte> bytes) {
    entries.push_back({name, dtype, std::move(shape), made.emplace_back(std::move(bytes))});
  }
  void add_floats(const std::string& name, const std::vector<float>& values) {
    const auto bytes = std::as_bytes(std::span(values));
    add_made(name, DType::f32, {static_cast<i64>(values.size())}, {bytes.begin(), bytes.end()});
  }
  void add_zeros(const std::string& name, i64 rows, i64 cols) {
    add_made(name, DType::f16, {rows, cols},
             std::vector<std::byte>(static_cast<size_t>(bytes_for(DType::f16, rows * cols))));
  }
  // Rows of several matrices, or elements of several vectors, as one.
  void add_joined(const std::string& name, std::span<const Matrix* const> parts, bool is_vector) {
    Matrix whole = *parts.front();
    std::vector<std::byte> bytes;
    i64 length = 0;
    for (const Matrix* part : parts) {
      if (part->dtype != whole.dtype)
        fail("{}: {} joins matrices of {} and {}, expected one number format", where, name, name_of(whole.dtype),
             name_of(part->dtype));
      length += is_vector ? part->cols : part->rows;
      bytes.insert(bytes.end(), part->bytes.begin(), part->bytes.end());
    }
    add_made(name, whole.dtype, is_vector ? std::vector<i64>{length} : std::vector<i64>{length, whole.cols},
             std::move(bytes));
  }
};

// The halves that deci cannot do without (gguf.h).
void add_stand_ins(Tensors& out, const Config& config) {
  const std::vector<float> ones(static_cast<size_t>(config.dim), 1.0f);
  for (size_t i = 0; i < config.layers.size(); ++i) {
    const std::string at = fmt::format("blk.{}.", i);
    if (i == 0 && !has_attention(config.layers[i])) {
      out.add_floats(at + "attn_norm.weight", ones);
      out.add_zeros(at + "attn_output.weight", config.dim, config.dim);
    }
    if (!has_mlp(config.layers[i])) {
      out.add_floats(at + "ffn_norm.weight", ones);
      out.add_zeros(at + "ffn_gate.weight", zero_width, config.dim);
      out.add_zeros(at + "ffn_up.weight", zero_width, config.dim);
      out.add_zeros(at + "ffn_down.weight", config.dim, zero_width);
    }
  }
}

void add_rope_factors(Tensors& out, const Config& config) {
  const RotaryScaling& scaling = config.rotary.scaling;
  if (!std::holds_alternative<Llama3Scaling>(scaling) && !std::holds_alternative<FactorScaling>(scaling)) return;
  const i64 head_dim = first_attention(config)->head_dim;
  Rotary plain = config.rotary;
  plain.scaling = std::monostate{};
  const std::vector<double> unscaled = rotary_frequencies(plain, head_dim);
  const std::vector<double> scaled = rotary_frequencies(config.rotary, head_dim);
  std::vector<float> factors;
  for (size_t i = 0; i < scaled.size(); ++i) factors.push_back(static_cast<float>(unscaled[i] / scaled[i]));
  out.add_floats(gguf_rope_factors, factors);
}

void add_weights(Tensors& out, const GgufArchitecture& g, const Model& model) {
  const auto is_part = [&](std::string_view name) {
    return g.fused_qkv && (name.find(".attn_q.") != name.npos || name.find(".attn_k.") != name.npos ||
                           name.find(".attn_v.") != name.npos);
  };
  for_each_parameter(
      parameter_specs(model.config),
      [&](const std::string& parameter, const ParameterSpec& spec, const Matrix& matrix) {
        const std::string name = gguf_tensor_name(parameter).value();
        if (!is_part(name)) out.add(name, matrix, spec.is_vector);
      },
      model.weights);
  if (g.fused_qkv)
    for (size_t i = 0; i < model.weights.layers.size(); ++i) {
      const auto& w = model.weights.layers[i].attention;
      const std::string name = fmt::format("blk.{}.attn_qkv", i);
      out.add_joined(name + ".weight", std::array{&w.q.weight, &w.k.weight, &w.v.weight}, false);
      out.add_joined(name + ".bias", std::array{&w.q.bias, &w.k.bias, &w.v.bias}, true);
    }
  if (model.config.tied && g.norm == NormKind::layer && g.positions == Positions::rotary)
    out.add("output.weight", model.weights.token_embedding, false);  // gptneox wants a head
}

}  // namespace

void save_gguf(const Model& original, const GgufText& text, const fs::path& path) {
  const std::string where = path.string();
  require_language_model(original.config, where);
  Model model = without_empty_layers(original);
  for (const Layer& layer : model.config.layers)
    if (std::holds_alternative<LogSumExpAttention>(layer.mixer))
      fail("{}: GGUF's architectures do not have log-sum-exp attention", where);
  for (const Layer& layer : model.config.layers)
    if (const auto* a = std::get_if<SoftmaxAttention>(&layer.mixer); a && a->convolution)
      fail("{}: GGUF's architectures do not have convolutions of queries, keys and values", where);
  if (!first_attention(model.config)) fail("{}: the model has no attention, which GGUF's architectures need", where);
  const GgufArchitecture& g = gguf_architecture(nearest(model.config), where);
  check_expressible(g, model.config, where);
  model = with_pairing(model, g.pairing);

  GgufMetadata metadata{{"general.architecture", std::string(g.name)},
                        {"general.type", std::string("model")},
                        {"general.name", text.name},
                        {"general.file_type", file_type(model)},
                        {"general.quantization_version", u32{2}}};
  add_description(metadata, g, model.config);
  if (text.vocabulary)
    add_vocabulary(metadata, *text.vocabulary, model.config.vocab, where);
  else
    metadata.emplace_back("tokenizer.ggml.model", std::string("none"));
  if (text.chat_template) metadata.emplace_back("tokenizer.chat_template", *text.chat_template);
  if (text.manifest) metadata.emplace_back("sparsam.manifest", *text.manifest);

  Tensors tensors{where};
  add_weights(tensors, g, model);
  add_rope_factors(tensors, model.config);
  if (g.layers_differ) add_stand_ins(tensors, model.config);
  write_gguf(path, metadata, tensors.entries);
}

}  // namespace sparsam
