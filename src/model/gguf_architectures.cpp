#include "model/gguf_architectures.h"

#include <array>
#include <cmath>
#include <utility>
#include <vector>

namespace sparsam {

namespace {

using Biases = GgufArchitecture::Biases;
constexpr GgufArchitecture architectures[] = {
    {.name = "llama",
     .pairing = Pairing::interleaved,
     .rope_factors = true,
     .free_heads = true,
     .biases = Biases::some},
    {.name = "qwen2"},
    {.name = "qwen3", .qk_norm = true, .free_heads = true},
    {.name = "gemma", .activation = Function::gelu_tanh, .scaled_embedding = true, .free_heads = true},
    {.name = "phi3", .partial_rotary = true, .fused_qkv = true, .fused_gate_up = true, .rope_factors = true},
    {.name = "deci",
     .pairing = Pairing::interleaved,
     .layers_differ = true,
     .rope_factors = true,
     .free_heads = true,
     .biases = Biases::some},
    {.name = "gpt2",
     .norm = NormKind::layer,
     .positions = Positions::learned,
     .gated = false,
     .activation = Function::gelu_tanh,
     .fused_qkv = true,
     .biases = Biases::all},
    {.name = "gptneox",  // llama.cpp computes GELU with tanh here too, where Hugging Face has the error function
     .norm = NormKind::layer,
     .partial_rotary = true,
     .gated = false,
     .activation = Function::gelu_tanh,
     .fused_qkv = true,
     .biases = Biases::all},
};

constexpr std::pair<std::string_view, std::string_view> whole_names[] = {{"model.embed_tokens.", "token_embd."},
                                                                         {"model.embed_positions.", "position_embd."},
                                                                         {"model.norm.", "output_norm."},
                                                                         {"lm_head.", "output."}};
constexpr std::pair<std::string_view, std::string_view> layer_names[] = {
    {"input_layernorm.", "attn_norm."},    {"self_attn.q_proj.", "attn_q."},
    {"self_attn.k_proj.", "attn_k."},      {"self_attn.v_proj.", "attn_v."},
    {"self_attn.o_proj.", "attn_output."}, {"self_attn.q_norm.", "attn_q_norm."},
    {"self_attn.k_norm.", "attn_k_norm."}, {"post_attention_layernorm.", "ffn_norm."},
    {"mlp.gate_proj.", "ffn_gate."},       {"mlp.up_proj.", "ffn_up."},
    {"mlp.down_proj.", "ffn_down."}};

std::optional<std::string> translate(std::string_view name, auto& names) {
  for (const auto& [ours, theirs] : names)
    if (name.starts_with(ours)) return std::string(theirs).append(name.substr(ours.size()));
  return std::nullopt;
}

}  // namespace

std::span<const GgufArchitecture> gguf_architectures() { return architectures; }

const GgufArchitecture& gguf_architecture(std::string_view name, std::string_view where) {
  std::vector<std::string> known;
  for (const GgufArchitecture& architecture : architectures) {
    if (architecture.name == name) return architecture;
    known.emplace_back(architecture.name);
  }
  fail_unknown("architecture", printable(name), known, where);
}

std::optional<std::string> gguf_tensor_name(std::string_view parameter) {
  constexpr std::string_view layers = "model.layers.";
  if (!parameter.starts_with(layers)) return translate(parameter, whole_names);
  const size_t after = parameter.find('.', layers.size()) + 1;
  const auto name = translate(parameter.substr(after), layer_names);
  if (!name) return std::nullopt;
  return std::string("blk.").append(parameter.substr(layers.size(), after - layers.size())).append(*name);
}

float yarn_stretch(float factor) { return factor > 1 ? 0.1f * std::log(factor) + 1 : 1; }

}  // namespace sparsam
