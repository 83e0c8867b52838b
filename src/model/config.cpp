#include "model/config.h"

#include <algorithm>
#include <cmath>

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
