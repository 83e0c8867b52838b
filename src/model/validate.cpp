// What a description may say.
#include <cmath>
#include <set>
#include <utility>

#include "model/config.h"

namespace sparsam {

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

}  // namespace sparsam
