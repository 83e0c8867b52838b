// Llama and its descendants: one block, in which each family changes something.
#include <algorithm>
#include <cmath>

#include "model/hugging_face_fields.h"

namespace sparsam {

namespace {

// What a family's configuration class takes where config.json says nothing.
struct Defaults {
  bool tied = false;
  i64 context = 2048;
  i64 head_dim = 0;  // 0: dim / heads
  double rope_base = 10000, rope_part = 1;
  float eps = 1e-6f;
  const char* eps_name = "rms_norm_eps";
  const char* activation = "silu";
};

Defaults defaults_of(std::string_view type) {
  if (type == "mistral") return {.context = 131072};
  if (type == "bamboo") return {.context = 131072, .eps = 1e-5f, .activation = "relu"};
  if (type == "qwen2") return {.context = 32768};
  if (type == "qwen3") return {.context = 32768, .head_dim = 128};
  if (type == "gemma") return {.tied = true, .context = 8192, .head_dim = 256, .activation = "gelu_pytorch_tanh"};
  if (type == "phi3") return {.context = 4096, .eps = 1e-5f};
  if (type == "minicpm") return {.tied = true};
  if (type == "stablelm") return {.context = 4096, .rope_part = 0.25, .eps = 1e-5f, .eps_name = "layer_norm_eps"};
  if (type == "bitnet") return {.rope_base = 500000, .eps = 1e-5f, .activation = "relu2"};
  return {};
}

GatedMlp read_mlp(ConfigFile& file, const Defaults& defaults) {
  GatedMlp mlp{.hidden = file.size("intermediate_size"),
               .activation = file.activation("hidden_act", defaults.activation)};
  const auto parameter = file.fields.optional<float>("hidden_act_param");
  if (mlp.activation == Function::fatrelu) {
    if (!parameter) fail("{}: hidden_act fatrelu needs its threshold, hidden_act_param", file.where());
    mlp.threshold = *parameter;
  }
  return mlp;  // other activations of ProSparse's and MiniCPM's models have no parameter: the field is ignored
}

// The block that all share. The families' changes follow.
HuggingFaceModel read_block(ConfigFile& file, const Defaults& defaults) {
  HuggingFaceModel model{.prefix = "model."};
  Config& config = model.config;
  config.vocab = file.size("vocab_size");
  config.dim = file.size("hidden_size");
  config.context = file.size_or("max_position_embeddings", defaults.context);
  config.tied = file.flag("tie_word_embeddings", defaults.tied);
  config.norm.eps = file.fields.or_default<float>(defaults.eps_name, defaults.eps);
  const i64 layers = file.layers("num_hidden_layers"), heads = file.size("num_attention_heads");
  SoftmaxAttention attention{.heads = heads, .kv_heads = file.size_or("num_key_value_heads", heads)};
  const auto head_dim = file.fields.optional<i64>("head_dim", {.least = 1, .most = most_size});
  if (!head_dim && defaults.head_dim == 0 && config.dim % heads != 0)
    fail("{}: hidden_size {} is not a multiple of num_attention_heads {}", file.where(), config.dim, heads);
  attention.head_dim = head_dim.value_or(defaults.head_dim ? defaults.head_dim : config.dim / heads);
  config.rotary =
      read_rotary(file, attention.head_dim, config.context, {.base = defaults.rope_base, .part = defaults.rope_part});
  config.layers.assign(static_cast<size_t>(layers), Layer{.mixer = attention, .mlp = read_mlp(file, defaults)});
  model.sources = llama_sources(config);
  return model;
}

void change_layers(Config& config, auto&& change) {
  for (Layer& layer : config.layers) change(std::get<SoftmaxAttention>(layer.mixer), std::get<GatedMlp>(layer.mlp));
}

void read_attention_bias(ConfigFile& file, Config& config) {  // of all four projections
  const bool bias = file.flag("attention_bias", false);
  change_layers(config, [&](SoftmaxAttention& a, GatedMlp&) { a.qkv_bias = a.out_bias = bias; });
}

void read_mlp_bias(ConfigFile& file, Config& config) {
  const bool bias = file.flag("mlp_bias", false);
  change_layers(config, [&](SoftmaxAttention&, GatedMlp& m) { m.bias = bias; });
}

// MistralConfig: a window of 4096 unless the field says null or another.
void read_mistral(ConfigFile& file, Config& config) {
  file.only("attention_bias", false), file.only("mlp_bias", false);
  set_windows(file, config, file.nullable("sliding_window", 4096).value_or(0), 0);
}

// Qwen2Config, Qwen3Config: a window only with use_sliding_window, and only from layer max_window_layers on.
void read_qwen_windows(ConfigFile& file, Config& config) {
  const bool used = file.flag("use_sliding_window", false);
  const i64 window = file.nullable("sliding_window", 4096).value_or(0);
  const i64 first = file.fields.or_default<i64>("max_window_layers", 28, {.least = 0, .most = most_size});
  set_windows(file, config, used ? window : 0, first);
}

// GemmaRMSNorm stores its gain minus one; GemmaModel multiplies the embeddings by sqrt(dim) in the dtype of the
// computation; GemmaMLP: hidden_activation, and where that is null tanh GELU, which old files call gelu.
void read_gemma(ConfigFile& file, HuggingFaceModel& model) {
  read_attention_bias(file, model.config);
  model.config.embedding_scale = std::sqrt(static_cast<float>(model.config.dim));
  Function function = file.activation("hidden_act", "gelu_pytorch_tanh");
  if (function == Function::gelu) function = Function::gelu_tanh;
  if (file.fields.find("hidden_activation")) function = file.activation("hidden_activation", "");
  change_layers(model.config, [&](SoftmaxAttention&, GatedMlp& m) { m.activation = function; });
  model.sources.final_norm.gain.offset = 1;
  for (auto& layer : model.sources.layers) layer.attention.norm.gain.offset = layer.mlp.norm.gain.offset = 1;
}

// Phi3Attention.qkv_proj: queries, keys, values; Phi3MLP.gate_up_proj: gate, then up.
void read_phi3(ConfigFile& file, HuggingFaceModel& model) {
  file.only("attention_bias", false), file.only("mlp_bias", false);
  file.fields.ignore("original_max_position_embeddings");  // of longrope alone, which is refused
  set_windows(file, model.config, file.nullable("sliding_window", std::nullopt).value_or(0), 0);
  for (size_t i = 0; i < model.config.layers.size(); ++i) {
    const auto& a = std::get<SoftmaxAttention>(model.config.layers[i].mixer);
    const i64 queries = a.heads * a.head_dim, keys = a.kv_heads * a.head_dim;
    const i64 hidden = std::get<GatedMlp>(model.config.layers[i].mlp).hidden;
    const std::string at = fmt::format("model.layers.{}.", i);
    auto& p = model.sources.layers[i];
    for (auto* part : {&p.attention.q, &p.attention.k, &p.attention.v}) name_source(*part, at + "self_attn.qkv_proj");
    place(p.attention.q, queries + 2 * keys, 0);
    place(p.attention.k, queries + 2 * keys, queries);
    place(p.attention.v, queries + 2 * keys, queries + keys);
    for (auto* part : {&p.mlp.gate, &p.mlp.up}) name_source(*part, at + "mlp.gate_up_proj");
    place(p.mlp.gate, 2 * hidden, 0);
    place(p.mlp.up, 2 * hidden, hidden);
  }
}

// MiniCPMForCausalLM (modeling_minicpm.py of the model's repository): embeddings times scale_emb, branches times
// scale_depth / sqrt(layers), hidden states divided by dim / dim_model_base before the head.
void read_minicpm(ConfigFile& file, Config& config) {
  read_attention_bias(file, config);
  const double layers = static_cast<double>(std::max<size_t>(config.layers.size(), 1));
  const double base = file.fields.or_default<double>("dim_model_base", 1, {.least = 0, .most = 1e9});
  config.embedding_scale = file.fields.or_default<float>("scale_emb", 1);
  config.branch_scale = static_cast<float>(file.fields.or_default<double>("scale_depth", 1, {.least = 0, .most = 1e9}) /
                                           std::sqrt(layers));
  config.logit_scale = static_cast<float>(base / static_cast<double>(config.dim));
}

// StableLmDecoderLayer: layer norms with biases; side by side both branches read input_layernorm.
void read_stablelm(ConfigFile& file, HuggingFaceModel& model) {
  Config& config = model.config;
  file.only("qk_layernorm", false);
  config.norm.kind = NormKind::layer, config.norm.bias = true;
  const bool bias = file.flag("use_qkv_bias", false);
  change_layers(config, [&](SoftmaxAttention& a, GatedMlp&) { a.qkv_bias = bias; });
  if (!file.flag("use_parallel_residual", false)) return;
  config.residual = Residual::parallel;
  share_norms(model.sources);
}

}  // namespace

HuggingFaceModel read_llama_family(ConfigFile& file, std::string_view type) {
  HuggingFaceModel model = read_block(file, defaults_of(type));
  Config& config = model.config;
  if (type == "llama" || type == "sparsellama") {
    read_attention_bias(file, config), read_mlp_bias(file, config);
  } else if (type == "mistral") {
    read_mistral(file, config);
  } else if (type == "bamboo") {  // BambooMLP activates both branches; its configuration does not say so
    read_mistral(file, config);
    change_layers(config, [](SoftmaxAttention&, GatedMlp& m) { m.activate_up = true; });
  } else if (type == "qwen2") {
    change_layers(config, [](SoftmaxAttention& a, GatedMlp&) { a.qkv_bias = true; });
    read_qwen_windows(file, config);
  } else if (type == "qwen3") {
    read_attention_bias(file, config);
    change_layers(config, [](SoftmaxAttention& a, GatedMlp&) { a.qk_norm = true; });
    read_qwen_windows(file, config);
  } else if (type == "gemma") {
    read_gemma(file, model);
  } else if (type == "phi3") {
    read_phi3(file, model);
  } else if (type == "minicpm") {
    read_minicpm(file, config);
  } else if (type == "stablelm") {
    read_stablelm(file, model);
  } else if (type == "bitnet") {  // BitNetAttention.attn_sub_norm, BitNetMLP.ffn_sub_norm
    read_attention_bias(file, config);
    change_layers(config, [](SoftmaxAttention& a, GatedMlp& m) { a.inner_norm = m.inner_norm = true; });
  }
  return model;
}

}  // namespace sparsam
