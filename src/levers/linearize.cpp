#include "levers/linearize.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "levers/drop.h"

namespace sparsam {

namespace {

bool has_softmax(const Layer& layer) { return std::holds_alternative<SoftmaxAttention>(layer.mixer); }

i64 number(std::string_view digits, std::string_view list) {
  i64 value = -1;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (digits.empty() || error != std::errc() || end != digits.data() + digits.size() || value < 0)
    fail_usage("--layers: '{}' is not understood, expected all, layers as 1,3, least:2 or 50%", list);
  return value;
}

// The softmax attention of a layer that can be replaced.
const SoftmaxAttention& replaceable(const Config& config, i64 layer) {
  const auto refuse = [&](std::string_view why) { fail("linearize: layer {} {}", layer, why); };
  const i64 count = static_cast<i64>(config.layers.size());
  if (layer < 0 || layer >= count) fail("linearize: layer {} is out of range, the model has 0 to {}", layer, count - 1);
  const auto& mixer = config.layers[static_cast<size_t>(layer)].mixer;
  if (std::holds_alternative<std::monostate>(mixer)) refuse("has no attention (dropped?)");
  if (std::holds_alternative<LogSumExpAttention>(mixer)) refuse("has log-sum-exp attention already");
  const auto& softmax = std::get<SoftmaxAttention>(mixer);
  if (softmax.window)
    refuse(fmt::format("sees {} keys at most: its cost per token is constant already", softmax.window));
  if (softmax.qk_norm) refuse("normalises its queries and keys, which log-sum-exp attention does not");
  if (softmax.inner_norm) refuse("normalises its heads' outputs, which log-sum-exp attention does not");
  if (softmax.q.present() || softmax.k.present() || softmax.v.present() || softmax.o.present())
    refuse("has parameter tokens in place of matrices; expected matrices");
  return softmax;
}

LogSumExpAttention replacement(const SoftmaxAttention& softmax, const LinearAttention& wanted, i64 layer) {
  if (wanted.convolution && softmax.convolution && wanted.convolution != softmax.convolution)
    fail("linearize: layer {} has a convolution of {} taps, asked for were {}", layer, softmax.convolution,
         wanted.convolution);
  return {.heads = softmax.heads,
          .kv_heads = softmax.kv_heads,
          .head_dim = softmax.head_dim,
          .qkv_bias = softmax.qkv_bias,
          .out_bias = softmax.out_bias,
          .decay = wanted.decay,
          .convolution = wanted.convolution ? wanted.convolution : softmax.convolution,
          .window = wanted.window,
          .shared_window = wanted.window > 0,
          .feature_dim = wanted.features ? wanted.features : 2 * softmax.head_dim};
}

// Leaves the specs of the new layers' attention alone.
Params<ParameterSpec> specs_of(const Config& config, std::span<const i64> layers) {
  const Params<ParameterSpec> all = parameter_specs(config);
  Params<ParameterSpec> specs = empty_params<ParameterSpec>(config);
  for (const i64 layer : layers) {
    const size_t l = static_cast<size_t>(layer);
    specs.layers[l].attention = all.layers[l].attention;
  }
  return specs;
}

}  // namespace

LayerChoice parse_layers(std::string_view list, const Config& config) {
  const i64 softmax = std::count_if(config.layers.begin(), config.layers.end(), has_softmax);
  const auto least = [&](i64 count) {
    if (count < 1 || count > softmax)
      fail_usage("--layers {}: {} layers, expected 1 to {}, as many as have softmax attention", list, count, softmax);
    return LayerChoice{.least = count};
  };
  if (list.ends_with('%')) {
    const i64 percent = number(list.substr(0, list.size() - 1), list);
    if (percent > 100) fail_usage("--layers {}: expected at most 100%", list);
    return least((percent * softmax + 50) / 100);
  }
  constexpr std::string_view prefix = "least:";
  if (list.starts_with(prefix)) return least(number(list.substr(prefix.size()), list));
  LayerChoice choice;
  if (list == "all") {
    for (size_t l = 0; l < config.layers.size(); ++l)
      if (has_softmax(config.layers[l])) choice.layers.push_back(static_cast<i64>(l));
    if (choice.layers.empty()) fail_usage("--layers all: the model has no softmax attention");
    return choice;
  }
  for (std::string_view rest = list;;) {
    const size_t comma = rest.find(',');
    const i64 layer = number(rest.substr(0, comma), list);
    if (std::find(choice.layers.begin(), choice.layers.end(), layer) != choice.layers.end())
      fail_usage("--layers {}: {} is named twice", list, layer);
    if (layer >= static_cast<i64>(config.layers.size()))
      fail_usage("--layers {}: {} is out of range, the model has layers 0 to {}", list, layer,
                 config.layers.size() - 1);
    choice.layers.push_back(layer);
    if (comma == std::string_view::npos) break;
    rest.remove_prefix(comma + 1);
  }
  std::sort(choice.layers.begin(), choice.layers.end());
  return choice;
}

std::vector<i64> least_in_need(const Config& config, std::span<const SublayerScore> scores, i64 count) {
  Config softmax = config;
  for (Layer& layer : softmax.layers)
    if (!has_softmax(layer)) layer.mixer = std::monostate{};
  return select_drops(softmax, scores, {.attention = count}).attention;
}

Linearized linearize(const Model& model, std::span<const i64> layers, const LinearAttention& attention) {
  Linearized result{model, {layers.begin(), layers.end()}, {}, {}};
  Config& config = result.model.config;
  require_language_model(config, "linearize");
  std::sort(result.layers.begin(), result.layers.end());
  for (const i64 layer : layers)
    config.layers[static_cast<size_t>(layer)].mixer = replacement(replaceable(config, layer), attention, layer);
  validate(config, "linearize");
  result.specs = specs_of(config, layers);
  for (const i64 layer : layers) {  // a new convolution passes its input on
    AttentionParams<ParameterSpec>& w = result.specs.layers[static_cast<size_t>(layer)].attention;
    w.q_conv.init = w.k_conv.init = w.v_conv.init = ParameterSpec::Init::zeros;
  }
  result.weights = std::make_shared<FlatParams>(result.specs);
  initialize(result.specs, result.weights->views, 0);
  // Copies what the softmax layer has too.
  for_each_parameter(
      result.specs,
      [](const std::string&, const ParameterSpec& spec, const Matrix& from, const Out<float, 2>& to) {
        if (from.empty()) return;
        for (i64 i = 0; i < spec.rows; ++i) read_row(from, i, to[i].span());
      },
      model.weights, result.weights->views);
  for (const i64 layer : layers) {
    const size_t l = static_cast<size_t>(layer);
    const Out<float, 2>& logit = result.weights->views.layers[l].attention.state_logit;
    const i64 features = std::get<LogSumExpAttention>(config.layers[l].mixer).features();
    std::fill(logit.begin(), logit.end(), -std::log(static_cast<float>(features)));  // a mean, not a sum, of features
    result.model.weights.layers[l].attention = {};
  }
  for_each_parameter(
      result.specs,
      [](const std::string&, const ParameterSpec&, Matrix& matrix, const Out<float, 2>& view) {
        matrix = as_matrix(view);
      },
      result.model.weights, result.weights->views);
  struct Both {
    std::shared_ptr<const void> model, weights;
  };
  result.model.storage = std::make_shared<const Both>(Both{model.storage, result.weights});
  return result;
}

}  // namespace sparsam
