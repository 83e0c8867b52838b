// Models whose layers are all alike, from a few numbers, and those that have a name.
#include <cmath>
#include <utility>

#include "model/config.h"

namespace sparsam {

namespace {

// Softmax attention becomes log-sum-exp attention, but in the last of every `softmax_every` layers.
void make_constant_cost(Config& config, const Architecture& a) {
  for (size_t i = 0; i < config.layers.size(); ++i) {
    auto& mixer = config.layers[i].mixer;
    SoftmaxAttention& attention = std::get<SoftmaxAttention>(mixer);
    if (a.softmax_every != 0 && (static_cast<i64>(i) + 1) % a.softmax_every == 0) {
      attention.window = 0;
      continue;
    }
    mixer = LogSumExpAttention{.heads = attention.heads,
                               .kv_heads = attention.kv_heads,
                               .head_dim = attention.head_dim,
                               .value_dim = a.value_dim,
                               .qkv_bias = a.qkv_bias,
                               .out_bias = a.out_bias,
                               .log_values = a.log_values,
                               .key_cap = a.key_cap,
                               .head_scale = a.head_scale,
                               .initial_scale = a.initial_scale,
                               .decay = a.decay,
                               .convolution = a.convolution,
                               .window = a.window,
                               .shared_window = a.shared_window,
                               .feature_dim = a.feature_dim,
                               .output_glu = a.output_glu};
  }
}

}  // namespace

Config make_config(const Architecture& a) {
  const auto positive = [](const char* flag, i64 value) {
    if (value <= 0) fail_usage("--{} is {}, expected 1 or more", flag, value);
  };
  positive("vocab", a.vocab), positive("context", a.context), positive("dim", a.dim), positive("heads", a.heads);
  if (a.activate_up && !a.gated) fail_usage("--activate-up needs a gated MLP");
  if (a.mlp_tokens != 0 && a.hidden != 0) fail_usage("--hidden is of an MLP: give it without --mlp-tokens");
  if (a.mixer == Mixer::softmax &&
      (a.softmax_every || a.value_dim || a.feature_dim || a.log_values || a.head_scale || a.initial_scale != 1 ||
       a.decay || a.key_cap != 0 || a.shared_window || a.output_glu))
    fail_usage(
        "--softmax-every, --value-dim, --feature-dim, --log-values, --head-scale, --initial-scale, --decay, --key-cap, "
        "--shared-window and --output-glu are options of --mixer lse");
  if (a.mixer == Mixer::lse && (a.qk_norm || a.attention_tokens))
    fail_usage("--qk-norm and --attention-tokens are options of softmax attention, not of --mixer lse");
  if (a.softmax_every < 0) fail_usage("--softmax-every is {}, expected 0 or more", a.softmax_every);
  if (a.layers < 0) fail_usage("--layers is {}, expected 0 or more", a.layers);
  if (a.head_dim == 0 && a.dim % a.heads != 0)
    fail_usage("--dim {} is not a multiple of --heads {}; give --head-dim", a.dim, a.heads);
  constexpr i64 rounding = 64;  // a gated MLP of 8/3 dim has as many parameters as a plain one of 4 dim
  const i64 gated_hidden = (8 * a.dim / 3 + rounding - 1) / rounding * rounding;
  const i64 hidden = a.hidden ? a.hidden : a.gated ? gated_hidden : 4 * a.dim;

  Config config;
  config.vocab = a.vocab, config.dim = a.dim, config.context = a.context;
  config.norm = {a.norm, a.norm_gain, a.norm_bias, a.norm_eps};
  config.final_affine = a.final_affine;
  config.positions = a.positions;
  config.rotary = {a.rope_base, a.rotary_channels, a.pairing};
  config.residual = a.residual;
  config.tied = a.tied;
  Layer layer{.mixer = SoftmaxAttention{.heads = a.heads,
                                        .kv_heads = a.kv_heads ? a.kv_heads : a.heads,
                                        .head_dim = a.head_dim ? a.head_dim : a.dim / a.heads,
                                        .qkv_bias = a.qkv_bias,
                                        .out_bias = a.out_bias,
                                        .qk_norm = a.qk_norm,
                                        .window = a.window,
                                        .convolution = a.convolution},
              .mlp = {}};
  const auto tokens = [&](i64 count) { return ParameterTokens{count, std::sqrt(static_cast<float>(count)), a.theta}; };
  if (a.attention_tokens != 0) {
    auto& attention = std::get<SoftmaxAttention>(layer.mixer);
    attention.q = attention.k = attention.v = attention.o = tokens(a.attention_tokens);
  }
  if (!a.mlp)
    layer.mlp = std::monostate();
  else if (a.mlp_tokens != 0)
    layer.mlp = tokens(a.mlp_tokens);
  else if (a.gated)
    layer.mlp = GatedMlp{.hidden = hidden,
                         .activation = a.activation,
                         .bias = a.mlp_bias,
                         .activate_up = a.activate_up,
                         .threshold = a.activation_threshold};
  else
    layer.mlp = Mlp{hidden, a.activation, a.mlp_bias, a.activation_threshold};
  config.layers.assign(static_cast<size_t>(a.layers), layer);
  if (a.mixer == Mixer::lse) make_constant_cost(config, a);
  try {
    validate(config, "model");
  } catch (const Error& error) {
    throw Error(error.what(), Exit::usage);
  }
  return config;
}

namespace {

// TokenFormer's shape. At P = C and 4 C it has 4/3 of a transformer's parameters, at the 3/4 of that which is also the
// published 124M's equally many.
Architecture tokenformer(i64 vocab, i64 context, i64 layers, i64 dim, i64 heads, i64 attention_tokens, i64 mlp_tokens) {
  return {.vocab = vocab,
          .context = context,
          .layers = layers,
          .dim = dim,
          .heads = heads,
          .attention_tokens = attention_tokens,
          .mlp_tokens = mlp_tokens,
          .norm = NormKind::layer,
          .norm_gain = false,
          .final_affine = true,
          .rotary_channels = dim / heads / 4};
}

// The language model published with arXiv 2404.05843: no MLPs, but a gated output projection of attention whose values
// are logarithms, and positions from a recurrence.
Architecture published(i64 vocab, i64 context, i64 layers, i64 dim, i64 heads) {
  return {.vocab = vocab,
          .context = context,
          .layers = layers,
          .dim = dim,
          .heads = heads,
          .mlp = false,
          .mixer = Mixer::lse,
          .log_values = true,
          .output_glu = true,
          .norm = NormKind::layer,
          .norm_bias = true,
          .positions = Positions::recurrent,
          .qkv_bias = true};
}

// A shape with attention at constant cost: decay and convolution, the best that was measured (docs/lse.md).
Architecture constant_cost(Architecture a) {
  a.mixer = Mixer::lse, a.decay = true, a.convolution = 4;
  return a;
}

// Llama's shape at four sizes and GPT-2's. Parameters at the preset's own vocabulary: 0.5, 3, 12, 29 and 124 M.
const std::vector<std::pair<std::string, Architecture>>& presets() {
  static const std::vector<std::pair<std::string, Architecture>> list{
      {"nano", {.vocab = 1024, .context = 128, .layers = 4, .dim = 96, .heads = 3}},
      {"micro", {.vocab = 2048, .context = 256, .layers = 6, .dim = 192, .heads = 6}},
      {"mini", {.vocab = 4096, .context = 256, .layers = 6, .dim = 384, .heads = 6}},
      {"small", {.vocab = 8192, .context = 512, .layers = 8, .dim = 512, .heads = 8}},
      {"gpt2",
       {.vocab = 50257,
        .context = 1024,
        .layers = 12,
        .dim = 768,
        .heads = 12,
        .gated = false,
        .activation = Function::gelu_tanh,
        .norm = NormKind::layer,
        .norm_bias = true,
        .positions = Positions::learned,
        .qkv_bias = true,
        .out_bias = true,
        .mlp_bias = true}},
      {"lse-nano", constant_cost({.vocab = 1024, .context = 128, .layers = 4, .dim = 96, .heads = 3})},
      {"lse-micro", constant_cost({.vocab = 2048, .context = 256, .layers = 6, .dim = 192, .heads = 6})},
      {"lse-mini", constant_cost({.vocab = 4096, .context = 256, .layers = 6, .dim = 384, .heads = 6})},
      {"lse-small", constant_cost({.vocab = 8192, .context = 512, .layers = 8, .dim = 512, .heads = 8})},
      {"lse-125m", published(50304, 1024, 24, 768, 24)},
      {"tokenformer-nano", tokenformer(1024, 128, 4, 96, 3, 72, 288)},
      {"tokenformer-mini", tokenformer(4096, 256, 6, 384, 6, 288, 1152)},
      {"tokenformer-small", tokenformer(8192, 512, 8, 512, 8, 384, 1536)},
      // arXiv 2410.23168, table 9: the series that grows ...
      {"tokenformer-124m", tokenformer(50304, 1024, 12, 768, 12, 576, 2304)},
      {"tokenformer-354m", tokenformer(50304, 1024, 12, 768, 12, 2140, 8560)},
      {"tokenformer-757m", tokenformer(50304, 1024, 12, 768, 12, 4850, 19400)},
      {"tokenformer-1.4b", tokenformer(50304, 1024, 12, 768, 12, 8620, 34480)},
      // ... and the models trained on the Pile.
      {"tokenformer-150m", tokenformer(50304, 2048, 12, 768, 12, 768, 3072)},
      {"tokenformer-450m", tokenformer(50304, 2048, 24, 1024, 16, 1024, 4096)},
      {"tokenformer-900m", tokenformer(50304, 2048, 32, 1280, 16, 1280, 5120)},
      {"tokenformer-1.5b", tokenformer(50304, 2048, 40, 1536, 16, 1536, 6144)},
  };
  return list;
}

}  // namespace

std::vector<std::string> preset_names() {
  std::vector<std::string> names;
  for (const auto& [name, architecture] : presets()) names.push_back(name);
  return names;
}

Architecture preset(std::string_view name) {
  for (const auto& [known, architecture] : presets())
    if (known == name) return architecture;
  fail_unknown("preset", name, preset_names(), "--preset", Exit::usage);
}

}  // namespace sparsam
