// What GGUF's architectures fix, shared by the reader and the writer: facts that a file need not say, names of tensors.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "model/config.h"

namespace sparsam {

struct GgufArchitecture {
  enum class Biases : u8 { some, queries, all };  // any or none; q, k and v or none; every linear map has one
  const char* name;
  NormKind norm = NormKind::rms;
  Positions positions = Positions::rotary;
  Pairing pairing = Pairing::halves;
  bool partial_rotary = false;  // the rotation may turn fewer channels than a head has
  bool gated = true;
  Function activation = Function::silu;
  bool qk_norm = false;
  bool fused_qkv = false;      // attn_qkv holds the rows of q, k and v (others may do so too, but are not written so)
  bool fused_gate_up = false;  // ffn_up holds the rows of gate and up
  bool layers_differ = false;  // head counts and widths a layer, 0 heads: no attention
  bool scaled_embedding = false;  // by sqrt(dim)
  bool rope_factors = false;      // reads rope_freqs.weight
  bool free_heads = false;        // the channels of all heads may be more or fewer than the model's
  Biases biases = Biases::queries;

  bool norm_bias() const { return norm == NormKind::layer; }
};

std::span<const GgufArchitecture> gguf_architectures();
const GgufArchitecture& gguf_architecture(std::string_view name, std::string_view where);  // Error with the known ones

// The name in GGUF of a parameter by its name in Params: "model.layers.3.mlp.up_proj.weight" -> "blk.3.ffn_up.weight".
// Nothing for one that GGUF does not have.
std::optional<std::string> gguf_tensor_name(std::string_view parameter);

// The frequencies by which GGUF's rope_freqs.weight divides (R/2): those of Llama 3's scaling, and any others that are
// not linear or YaRN's.
inline constexpr const char* gguf_rope_factors = "rope_freqs.weight";

// YaRN's stretch of q and k for a factor when nothing else is said: 0.1 log(factor) + 1.
float yarn_stretch(float factor);

}  // namespace sparsam
