#include "model/config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "model/params.h"

namespace sparsam {

template <>
std::vector<std::string> enum_names<NormKind>() {
  return {"rms", "layer"};
}
template <>
std::vector<std::string> enum_names<Positions>() {
  return {"rotary", "learned", "none"};
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

template <class E>
E enum_from_name(std::string_view name, std::string_view where) {
  const auto names = enum_names<E>();
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) fail_unknown("value", name, names, where);
  return static_cast<E>(found - names.begin());
}
template NormKind enum_from_name<NormKind>(std::string_view, std::string_view);
template Positions enum_from_name<Positions>(std::string_view, std::string_view);
template Residual enum_from_name<Residual>(std::string_view, std::string_view);
template Pairing enum_from_name<Pairing>(std::string_view, std::string_view);
template Truncation::Measure enum_from_name<Truncation::Measure>(std::string_view, std::string_view);

bool has_attention(const Layer& layer) { return !std::holds_alternative<std::monostate>(layer.mixer); }
bool has_mlp(const Layer& layer) { return !std::holds_alternative<std::monostate>(layer.mlp); }

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
  }
  void operator()(const Mlp& m) const { mlp(m); }
  void operator()(const GatedMlp& m) const { mlp(m); }
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
  i64 rotated_head_dim = 0;
  for (size_t i = 0; i < config.layers.size(); ++i) {
    const std::string layer = fmt::format("{}: layer {}", where, i);
    const Validator valid_layer{layer};
    std::visit(valid_layer, config.layers[i].mixer);
    std::visit(valid_layer, config.layers[i].mlp);
    if (const auto* a = std::get_if<SoftmaxAttention>(&config.layers[i].mixer);
        a && config.positions == Positions::rotary) {
      if (rotated_head_dim == 0) rotated_head_dim = a->head_dim;
      if (a->head_dim != rotated_head_dim)
        fail("{}: heads of {} channels, others have {}: rotary positions need one size", layer, a->head_dim,
             rotated_head_dim);
      const i64 turned = config.rotary.channels ? config.rotary.channels : a->head_dim;
      if (turned < 2 || turned % 2 != 0 || turned > a->head_dim)
        fail("{}: rotary positions turn an even number of 2 to {} channels of each head, not {}", layer, a->head_dim,
             turned);
      if (const auto* s = std::get_if<FactorScaling>(&config.rotary.scaling);
          s && static_cast<i64>(s->factors.size()) != turned / 2)
        fail("{}: {} factors of rotary frequencies for {} turned channels, expected half as many", layer,
             s->factors.size(), turned);
    }
  }
  if (!config.truncation.empty() && config.truncation.size() != config.layers.size())
    fail("{}: truncation of {} layers, the model has {}", where, config.truncation.size(), config.layers.size());
  for (const Truncation& t : config.truncation)
    if (!(t.threshold >= 0) || t.keep < 0)
      fail("{}: truncation to {} neurons above {}, expected 0 or more", where, t.keep, t.threshold);
}

Config make_config(const Architecture& a) {
  const auto positive = [](const char* flag, i64 value) {
    if (value <= 0) fail_usage("--{} is {}, expected 1 or more", flag, value);
  };
  positive("vocab", a.vocab), positive("context", a.context), positive("dim", a.dim), positive("heads", a.heads);
  if (a.activate_up && !a.gated) fail_usage("--activate-up needs a gated MLP");
  if (a.layers < 0) fail_usage("--layers is {}, expected 0 or more", a.layers);
  if (a.head_dim == 0 && a.dim % a.heads != 0)
    fail_usage("--dim {} is not a multiple of --heads {}; give --head-dim", a.dim, a.heads);
  constexpr i64 rounding = 64;  // a gated MLP of 8/3 dim has as many parameters as a plain one of 4 dim
  const i64 gated_hidden = (8 * a.dim / 3 + rounding - 1) / rounding * rounding;
  const i64 hidden = a.hidden ? a.hidden : a.gated ? gated_hidden : 4 * a.dim;

  Config config;
  config.vocab = a.vocab, config.dim = a.dim, config.context = a.context;
  config.norm = {a.norm, a.norm_gain, a.norm_bias, a.norm_eps};
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
                                        .window = a.window},
              .mlp = {}};
  if (a.gated)
    layer.mlp = GatedMlp{.hidden = hidden,
                         .activation = a.activation,
                         .bias = a.mlp_bias,
                         .activate_up = a.activate_up,
                         .threshold = a.activation_threshold};
  else
    layer.mlp = Mlp{hidden, a.activation, a.mlp_bias, a.activation_threshold};
  config.layers.assign(static_cast<size_t>(a.layers), layer);
  try {
    validate(config, "model");
  } catch (const Error& error) {
    throw Error(error.what(), Exit::usage);
  }
  return config;
}

namespace {

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

i64 parameter_count(const Config& config) {
  i64 total = 0;
  const auto specs = parameter_specs(config);
  for_each_parameter(specs, [&](const std::string&, const ParameterSpec& spec) { total += spec.size(); });
  return total;
}

i64 embedding_parameter_count(const Config& config) {
  const auto specs = parameter_specs(config);
  return specs.token_embedding.size() + specs.position_embedding.size() + specs.head.size();
}

i64 cache_elements_per_token(const Config& config) {
  i64 total = 0;
  for (const Layer& layer : config.layers)
    if (const auto* a = std::get_if<SoftmaxAttention>(&layer.mixer)) total += 2 * a->kv_heads * a->head_dim;
  return total;
}

double flops_per_token(const Config& config, double context) {
  const auto specs = parameter_specs(config);
  double multiplied = static_cast<double>(config.vocab * config.dim);  // the head, tied or not
  for_each_parameter(specs, [&](const std::string&, const ParameterSpec& spec) {
    if (!spec.is_vector) multiplied += static_cast<double>(spec.size());
  });
  multiplied -= static_cast<double>(embedding_parameter_count(config));  // tables are looked up, not multiplied
  double attention = 0;
  for (const Layer& layer : config.layers)
    if (const auto* a = std::get_if<SoftmaxAttention>(&layer.mixer))
      attention += 4 * static_cast<double>(a->heads * a->head_dim) *
                   (a->window > 0 ? std::min(context, static_cast<double>(a->window)) : context);
  return 2 * multiplied + attention;
}

}  // namespace sparsam
