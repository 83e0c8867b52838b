// The one description of a model. It is per layer, since levers make layers differ; a dropped half-layer is monostate.
// Letters as in ops/ops.h.
#pragma once

#include <array>
#include <string>
#include <variant>
#include <vector>

#include "base/types.h"
#include "formats/json.h"
#include "ops/activation.h"
#include "ops/rope.h"
#include "ops/token_scores.h"
#include "tensor/dtype.h"

namespace sparsam {

enum class NormKind : u8 { rms, layer };
enum class Mixer : u8 { softmax, lse };
enum class Positions : u8 {
  rotary,
  learned,
  none,
  recurrent,  // a log-space recurrence of each channel over the embeddings is added to them (ops/log_recurrence.h)
};
enum class Residual : u8 {
  sequential,  // x + attention(norm x), then x + mlp(norm x)
  parallel,    // x + attention(norm x) + mlp(norm' x)
};

// Neurons of an MLP, or parameter tokens, that are left out because they contribute too little (ops/truncate.h).
struct Truncation {
  enum class Measure : u8 {
    output,  // |h_i| |Wdown[:, i]|, the length of what the neuron adds (arXiv 2411.02335); of tokens |s_i| |V_i|
    gate,    // |f(gate_i)|, in a plain MLP |f(up_i)|; of tokens |s_i|
  };
  Measure measure = Measure::output;
  float threshold = 0;
  i64 keep = 0;  // at most so many, the greatest; 0: all
  bool active() const { return threshold > 0 || keep > 0; }
  bool operator==(const Truncation&) const = default;
};

// Blocks of neighbouring parameter tokens, of which each position reads those whose mean key has the greatest product
// with its input; scores of the others count as 0, under the norm of all (model/key_blocks.h). The last may be smaller.
struct TokenBlocks {
  i64 size = 0;  // tokens of a block; 0: none, all tokens are read
  i64 read = 0;  // blocks
  bool active() const { return size > 0; }
  i64 count(i64 tokens) const { return (tokens + size - 1) / size; }
  bool operator==(const TokenBlocks&) const = default;
};

// Attention to parameter tokens (Pattention) in place of a matrix or of a whole MLP: O = Theta(X K^T) V over P keys and
// values (TokenFormer, arXiv 2410.23168, equation 4; ops/token_scores.h).
struct ParameterTokens {
  i64 tokens = 0;  // P
  float tau = 0;   // as published sqrt(P); a grown model keeps that of its first size, and so its function
  Theta theta = Theta::l2_gelu;
  i64 old = 0;     // of a grown model: the first tokens, which it had before; 0: it was not grown
  float mask = 1;  // c of the others (ops/token_scores.h), which training moves from 0 to 1; then tau is as given
  float effective_tau() const;  // tau^2 (n + c^2 m) / (n + m) of n old and m other tokens, as a square
  Truncation truncation = {};
  TokenBlocks blocks = {};  // of l2_gelu without a mask
  bool present() const { return tokens != 0; }
  bool operator==(const ParameterTokens&) const = default;
};

// Causal softmax attention: H query heads read G key-value heads (G = H: multi-head, 1 < G < H: grouped, G = 1:
// multi-query).
struct SoftmaxAttention {
  i64 heads = 0, kv_heads = 0, head_dim = 0;
  bool qkv_bias = false, out_bias = false;
  bool qk_norm = false;     // RMS norm with gain over each head of q and k, before the rotation (Qwen3)
  i64 window = 0;           // keys that a query sees, its own included; 0: all before it
  bool inner_norm = false;  // a norm of the heads' outputs before the output projection (BitNet)
  i64 convolution = 0;      // taps of a depthwise convolution of q, k and v over the past; 0: none
  ParameterTokens q = {}, k = {}, v = {}, o = {};  // in place of these matrices, where present; they have no bias
  bool operator==(const SoftmaxAttention&) const = default;
};
// Attention at constant cost per token: log-sum-exp attention (ops/log_attention.h; Heinsen 2024, arXiv 2404.05843) of
// H query heads over the states of G key-value heads, whose size does not depend on how many tokens came. The defaults
// are that function with signed values; with `log_values` it is the form of the published results.
struct LogSumExpAttention {
  i64 heads = 0, kv_heads = 0, head_dim = 0;  // head_dim: channels of a query or key, E
  i64 value_dim = 0;                          // channels of a value, D; 0: head_dim
  bool qkv_bias = false, out_bias = false;
  bool log_values = false;  // values and what comes out are logarithms
  float key_cap = 0;        // keys become cap tanh(k / cap); 0: no limit
  bool head_scale = false;  // a learned factor of each head's q and k
  float initial_scale = 1;  // with which these factors begin
  bool decay = false;       // a learned decay of each channel of the state at each token
  i64 convolution = 0;      // taps of a depthwise convolution of q, k and v over the past; 0: none
  i64 window = 0;           // tokens of exact softmax attention, mixed with the state by a learned share; 0: none
  // The weights of window and state have one sum, and the state takes in only what has left the window (LoLCATs, Zhang
  // et al. 2024, arXiv 2410.10254, equation 7): the form into which softmax attention is converted.
  bool shared_window = false;
  // Channels of the state's queries and keys, which then are learned maps of each head's q and k, turned by their
  // positions; 0: q and k themselves, not turned.
  i64 feature_dim = 0;
  bool output_glu = false;  // the output projection is o(up a * sigmoid(gate a)), as in the published model
  i64 values_of_head() const { return value_dim ? value_dim : head_dim; }
  i64 features() const { return feature_dim ? feature_dim : head_dim; }
  i64 state_elements() const;  // of one session: numbers in f32, and of the window's cache two for each position
  bool operator==(const LogSumExpAttention&) const = default;
};
struct Mlp {  // down(f(up x))
  i64 hidden = 0;
  Function activation = Function::gelu_tanh;
  bool bias = false;
  float threshold = 0;  // of fatrelu
  bool operator==(const Mlp&) const = default;
};
struct GatedMlp {  // down(f(gate x) * g(up x))
  i64 hidden = 0;
  Function activation = Function::silu;
  bool bias = false;
  bool activate_up = false;  // g is f; else the identity. With relu: dReLU
  bool inner_norm = false;   // a norm of the product before the down projection (BitNet)
  float threshold = 0;       // of fatrelu
  bool operator==(const GatedMlp&) const = default;
};

// Inputs of a layer's projections that are left out because they are small: x_j counts unless |x_j| is below the
// threshold of the vector it belongs to (TEAL, Liu et al. 2024, arXiv 2408.14690). 0: all of them count.
struct InputThresholds {
  float qkv = 0, o = 0, up = 0, down = 0;  // what q, k and v read; what o reads; gate and up; down
  bool active() const { return qkv > 0 || o > 0 || up > 0 || down > 0; }
  bool operator==(const InputThresholds&) const = default;
  // The only list of these names.
  static void fields(auto&& f, auto&... t) {
    f("qkv", t.qkv...), f("o", t.o...), f("up", t.up...), f("down", t.down...);
  }
};
struct InputSparsity {
  std::vector<InputThresholds> layers = {};  // (L) or empty: none
  i64 dense_positions = 0;                   // the first positions of a sequence leave nothing out
  bool active() const { return !layers.empty(); }
  bool operator==(const InputSparsity&) const = default;
};

struct Layer {
  std::variant<std::monostate, SoftmaxAttention, LogSumExpAttention> mixer;  // monostate: dropped
  // monostate: dropped; ParameterTokens: the whole feed-forward
  std::variant<std::monostate, Mlp, GatedMlp, ParameterTokens> mlp;
  bool operator==(const Layer&) const = default;
};

struct Norm {
  NormKind kind = NormKind::rms;
  bool gain = true, bias = false;
  float eps = 1e-5f;
  bool operator==(const Norm&) const = default;
};

// How the rotary frequencies f_i = base^(-2 i / R) change for contexts longer than those trained for. As in
// transformers' modeling_rope_utils.py.
struct LinearScaling {  // f / factor (Chen et al. 2023, arXiv 2306.15595)
  float factor = 1;
  bool operator==(const LinearScaling&) const = default;
};
struct Llama3Scaling {  // long waves f / factor, short ones as they are, between them a mixture
  float factor = 8, low_frequency_factor = 1, high_frequency_factor = 4;
  i64 original_context = 8192;
  bool operator==(const Llama3Scaling&) const = default;
};
struct YarnScaling {  // Peng et al. 2023, arXiv 2309.00071
  float factor = 1, beta_fast = 32, beta_slow = 1;
  float attention_factor = 1;  // stretches q and k
  bool truncate = true;        // the ends of the ramp are whole numbers
  i64 original_context = 0;
  bool operator==(const YarnScaling&) const = default;
};
struct FactorScaling {         // f_i / factors_i: GGUF's rope_freqs
  std::vector<float> factors;  // (R/2)
  bool operator==(const FactorScaling&) const = default;
};
using RotaryScaling = std::variant<std::monostate, LinearScaling, Llama3Scaling, YarnScaling, FactorScaling>;

struct Rotary {
  float base = 10000;
  i64 channels = 0;  // R: turned channels of each head; 0: all of them
  Pairing pairing = Pairing::halves;
  RotaryScaling scaling = {};
  bool operator==(const Rotary&) const = default;
};

// From which fraction of what counts on a weight of one shape and number format is read as a whole in decoding, as it
// was measured: for one row and for several (model/crossover.h).
struct Crossover {
  DType dtype = DType::f32;
  i64 rows = 0, cols = 0;
  std::array<float, 2> fractions{1, 1};
  bool operator==(const Crossover&) const = default;
};

struct Config {
  i64 vocab = 0, dim = 0;
  bool causal = true;                    // tokens see those before them; else an encoder, whose tokens see all
  std::vector<std::string> labels = {};  // of a classifier: its head reads the mean of the last hidden states
  i64 context = 0;                       // positions trained for; learned positions: the size of the table
  Norm norm = {};
  bool final_affine = false;  // the final norm has a gain, a layer norm also a bias, whatever the others have
  Positions positions = Positions::rotary;
  Rotary rotary = {};
  Residual residual = Residual::sequential;
  bool tied = true;                                              // the head is the token embedding
  float embedding_scale = 1, branch_scale = 1, logit_scale = 1;  // of the token embeddings, each sublayer, the logits
  std::vector<Layer> layers = {};
  std::vector<Truncation> truncation = {};  // (L) of the layers' MLPs of neurons; empty: none
  InputSparsity inputs = {};                // of the projections
  // Of weights whose live inputs alone are read, where it was measured as thresholds were chosen. It stays with the
  // model, since both ways of reading add in different orders: results repeat bit for bit.
  std::vector<Crossover> crossovers = {};
  bool operator==(const Config&) const = default;
};

// A model whose layers are all alike, in the few numbers that a person gives. Zero means: derived.
struct Architecture {
  i64 vocab = 0, context = 256, layers = 0, dim = 0, heads = 0, kv_heads = 0, head_dim = 0, hidden = 0;
  bool mlp = true, gated = true;
  Function activation = Function::silu;
  float activation_threshold = 0;
  bool activate_up = false;
  Mixer mixer = Mixer::softmax;
  i64 softmax_every = 0, value_dim = 0, feature_dim = 0, convolution = 0;
  bool log_values = false, head_scale = false, decay = false, shared_window = false, output_glu = false;
  float key_cap = 0, initial_scale = 1;
  i64 attention_tokens = 0, mlp_tokens = 0;
  Theta theta = Theta::l2_gelu;
  i64 window = 0;
  NormKind norm = NormKind::rms;
  bool norm_gain = true, norm_bias = false, final_affine = false;
  float norm_eps = 1e-5f;
  Positions positions = Positions::rotary;
  float rope_base = 10000;
  i64 rotary_channels = 0;
  Pairing pairing = Pairing::halves;
  Residual residual = Residual::sequential;
  bool qkv_bias = false, out_bias = false, mlp_bias = false, qk_norm = false, tied = true;

  // The only list of these fields: flags of `train`, help and manifests are made from it.
  static void fields(auto&& f, auto&... a) {
    f("vocab", "size of the vocabulary", a.vocab...);
    f("context", "positions trained for, T", a.context...);
    f("layers", "number of layers, L", a.layers...);
    f("dim", "channels of the residual stream, C", a.dim...);
    f("heads", "query heads, H", a.heads...);
    f("kv-heads", "key-value heads, G (0: as many as query heads)", a.kv_heads...);
    f("head-dim", "channels of a head, D (0: dim / heads)", a.head_dim...);
    f("hidden", "hidden channels of the MLP, F (0: 4 dim, gated: 8/3 dim rounded up to 64)", a.hidden...);
    f("mlp", "layers have an MLP", a.mlp...);
    f("gated", "gated MLP: down(f(gate x) * up x)", a.gated...);
    f("activation", "activation function of the MLP", a.activation...);
    f("activation-threshold", "threshold of fatrelu", a.activation_threshold...);
    f("activate-up", "a gated MLP activates both branches, with relu: dReLU", a.activate_up...);
    f("attention-tokens", "parameter tokens in place of each matrix of the attention (0: matrices)",
      a.attention_tokens...);
    f("mlp-tokens", "parameter tokens in place of the MLP (0: an MLP)", a.mlp_tokens...);
    f("theta", "function of the parameter tokens' scores", a.theta...);
    f("window", "keys that a query sees, its own included (0: all before it); of lse: of exact attention (0: none)",
      a.window...);
    f("mixer", "softmax attention, or lse: log-sum-exp attention with a state of fixed size", a.mixer...);
    f("softmax-every", "with lse, every so many layers one has softmax attention (0: none)", a.softmax_every...);
    f("value-dim", "lse: channels of a value head (0: those of a key)", a.value_dim...);
    f("log-values", "lse: values and results are logarithms, the published form", a.log_values...);
    f("key-cap", "lse: soft limit of keys, cap tanh(k / cap) (0: none)", a.key_cap...);
    f("head-scale", "lse: a learned factor of each head's queries and keys", a.head_scale...);
    f("initial-scale", "lse: with what the factors of --head-scale begin", a.initial_scale...);
    f("decay", "lse: a learned decay of each channel of the state", a.decay...);
    f("shared-window", "lse: one sum of weights of window and state, which takes in what left the window",
      a.shared_window...);
    f("feature-dim", "lse: channels of the state's keys, learned maps of each head (0: the heads themselves)",
      a.feature_dim...);
    f("output-glu", "lse: a gated output projection, as in the published model", a.output_glu...);
    f("convolution", "taps of a convolution of q, k and v over the past (0: none)", a.convolution...);
    f("norm", "kind of normalisation", a.norm...);
    f("norm-gain", "norms have a gain", a.norm_gain...);
    f("norm-bias", "norms have a bias (layer norm only)", a.norm_bias...);
    f("final-affine", "the final norm has a gain, a layer norm also a bias, whatever the others have",
      a.final_affine...);
    f("norm-eps", "epsilon of the norms", a.norm_eps...);
    f("positions", "how positions enter", a.positions...);
    f("rope-base", "base of the rotary frequencies", a.rope_base...);
    f("rotary-channels", "turned channels of each head (0: all)", a.rotary_channels...);
    f("pairing", "which channels the rotation pairs", a.pairing...);
    f("residual", "attention and MLP one after the other, or side by side", a.residual...);
    f("qkv-bias", "biases of the query, key and value projections", a.qkv_bias...);
    f("out-bias", "bias of the attention's output projection", a.out_bias...);
    f("mlp-bias", "biases of the MLP", a.mlp_bias...);
    f("qk-norm", "RMS norm of each head of q and k", a.qk_norm...);
    f("tied", "the head is the token embedding", a.tied...);
  }
};

// Checks every field against the others; a value that cannot be is an Error that names the field and `where`.
void validate(const Config& config, const std::string& where);
Config make_config(const Architecture& architecture);  // Error (usage) on values that do not fit together

// Presets of `train`: nano 0.5 M, micro 3 M, mini 12 M, small 29 M, gpt2 124 M parameters (at their vocabulary), and
// TokenFormer's shape at such sizes and at those published.
Architecture preset(std::string_view name);  // Error (usage) with the known names
std::vector<std::string> preset_names();

// Names of the closed lists, in the order of the enumerators; enum_from_name refuses others by name.
template <class E>
std::vector<std::string> enum_names();
template <class E>
E enum_from_name(std::string_view name, std::string_view where);
template <class E>
std::string enum_name(E value) {
  return enum_names<E>()[static_cast<size_t>(value)];
}

// config.json as Hugging Face writes it. A description that Llama can express is written as LlamaForCausalLM; what it
// cannot say goes under the key "sparsam". Unknown architectures, fields under "sparsam" and values are refused by
// name.
Json to_json(const Config& config);
Config config_from_json(const Json& json, const std::string& where);

// Predicts the next token; others are classifiers and encoders that predict tokens hidden from them.
inline bool is_language_model(const Config& config) { return config.causal && config.labels.empty(); }
// Error where the model is none: "MODEL: a classifier; expected ...".
void require_language_model(const Config& config, const std::string& where);

// What a description costs.
i64 parameter_count(const Config& config);
i64 embedding_parameter_count(const Config& config);           // token and position tables, and the head when untied
i64 cache_elements_per_token(const Config& config);            // keys and values of all layers of softmax attention
bool keeps_all(const Config& config);                          // sessions remember every token, and so go back to any
i64 state_elements(const Config& config);                      // numbers of constant-cost layers, whatever the length
double flops_per_token(const Config& config, double context);  // forward; training is three times this
bool has_attention(const Layer& layer);
bool has_mlp(const Layer& layer);
bool has_parameter_tokens(const Layer& layer);
bool leaves_out(const Config& config);     // neurons, parameter tokens or inputs, by thresholds or blocks
Config without_thresholds(Config config);  // and without blocks
i64 rotated_head_dim(const Layer& layer);  // channels of the heads that rotary positions turn; 0: none are turned

}  // namespace sparsam
