#include "model/config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <utility>

#include "model/params.h"

namespace sparsam {

template <>
std::vector<std::string> enum_names<NormKind>() {
  return {"rms", "layer"};
}
template <>
std::vector<std::string> enum_names<Mixer>() {
  return {"softmax", "lse"};
}
template <>
std::vector<std::string> enum_names<Positions>() {
  return {"rotary", "learned", "none", "recurrent"};
}
template <>
std::vector<std::string> enum_names<Residual>() {
  return {"sequential", "parallel"};
}
template <>
std::vector<std::string> enum_names<Pairing>() {
  return {"halves", "interleaved"};
}

template <>
std::vector<std::string> enum_names<Truncation::Measure>() {
  return {"output", "gate"};
}

template <>
std::vector<std::string> enum_names<Theta>() {
  return {"l2_gelu", "gelu_l2", "softmax"};
}

template <class E>
E enum_from_name(std::string_view name, std::string_view where) {
  const auto names = enum_names<E>();
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) fail_unknown("value", name, names, where);
  return static_cast<E>(found - names.begin());
}
template NormKind enum_from_name<NormKind>(std::string_view, std::string_view);
template Mixer enum_from_name<Mixer>(std::string_view, std::string_view);
template Positions enum_from_name<Positions>(std::string_view, std::string_view);
template Residual enum_from_name<Residual>(std::string_view, std::string_view);
template Pairing enum_from_name<Pairing>(std::string_view, std::string_view);
template Theta enum_from_name<Theta>(std::string_view, std::string_view);
template Truncation::Measure enum_from_name<Truncation::Measure>(std::string_view, std::string_view);

bool has_attention(const Layer& layer) { return !std::holds_alternative<std::monostate>(layer.mixer); }
bool has_mlp(const Layer& layer) { return !std::holds_alternative<std::monostate>(layer.mlp); }
float ParameterTokens::effective_tau() const {
  if (mask == 1) return tau;
  const double n = static_cast<double>(old), m = static_cast<double>(tokens - old), c = double{mask};
  return static_cast<float>(double{tau} * std::sqrt((n + c * c * m) / (n + m)));
}

i64 rotated_head_dim(const Layer& layer) {
  if (const auto* a = std::get_if<SoftmaxAttention>(&layer.mixer)) return a->head_dim;
  const auto* a = std::get_if<LogSumExpAttention>(&layer.mixer);
  return a && (a->window || a->feature_dim) ? a->head_dim : 0;
}
bool has_parameter_tokens(const Layer& layer) {
  const auto* a = std::get_if<SoftmaxAttention>(&layer.mixer);
  return std::holds_alternative<ParameterTokens>(layer.mlp) ||
         (a && (a->q.present() || a->k.present() || a->v.present() || a->o.present()));
}

namespace {

// The parameter tokens of a layer's projections, present or not.
std::vector<ParameterTokens*> all_tokens(Layer& layer) {
  std::vector<ParameterTokens*> all;
  if (auto* a = std::get_if<SoftmaxAttention>(&layer.mixer)) all = {&a->q, &a->k, &a->v, &a->o};
  if (auto* t = std::get_if<ParameterTokens>(&layer.mlp)) all.push_back(t);
  return all;
}

}  // namespace

Config without_thresholds(Config config) {
  config.truncation.clear();
  config.inputs = {};
  config.crossovers.clear();
  for (Layer& layer : config.layers)
    for (ParameterTokens* tokens : all_tokens(layer)) tokens->truncation = {}, tokens->blocks = {};
  return config;
}

bool leaves_out(const Config& config) { return config != without_thresholds(config); }

namespace {

// Sizes beyond these are mistakes or attacks; products of a few of them stay far below 2^63.
constexpr i64 most_channels = i64{1} << 20, most_vocab = i64{1} << 24, most_context = i64{1} << 24, most_layers = 4096;

struct Validator {
  const std::string& where;
  void in_range(const char* what, i64 value, i64 least, i64 most) const {
    if (value < least || value > most) fail("{}: {} is {}, expected {} to {}", where, what, value, least, most);
  }
  void operator()(std::monostate) const {}
  void operator()(const SoftmaxAttention& a) const {
    in_range("number of heads", a.heads, 1, 65536);
    in_range("number of key-value heads", a.kv_heads, 1, a.heads);
    in_range("head size", a.head_dim, 1, 65536);
    if (a.heads % a.kv_heads != 0)
      fail("{}: {} heads cannot share {} key-value heads evenly", where, a.heads, a.kv_heads);
    in_range("attention window", a.window, 0, most_context);
    in_range("number of convolution taps", a.convolution, 0, 64);
    for (const auto& [tokens, bias] : {std::pair(&a.q, a.qkv_bias), std::pair(&a.k, a.qkv_bias),
                                       std::pair(&a.v, a.qkv_bias), std::pair(&a.o, a.out_bias)}) {
      if (!tokens->present()) continue;
      if (bias) fail("{}: parameter tokens have no bias", where);
      (*this)(*tokens);
    }
  }
  void operator()(const LogSumExpAttention& a) const {
    in_range("number of heads", a.heads, 1, 65536);
    in_range("number of key-value heads", a.kv_heads, 1, a.heads);
    in_range("head size", a.head_dim, 1, 65536);
    in_range("size of a value head", a.value_dim, 0, 65536);
    if (a.heads % a.kv_heads != 0)
      fail("{}: {} heads cannot share {} key-value heads evenly", where, a.heads, a.kv_heads);
    in_range("number of convolution taps", a.convolution, 0, 64);
    in_range("attention window", a.window, 0, most_context);
    in_range("number of features", a.feature_dim, 0, 65536);
    if (a.shared_window && a.window == 0) fail("{}: shared_window without a window", where);
    if (!(a.key_cap >= 0 && a.key_cap < 1e6f)) fail("{}: limit of keys is {}, expected 0 to 1e6", where, a.key_cap);
    if (!(a.initial_scale > 0 && a.initial_scale < 1e6f))
      fail("{}: factors of heads begin with {}, expected more than 0, at most 1e6", where, a.initial_scale);
    if (a.initial_scale != 1 && !a.head_scale) fail("{}: initial_scale without head_scale", where);
    if (a.window > 0 && a.values_of_head() != a.head_dim)
      fail("{}: a window of exact attention needs values as long as keys, not {} and {}", where, a.values_of_head(),
           a.head_dim);
    if (a.window > 0 && a.log_values)
      fail("{}: a window of exact attention gives values, and log_values has logarithms: choose one", where);
  }
  void operator()(const ParameterTokens& t) const {
    in_range("number of parameter tokens", t.tokens, 1, most_channels);
    check_truncation(t.truncation);
    if (!(t.tau > 0 && t.tau < 1e6f)) fail("{}: tau of the parameter tokens is {}, expected 0 to 1e6", where, t.tau);
    if (t.old < 0 || t.old >= t.tokens)
      fail("{}: {} of {} parameter tokens are from before growth, expected 0 to {}", where, t.old, t.tokens,
           t.tokens - 1);
    if (!(t.mask >= 0 && t.mask <= 1)) fail("{}: mask of the parameter tokens is {}, expected 0 to 1", where, t.mask);
    if (t.mask != 1 && (t.old == 0 || t.theta != Theta::l2_gelu))
      fail("{}: a mask of {} is of the new tokens of a grown model with l2_gelu", where, t.mask);
    if (t.blocks != TokenBlocks{}) check_blocks(t);
  }
  void check_blocks(const ParameterTokens& t) const {
    in_range("size of the blocks of parameter tokens", t.blocks.size, 1, t.tokens);
    in_range("number of blocks that are read", t.blocks.read, 1, t.blocks.count(t.tokens));
    if (t.theta != Theta::l2_gelu || t.mask != 1)
      fail("{}: blocks of parameter tokens are of l2_gelu without a mask, not of {} and {}", where, enum_name(t.theta),
           t.mask);
  }
  void operator()(const Mlp& m) const { mlp(m); }
  void operator()(const GatedMlp& m) const { mlp(m); }
  void check_truncation(const Truncation& t) const {
    if (!(t.threshold >= 0) || !std::isfinite(t.threshold) || t.keep < 0)
      fail("{}: truncation to {} neurons above {}, expected 0 or more", where, t.keep, t.threshold);
  }
  void mlp(const auto& m) const {
    in_range("hidden size", m.hidden, 1, most_channels);
    if (!std::isfinite(m.threshold)) fail("{}: activation threshold is {}", where, m.threshold);
    if (m.threshold != 0 && m.activation != Function::fatrelu)
      fail("{}: an activation threshold of {}, but {} has none", where, m.threshold, name_of(m.activation));
  }

  void finite(const char* what, float value, float least) const {
    if (!(value >= least && value <= 1e9f)) fail("{}: {} is {}, expected {} to 1e9", where, what, value, least);
  }
  void operator()(const LinearScaling& s) const { finite("factor of the rotary scaling", s.factor, 1e-6f); }
  void operator()(const Llama3Scaling& s) const {
    finite("factor of the rotary scaling", s.factor, 1e-6f);
    finite("low_freq_factor", s.low_frequency_factor, 1e-6f);
    finite("high_freq_factor", s.high_frequency_factor, 1e-6f);
    if (s.high_frequency_factor <= s.low_frequency_factor)
      fail("{}: high_freq_factor {} of the rotary scaling must exceed low_freq_factor {}", where,
           s.high_frequency_factor, s.low_frequency_factor);
    in_range("original context of the rotary scaling", s.original_context, 1, most_context);
  }
  void operator()(const YarnScaling& s) const {
    finite("factor of the rotary scaling", s.factor, 1e-6f), finite("beta_fast", s.beta_fast, 1e-6f);
    finite("beta_slow", s.beta_slow, 1e-6f),
        finite("attention factor of the rotary scaling", s.attention_factor, 1e-6f);
    in_range("original context of the rotary scaling", s.original_context, 1, most_context);
  }
  void operator()(const FactorScaling& s) const {
    for (const float factor : s.factors) finite("factor of a rotary frequency", factor, 1e-9f);
  }
};

void check_inputs(const Config& config, const std::string& where) {
  const InputSparsity& inputs = config.inputs;
  if (inputs.dense_positions < 0)
    fail("{}: inputs of {} positions are whole, expected 0 or more", where, inputs.dense_positions);
  if (!inputs.layers.empty() && inputs.layers.size() != config.layers.size())
    fail("{}: thresholds of inputs for {} layers, the model has {}", where, inputs.layers.size(), config.layers.size());
  for (const InputThresholds& thresholds : inputs.layers)
    InputThresholds::fields(
        [&](const char* name, float threshold) {
          if (!(threshold >= 0) || !std::isfinite(threshold))
            fail("{}: threshold {} of the input \"{}\", expected a finite number of 0 or more", where, threshold, name);
        },
        thresholds);
  for (size_t i = 0; i < inputs.layers.size(); ++i)
    if ((inputs.layers[i].qkv > 0 || inputs.layers[i].o > 0) &&
        std::holds_alternative<LogSumExpAttention>(config.layers[i].mixer))
      fail("{}: thresholds of inputs of q, k, v or o for layer {}, which has log-sum-exp attention", where, i);
  for (size_t i = 0; i < inputs.layers.size(); ++i)
    if (inputs.layers[i].down > 0 && std::holds_alternative<ParameterTokens>(config.layers[i].mlp))
      fail("{}: a threshold of what down reads for layer {}, which has parameter tokens and no such projection", where,
           i);
  for (const Crossover& c : config.crossovers)
    for (const float fraction : c.fractions)
      if (!(fraction >= 0 && fraction <= 1))
        fail("{}: weights ({}, {}) are read as a whole from {} on, expected a fraction of 0 to 1", where, c.rows,
             c.cols, fraction);
}

// Of encoders and classifiers.
void check_use(const Config& config, const std::string& where) {
  constexpr size_t most_labels = 65536;
  if (config.labels.size() == 1 || config.labels.size() > most_labels)
    fail("{}: {} labels, expected 2 to {}", where, config.labels.size(), most_labels);
  const std::set<std::string> different(config.labels.begin(), config.labels.end());
  if (different.size() != config.labels.size()) fail("{}: of {} labels two are the same", where, config.labels.size());
  for (size_t i = 0; i < config.layers.size() && !config.causal; ++i) {
    const auto refuse = [&](const char* what) {
      fail("{}: layer {} has {}, which is of tokens that see only those before them; an encoder's see all", where, i,
           what);
    };
    if (const auto* a = std::get_if<SoftmaxAttention>(&config.layers[i].mixer); a && a->window > 0) refuse("a window");
    const auto* a = std::get_if<LogSumExpAttention>(&config.layers[i].mixer);
    if (a && a->window > 0) refuse("a window");
    if (a && a->decay) refuse("a decay");
  }
}

}  // namespace

void validate(const Config& config, const std::string& where) {
  const Validator valid{where};
  valid.in_range("vocabulary size", config.vocab, 1, most_vocab);
  valid.in_range("dim", config.dim, 1, most_channels);
  valid.in_range("context", config.context, 1, most_context);
  valid.in_range("number of layers", static_cast<i64>(config.layers.size()), 0, most_layers);
  if (!(config.norm.eps >= 0 && config.norm.eps < 1))
    fail("{}: norm epsilon is {}, expected 0 to 1", where, config.norm.eps);
  if (config.norm.kind == NormKind::rms && config.norm.bias) fail("{}: an RMS norm has no bias", where);
  const float least_base = std::holds_alternative<YarnScaling>(config.rotary.scaling) ? 1 : 0;  // YaRN takes its log
  if (!(config.rotary.base > least_base && config.rotary.base < 1e30f))
    fail("{}: rotary base is {}, expected more than {}", where, config.rotary.base, least_base);
  std::visit(valid, config.rotary.scaling);
  for (const auto& [what, scale] :
       {std::pair("embedding scale", config.embedding_scale), std::pair("branch scale", config.branch_scale),
        std::pair("logit scale", config.logit_scale)})
    valid.finite(what, scale, 1e-9f);
  i64 rotated = 0;
  for (size_t i = 0; i < config.layers.size(); ++i) {
    const std::string layer = fmt::format("{}: layer {}", where, i);
    const Validator valid_layer{layer};
    std::visit(valid_layer, config.layers[i].mixer);
    std::visit(valid_layer, config.layers[i].mlp);
    if (const i64 head_dim = rotated_head_dim(config.layers[i]);
        head_dim != 0 && config.positions == Positions::rotary) {
      if (rotated == 0) rotated = head_dim;
      if (head_dim != rotated)
        fail("{}: heads of {} channels, others have {}: rotary positions need one size", layer, head_dim, rotated);
      const i64 turned = config.rotary.channels ? config.rotary.channels : head_dim;
      if (turned < 2 || turned % 2 != 0 || turned > head_dim)
        fail("{}: rotary positions turn an even number of 2 to {} channels of each head, not {}", layer, head_dim,
             turned);
      if (const auto* s = std::get_if<FactorScaling>(&config.rotary.scaling);
          s && static_cast<i64>(s->factors.size()) != turned / 2)
        fail("{}: {} factors of rotary frequencies for {} turned channels, expected half as many", layer,
             s->factors.size(), turned);
    }
  }
  if (!config.truncation.empty() && config.truncation.size() != config.layers.size())
    fail("{}: truncation of {} layers, the model has {}", where, config.truncation.size(), config.layers.size());
  for (size_t i = 0; i < config.truncation.size(); ++i)
    if (config.truncation[i].active() && std::holds_alternative<ParameterTokens>(config.layers[i].mlp))
      fail("{}: layer {} has parameter tokens and no MLP whose neurons could be truncated: thresholds stand with them",
           where, i);
  for (const Truncation& t : config.truncation) valid.check_truncation(t);
  check_inputs(config, where);
  check_use(config, where);
}

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

// A shape with attention at constant cost: decay, convolution and a window of exact attention, which add up.
Architecture constant_cost(Architecture a) {
  a.mixer = Mixer::lse, a.decay = true, a.convolution = 4, a.window = 16;
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

void require_language_model(const Config& config, const std::string& where) {
  if (!config.labels.empty())
    fail("{}: a classifier of {} labels; expected a language model", where, config.labels.size());
  if (!config.causal) fail("{}: an encoder, whose tokens see those after them; expected a language model", where);
}

i64 parameter_count(const Config& config) {
  i64 total = 0;
  const auto specs = parameter_specs(config);
  for_each_parameter(specs, [&](const std::string&, const ParameterSpec& spec) { total += spec.size(); });
  return total;
}

i64 embedding_parameter_count(const Config& config) {
  const auto specs = parameter_specs(config);
  return specs.token_embedding.size() + specs.position_embedding.size() + specs.head.size() + specs.score.size();
}

i64 cache_elements_per_token(const Config& config) {
  i64 total = 0;
  if (!config.causal) return total;  // an encoder reads a text at once
  for (const Layer& layer : config.layers)
    if (const auto* a = std::get_if<SoftmaxAttention>(&layer.mixer)) total += 2 * a->kv_heads * a->head_dim;
  return total;
}

bool keeps_all(const Config& config) {
  return config.positions != Positions::recurrent &&
         std::all_of(config.layers.begin(), config.layers.end(), [](const Layer& layer) {
           const auto* a = std::get_if<SoftmaxAttention>(&layer.mixer);
           return !has_attention(layer) || (a && !a->convolution && !a->window);
         });
}

i64 LogSumExpAttention::state_elements() const {
  const i64 D = values_of_head(), channels = heads * head_dim + kv_heads * (head_dim + D);
  const i64 leaving = shared_window ? window * kv_heads * (features() * (1 + decay) + D) : 0;
  return kv_heads * features() * (D + 2) + std::max<i64>(convolution - 1, 0) * channels +
         2 * window * kv_heads * head_dim + leaving;
}
i64 state_elements(const Config& config) {
  i64 total = 0;
  if (!config.causal) return total;
  for (const Layer& layer : config.layers)
    if (const auto* a = std::get_if<LogSumExpAttention>(&layer.mixer)) total += a->state_elements();
  return total;
}

double flops_per_token(const Config& config, double context) {
  const auto specs = parameter_specs(config);
  // The head, tied or not; that of a classifier is read once a text.
  double multiplied = config.labels.empty() ? static_cast<double>(config.vocab * config.dim) : 0;
  for_each_parameter(specs, [&](const std::string&, const ParameterSpec& spec) {
    if (!spec.is_vector) multiplied += static_cast<double>(spec.size());
  });
  multiplied -= static_cast<double>(embedding_parameter_count(config));  // tables are looked up, not multiplied
  double attention = 0;
  for (const Layer& layer : config.layers) {
    if (const auto* a = std::get_if<LogSumExpAttention>(&layer.mixer)) {
      attention += 2 * static_cast<double>((a->heads + a->kv_heads) * a->features() * a->values_of_head());
      attention += 2 * static_cast<double>((a->heads + a->kv_heads) * a->feature_dim * a->head_dim);
      attention += 4 * static_cast<double>(a->heads * a->head_dim) * std::min(context, static_cast<double>(a->window));
    }
    if (const auto* a = std::get_if<SoftmaxAttention>(&layer.mixer))
      attention += 4 * static_cast<double>(a->heads * a->head_dim) *
                   (a->window > 0 ? std::min(context, static_cast<double>(a->window)) : context);
  }
  return 2 * multiplied + attention;
}

}  // namespace sparsam
