// The parameters of a model, as one struct template: T is a stored weight, a gradient, a moment, a shape, a file entry.
// visit() walks any number of them in step and is the only list of the names, which are those that Hugging Face gives a
// Llama model, so that files need no translation. An absent tensor is an empty T.
#pragma once

#include <string>
#include <vector>

#include "model/config.h"
#include "tensor/matrix.h"

namespace sparsam {

template <class T>
struct NormParams {
  T gain, bias;  // (C)
  static void visit(const std::string& at, auto&& f, auto&... p) {
    f(at + ".weight", p.gain...), f(at + ".bias", p.bias...);
  }
};

template <class T>
struct LinearParams {
  T weight, bias;  // (out, in), (out)
  static void visit(const std::string& at, auto&& f, auto&... p) {
    f(at + ".weight", p.weight...), f(at + ".bias", p.bias...);
  }
};

// Parameter tokens. Values lie as the weight of a Linear does: one output a row.
template <class T>
struct TokenParams {
  T keys, values;  // (P, in), (out, P)
  static void visit(const std::string& at, auto&& f, auto&... p) {
    f(at + ".keys", p.keys...), f(at + ".values", p.values...);
  }
};

// One of the two.
template <class T>
struct ProjectionParams : LinearParams<T> {
  TokenParams<T> tokens;
  static void visit(const std::string& at, auto&& f, auto&... p) {
    LinearParams<T>::visit(at, f, p...);
    TokenParams<T>::visit(at, f, p.tokens...);
  }
};

template <class T>
struct AttentionParams {
  NormParams<T> norm;
  ProjectionParams<T> q, k, v, o;  // (H D, C), (G D, C), (G D, C), (C, H D)
  NormParams<T> q_norm, k_norm;    // (D)
  NormParams<T> inner_norm;        // (H D)
  T q_conv, k_conv, v_conv;        // (channels taps)
  // Of log-sum-exp attention, whose q, k, v, o are (H E, C), (G E, C), (G D, C), (C, H D). F: features.
  LinearParams<T> decay;                   // (G F, C)
  T q_map, k_map;                          // (H F E), (G F E)
  T q_scale, k_scale;                      // (H), (G)
  T state_logit;                           // (H)  of the state's share beside the window's
  LinearParams<T> output_gate, output_up;  // (C, H D); then o is (C, C)
  static void visit(const std::string& at, auto&& f, auto&... p) {
    NormParams<T>::visit(at + "input_layernorm", f, p.norm...);
    ProjectionParams<T>::visit(at + "self_attn.q_proj", f, p.q...);
    ProjectionParams<T>::visit(at + "self_attn.k_proj", f, p.k...);
    ProjectionParams<T>::visit(at + "self_attn.v_proj", f, p.v...);
    ProjectionParams<T>::visit(at + "self_attn.o_proj", f, p.o...);
    NormParams<T>::visit(at + "self_attn.q_norm", f, p.q_norm...);
    NormParams<T>::visit(at + "self_attn.k_norm", f, p.k_norm...);
    NormParams<T>::visit(at + "self_attn.attn_sub_norm", f, p.inner_norm...);
    LinearParams<T>::visit(at + "self_attn.decay_proj", f, p.decay...);
    f(at + "self_attn.q_conv", p.q_conv...), f(at + "self_attn.k_conv", p.k_conv...);
    f(at + "self_attn.v_conv", p.v_conv...);
    f(at + "self_attn.q_map", p.q_map...), f(at + "self_attn.k_map", p.k_map...);
    f(at + "self_attn.q_scale", p.q_scale...), f(at + "self_attn.k_scale", p.k_scale...);
    f(at + "self_attn.state_logit", p.state_logit...);
    LinearParams<T>::visit(at + "self_attn.output_gate", f, p.output_gate...);
    LinearParams<T>::visit(at + "self_attn.output_up", f, p.output_up...);
  }
};

template <class T>
struct MlpParams {
  NormParams<T> norm;
  LinearParams<T> gate, up, down;  // (F, C), (F, C), (C, F); gate only in a gated MLP
  NormParams<T> inner_norm;        // (F)
  TokenParams<T> tokens;           // in place of all three
  static void visit(const std::string& at, auto&& f, auto&... p) {
    NormParams<T>::visit(at + "post_attention_layernorm", f, p.norm...);
    LinearParams<T>::visit(at + "mlp.gate_proj", f, p.gate...);
    LinearParams<T>::visit(at + "mlp.up_proj", f, p.up...);
    LinearParams<T>::visit(at + "mlp.down_proj", f, p.down...);
    NormParams<T>::visit(at + "mlp.ffn_sub_norm", f, p.inner_norm...);
    TokenParams<T>::visit(at + "mlp", f, p.tokens...);
  }
};

template <class T>
struct LayerParams {
  AttentionParams<T> attention;
  MlpParams<T> mlp;
  static void visit(const std::string& at, auto&& f, auto&... p) {
    AttentionParams<T>::visit(at, f, p.attention...);
    MlpParams<T>::visit(at, f, p.mlp...);
  }
};

template <class T>
struct Params {
  T token_embedding;                                     // (V, C)
  T position_embedding;                                  // (context, C)  learned positions only
  LinearParams<T> position_coefficient, position_input;  // (C, C)  recurrent positions only
  std::vector<LayerParams<T>> layers;
  NormParams<T> final_norm;
  T head;   // (V, C)  untied only
  T score;  // (classes, C)  of a classifier, which has no other head

  static void visit(auto&& f, auto&... p) {
    f("model.embed_tokens.weight", p.token_embedding...);
    f("model.embed_positions.weight", p.position_embedding...);
    LinearParams<T>::visit("model.position_coefficient", f, p.position_coefficient...);
    LinearParams<T>::visit("model.position_input", f, p.position_input...);
    const size_t layers = std::get<0>(std::tie(p...)).layers.size();
    for (size_t i = 0; i < layers; ++i) LayerParams<T>::visit(fmt::format("model.layers.{}.", i), f, p.layers[i]...);
    NormParams<T>::visit("model.norm", f, p.final_norm...);
    f("lm_head.weight", p.head...);
    f("score.weight", p.score...);
  }
};

// Shape and initialisation of one parameter. A vector has rows = 1 and is stored with one axis.
struct ParameterSpec {
  enum class Init : u8 {
    zeros,
    constant,
    normal,
    convolution,   // of each channel K taps that with its input make a random convolution: normal, the last less 1
    feature_maps,  // of each head (F, E): the identity, minus the identity, and so on in turn
  };
  i64 rows = 0, cols = 0;
  bool is_vector = false;
  Init init = Init::normal;
  float deviation = 0;             // of normal and convolution
  i64 taps = 0;                    // of convolution: K
  i64 features = 0, channels = 0;  // of feature_maps: F, E
  float value = 1;                 // of constant

  bool present() const { return rows > 0; }
  i64 size() const { return rows * cols; }
};

// Which parameters a description has, and their shapes: the single place that decides.
Params<ParameterSpec> parameter_specs(const Config& config);

// What predicts from the last hidden states: one of the parameters above.
template <class T>
const T& head_of(const Config& config, const Params<T>& params) {
  if (!config.labels.empty()) return params.score;
  return config.tied ? params.token_embedding : params.head;
}

// A Params of another kind with the same layers, each T empty.
template <class T>
Params<T> empty_params(const Config& config) {
  Params<T> params;
  params.layers.resize(config.layers.size());
  return params;
}

namespace detail {
template <class F>
struct PresentOnly {
  F& f;
  void operator()(const std::string& name, const ParameterSpec& spec, auto&... p) const {
    if (spec.present()) f(name, spec, p...);
  }
};
}  // namespace detail

// Calls f(name, spec, p...) for every parameter that is present; the p may be of different kinds.
void for_each_parameter(const Params<ParameterSpec>& specs, auto&& f, auto&... p) {
  detail::PresentOnly<std::remove_reference_t<decltype(f)>> present{f};
  Params<ParameterSpec>::visit(present, specs, p...);
}

}  // namespace sparsam
