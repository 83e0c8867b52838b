// The description as a config.json that transformers opens, where one of its families expresses the model.
#include <algorithm>
#include <optional>

#include "model/hugging_face.h"

namespace sparsam {

namespace {

// What all layers have in common but for their windows, and which of them have one.
struct SharedLayer {
  Layer layer;
  i64 window = 0, first = 0;  // the layers from `first` on have the window, the others none
};

// Nothing when layers differ, lack a half, or when their windows are of no family's kind.
std::optional<SharedLayer> shared_layer(const Config& config) {
  if (config.layers.empty() || !is_language_model(config)) return {};
  SharedLayer shared{.layer = config.layers.back()};
  auto* attention = std::get_if<SoftmaxAttention>(&shared.layer.mixer);
  if (!attention || attention->convolution || !has_mlp(shared.layer) || has_parameter_tokens(shared.layer) ||
      config.final_affine)
    return {};
  shared.window = std::exchange(attention->window, 0);
  const auto window_of = [](const Layer& layer) {
    const auto* a = std::get_if<SoftmaxAttention>(&layer.mixer);
    return a ? a->window : 0;
  };
  while (shared.window && window_of(config.layers[static_cast<size_t>(shared.first)]) != shared.window) ++shared.first;
  for (size_t i = 0; i < config.layers.size(); ++i) {
    Layer layer = config.layers[i];
    if (window_of(layer) != (static_cast<i64>(i) >= shared.first ? shared.window : 0)) return {};
    if (auto* a = std::get_if<SoftmaxAttention>(&layer.mixer)) a->window = 0;
    if (layer != shared.layer) return {};
  }
  return shared;
}

// Hugging Face's names where they differ from ours.
std::string hidden_act(Function function) {
  return function == Function::gelu_tanh ? "gelu_pytorch_tanh" : std::string(name_of(function));
}

bool is_unscaled(const Config& config) {
  return config.embedding_scale == 1 && config.branch_scale == 1 && config.logit_scale == 1;
}

// The family of Llama's shape that can say this: llama, mistral, qwen2, qwen3, or none.
std::string llama_family(const Config& config, const SharedLayer& shared) {
  const auto& a = std::get<SoftmaxAttention>(shared.layer.mixer);
  const auto* m = std::get_if<GatedMlp>(&shared.layer.mlp);
  const Rotary& rotary = config.rotary;
  if (!m || m->activate_up || m->inner_norm || a.inner_norm || m->activation == Function::fatrelu) return {};
  if (config.norm.kind != NormKind::rms || !config.norm.gain || !is_unscaled(config)) return {};
  if (config.positions != Positions::rotary || rotary.channels != 0 || rotary.pairing != Pairing::halves) return {};
  if (config.residual != Residual::sequential || std::holds_alternative<FactorScaling>(rotary.scaling)) return {};
  const bool even = a.qkv_bias == a.out_bias;
  if (a.qk_norm) return even && !m->bias ? "qwen3" : "";
  if (shared.window == 0 && even) return "llama";
  if (shared.first == 0 && !a.qkv_bias && !a.out_bias && !m->bias) return "mistral";
  return a.qkv_bias && !a.out_bias && !m->bias ? "qwen2" : "";
}

bool is_gpt2(const Config& config, const SharedLayer& shared) {
  const auto& a = std::get<SoftmaxAttention>(shared.layer.mixer);
  const auto* m = std::get_if<Mlp>(&shared.layer.mlp);
  if (!m || m->activation == Function::fatrelu || !m->bias || !a.qkv_bias || !a.out_bias) return false;
  if (a.qk_norm || a.inner_norm || a.kv_heads != a.heads || a.heads * a.head_dim != config.dim) return false;
  if (config.norm.kind != NormKind::layer || !config.norm.gain || !config.norm.bias || shared.window) return false;
  return config.positions == Positions::learned && config.residual == Residual::sequential && is_unscaled(config) &&
         config.rotary == Rotary{};
}

Json rope_scaling(const RotaryScaling& scaling) {
  if (const auto* s = std::get_if<LinearScaling>(&scaling))
    return {{"rope_type", "linear"}, {"factor", shortest(s->factor)}};
  if (const auto* s = std::get_if<Llama3Scaling>(&scaling))
    return {{"rope_type", "llama3"},
            {"factor", shortest(s->factor)},
            {"low_freq_factor", shortest(s->low_frequency_factor)},
            {"high_freq_factor", shortest(s->high_frequency_factor)},
            {"original_max_position_embeddings", s->original_context}};
  if (const auto* s = std::get_if<YarnScaling>(&scaling))
    return {{"rope_type", "yarn"},
            {"factor", shortest(s->factor)},
            {"attention_factor", shortest(s->attention_factor)},
            {"beta_fast", shortest(s->beta_fast)},
            {"beta_slow", shortest(s->beta_slow)},
            {"truncate", s->truncate},
            {"original_max_position_embeddings", s->original_context}};
  return nullptr;
}

Json llama_json(const Config& config, const SharedLayer& shared, const std::string& family) {
  const auto& a = std::get<SoftmaxAttention>(shared.layer.mixer);
  const auto& m = std::get<GatedMlp>(shared.layer.mlp);
  Json json{{"num_attention_heads", a.heads},
            {"num_key_value_heads", a.kv_heads},
            {"head_dim", a.head_dim},
            {"intermediate_size", m.hidden},
            {"hidden_act", hidden_act(m.activation)},
            {"rms_norm_eps", shortest(config.norm.eps)},
            {"rope_theta", shortest(config.rotary.base)}};
  if (config.rotary.scaling.index() != 0) json["rope_scaling"] = rope_scaling(config.rotary.scaling);
  if (family == "llama" || family == "qwen3") json["attention_bias"] = a.qkv_bias;
  if (family == "llama") json["mlp_bias"] = m.bias;
  if (family == "mistral") json["sliding_window"] = shared.window;
  if (family == "qwen2" || family == "qwen3") {
    json["use_sliding_window"] = shared.window > 0;
    json["sliding_window"] = shared.window > 0 ? Json(shared.window) : Json(nullptr);
    json["max_window_layers"] = shared.window > 0 ? shared.first : static_cast<i64>(config.layers.size());
  }
  return json;
}

Json gpt2_json(const Config& config, const SharedLayer& shared) {
  const auto& m = std::get<Mlp>(shared.layer.mlp);
  return {{"architectures", {"GPT2LMHeadModel"}},
          {"model_type", "gpt2"},
          {"vocab_size", config.vocab},
          {"n_positions", config.context},
          {"n_embd", config.dim},
          {"n_layer", config.layers.size()},
          {"n_head", std::get<SoftmaxAttention>(shared.layer.mixer).heads},
          {"n_inner", m.hidden},
          {"activation_function", m.activation == Function::gelu_tanh ? "gelu_new" : hidden_act(m.activation)},
          {"layer_norm_epsilon", shortest(config.norm.eps)},
          {"tie_word_embeddings", config.tied},
          {"torch_dtype", "float32"}};
}

std::string class_of(const std::string& family, const Config& config) {
  if (!config.labels.empty()) return "SparsamForSequenceClassification";
  if (!config.causal) return "SparsamForMaskedLM";
  if (family == "llama") return "LlamaForCausalLM";
  if (family == "mistral") return "MistralForCausalLM";
  if (family == "qwen2") return "Qwen2ForCausalLM";
  if (family == "qwen3") return "Qwen3ForCausalLM";
  return "SparsamForCausalLM";
}

}  // namespace

namespace {

Json family_json(const Config& config) {
  const auto shared = shared_layer(config);
  if (shared && is_gpt2(config, *shared)) return gpt2_json(config, *shared);
  const std::string known = shared ? llama_family(config, *shared) : "", family = known.empty() ? "sparsam" : known;
  Json json{{"architectures", {class_of(family, config)}},
            {"model_type", family},
            {"vocab_size", config.vocab},
            {"hidden_size", config.dim},
            {"max_position_embeddings", config.context},
            {"num_hidden_layers", config.layers.size()},
            {"tie_word_embeddings", config.tied},
            {"torch_dtype", "float32"}};
  for (size_t i = 0; i < config.labels.size(); ++i) {
    json["id2label"][std::to_string(i)] = config.labels[i];
    json["label2id"][config.labels[i]] = i;
  }
  if (known.empty())
    json["sparsam"] = description_json(config);
  else
    json.update(llama_json(config, *shared, family));
  return json;
}

}  // namespace

Json to_json(const Config& config) {
  Json json = family_json(config);
  if (!config.truncation.empty()) json["sparsam"]["truncation"] = truncation_json(config.truncation);
  if (config.inputs.active()) json["sparsam"]["inputs"] = inputs_json(config.inputs);
  if (!config.crossovers.empty()) json["sparsam"]["crossovers"] = crossovers_json(config.crossovers);
  return json;
}

}  // namespace sparsam
