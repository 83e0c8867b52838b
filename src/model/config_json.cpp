// The key "sparsam" of config.json: the description itself, layer by layer; null is a dropped half-layer.
#include <limits>
#include <string>

#include "model/hugging_face.h"

namespace sparsam {

double shortest(float value) { return std::stod(fmt::format("{}", value)); }

namespace {

Json truncation_json(const Truncation& t) {
  if (!t.active()) return nullptr;
  Json json{{"measure", enum_name(t.measure)}, {"threshold", shortest(t.threshold)}};
  if (t.keep) json["keep"] = t.keep;
  return json;
}

Truncation truncation_from(Fields f) {
  const Truncation t{.measure = enum_from_name<Truncation::Measure>(f.required<std::string>("measure"), f.where()),
                     .threshold = f.required<float>("threshold"),
                     .keep = f.or_default<i64>("keep", 0, {.least = 0, .most = i64{1} << 24})};
  f.finish();
  return t;
}

TokenBlocks blocks_from(Fields f) {
  const TokenBlocks blocks{.size = f.required<i64>("size"), .read = f.required<i64>("read")};
  f.finish();
  return blocks;
}

Json tokens_json(const ParameterTokens& t) {
  Json json{{"tokens", t.tokens}, {"tau", shortest(t.tau)}, {"theta", enum_name(t.theta)}};
  if (t.old) json["old"] = t.old;
  if (t.mask != 1) json["mask"] = shortest(t.mask);
  if (t.truncation.active()) json["truncation"] = truncation_json(t.truncation);
  if (t.blocks.active()) json["blocks"] = {{"size", t.blocks.size}, {"read", t.blocks.read}};
  return json;
}

Json mixer_json(const Layer& layer) {
  const auto* a = std::get_if<SoftmaxAttention>(&layer.mixer);
  if (!a) return nullptr;
  Json json{{"heads", a->heads},       {"kv_heads", a->kv_heads}, {"head_dim", a->head_dim},
            {"qkv_bias", a->qkv_bias}, {"out_bias", a->out_bias}, {"qk_norm", a->qk_norm}};
  if (a->window) json["window"] = a->window;
  if (a->inner_norm) json["inner_norm"] = true;
  if (a->convolution) json["convolution"] = a->convolution;
  for (const auto& [name, tokens] :
       {std::pair("q", &a->q), std::pair("k", &a->k), std::pair("v", &a->v), std::pair("o", &a->o)})
    if (tokens->present()) json[name] = tokens_json(*tokens);
  return json;
}

Json log_sum_exp_json(const Layer& layer) {
  const auto& a = std::get<LogSumExpAttention>(layer.mixer);
  Json json{{"heads", a.heads},           {"kv_heads", a.kv_heads}, {"head_dim", a.head_dim},
            {"qkv_bias", a.qkv_bias},     {"out_bias", a.out_bias}, {"log_values", a.log_values},
            {"head_scale", a.head_scale}, {"decay", a.decay}};
  if (a.value_dim) json["value_dim"] = a.value_dim;
  if (a.initial_scale != 1) json["initial_scale"] = shortest(a.initial_scale);
  if (a.key_cap != 0) json["key_cap"] = shortest(a.key_cap);
  if (a.convolution) json["convolution"] = a.convolution;
  if (a.window) json["window"] = a.window;
  if (a.shared_window) json["shared_window"] = true;
  if (a.feature_dim) json["feature_dim"] = a.feature_dim;
  if (a.output_glu) json["output_glu"] = true;
  return json;
}

LogSumExpAttention log_sum_exp_from(Fields f) {
  const LogSumExpAttention a{.heads = f.required<i64>("heads"),
                             .kv_heads = f.required<i64>("kv_heads"),
                             .head_dim = f.required<i64>("head_dim"),
                             .value_dim = f.or_default<i64>("value_dim", 0),
                             .qkv_bias = f.required<bool>("qkv_bias"),
                             .out_bias = f.required<bool>("out_bias"),
                             .log_values = f.required<bool>("log_values"),
                             .key_cap = f.or_default<float>("key_cap", 0),
                             .head_scale = f.required<bool>("head_scale"),
                             .initial_scale = f.or_default<float>("initial_scale", 1),
                             .decay = f.required<bool>("decay"),
                             .convolution = f.or_default<i64>("convolution", 0),
                             .window = f.or_default<i64>("window", 0),
                             .shared_window = f.or_default<bool>("shared_window", false),
                             .feature_dim = f.or_default<i64>("feature_dim", 0),
                             .output_glu = f.or_default<bool>("output_glu", false)};
  f.finish();
  return a;
}

Json mlp_json(const Layer& layer) {
  const auto json = [](const auto& m, bool gated) {
    Json j{{"gated", gated}, {"hidden", m.hidden}, {"activation", name_of(m.activation)}, {"bias", m.bias}};
    if (m.activation == Function::fatrelu) j["threshold"] = shortest(m.threshold);
    if constexpr (requires { m.activate_up; }) {
      if (m.activate_up) j["activate_up"] = true;
      if (m.inner_norm) j["inner_norm"] = true;
    }
    return j;
  };
  if (const auto* m = std::get_if<Mlp>(&layer.mlp)) return json(*m, false);
  if (const auto* m = std::get_if<GatedMlp>(&layer.mlp)) return json(*m, true);
  if (const auto* t = std::get_if<ParameterTokens>(&layer.mlp)) return tokens_json(*t);
  return nullptr;
}

Json scaling_json(const RotaryScaling& scaling) {
  if (const auto* s = std::get_if<LinearScaling>(&scaling))
    return {{"kind", "linear"}, {"factor", shortest(s->factor)}};
  if (const auto* s = std::get_if<Llama3Scaling>(&scaling))
    return {{"kind", "llama3"},
            {"factor", shortest(s->factor)},
            {"low_frequency_factor", shortest(s->low_frequency_factor)},
            {"high_frequency_factor", shortest(s->high_frequency_factor)},
            {"original_context", s->original_context}};
  if (const auto* s = std::get_if<YarnScaling>(&scaling))
    return {{"kind", "yarn"},
            {"factor", shortest(s->factor)},
            {"beta_fast", shortest(s->beta_fast)},
            {"beta_slow", shortest(s->beta_slow)},
            {"attention_factor", shortest(s->attention_factor)},
            {"truncate", s->truncate},
            {"original_context", s->original_context}};
  Json factors = Json::array();
  for (const float factor : std::get<FactorScaling>(scaling).factors) factors.push_back(shortest(factor));
  return {{"kind", "factors"}, {"factors", factors}};
}

RotaryScaling scaling_from(Fields f) {
  const std::string kind = f.required<std::string>("kind");
  RotaryScaling scaling;
  if (kind == "linear") {
    scaling = LinearScaling{f.required<float>("factor")};
  } else if (kind == "llama3") {
    scaling = Llama3Scaling{.factor = f.required<float>("factor"),
                            .low_frequency_factor = f.required<float>("low_frequency_factor"),
                            .high_frequency_factor = f.required<float>("high_frequency_factor"),
                            .original_context = f.required<i64>("original_context")};
  } else if (kind == "yarn") {
    scaling = YarnScaling{.factor = f.required<float>("factor"),
                          .beta_fast = f.required<float>("beta_fast"),
                          .beta_slow = f.required<float>("beta_slow"),
                          .attention_factor = f.required<float>("attention_factor"),
                          .truncate = f.required<bool>("truncate"),
                          .original_context = f.required<i64>("original_context")};
  } else if (kind == "factors") {
    scaling = FactorScaling{f.required<std::vector<float>>("factors")};
  } else {
    fail_unknown("value", kind, std::vector<std::string>{"linear", "llama3", "yarn", "factors"}, f.where());
  }
  f.finish();
  return scaling;
}

// Fields that stand only where they say something: files written before they existed read as ever.
void add_uncommon(const Config& config, Json& json) {
  if (!std::holds_alternative<std::monostate>(config.rotary.scaling))
    json["rotary"]["scaling"] = scaling_json(config.rotary.scaling);
  const auto add = [&](const char* name, float scale) {
    if (scale != 1) json[name] = shortest(scale);
  };
  add("embedding_scale", config.embedding_scale);
  add("branch_scale", config.branch_scale);
  add("logit_scale", config.logit_scale);
  if (config.final_affine) json["norm"]["final_affine"] = true;
  if (!config.causal) json["causal"] = false;
  if (!config.labels.empty()) json["classifier"] = {{"pooling", "mean"}};  // labels: id2label
}

}  // namespace

Json description_json(const Config& config) {
  Json layers = Json::array();
  for (const Layer& layer : config.layers)
    if (std::holds_alternative<LogSumExpAttention>(layer.mixer))
      layers.push_back({{"log_sum_exp", log_sum_exp_json(layer)}, {"mlp", mlp_json(layer)}});
    else
      layers.push_back({{"attention", mixer_json(layer)}, {"mlp", mlp_json(layer)}});
  Json json{{"version", 1},
            {"norm",
             {{"kind", enum_name(config.norm.kind)},
              {"gain", config.norm.gain},
              {"bias", config.norm.bias},
              {"eps", shortest(config.norm.eps)}}},
            {"positions", enum_name(config.positions)},
            {"rotary",
             {{"base", shortest(config.rotary.base)},
              {"channels", config.rotary.channels},
              {"pairing", enum_name(config.rotary.pairing)}}},
            {"residual", enum_name(config.residual)},
            {"layers", layers}};
  add_uncommon(config, json);
  return json;
}

namespace {

ParameterTokens tokens_from(Fields& f) {
  return {.tokens = f.required<i64>("tokens"),
          .tau = f.required<float>("tau"),
          .theta = enum_from_name<Theta>(f.required<std::string>("theta"), f.where()),
          .old = f.or_default<i64>("old", 0),
          .mask = f.or_default<float>("mask", 1),
          .truncation = f.find("truncation") ? truncation_from(f.object("truncation")) : Truncation{},
          .blocks = f.find("blocks") ? blocks_from(f.object("blocks")) : TokenBlocks{}};
}
ParameterTokens tokens_from(Fields& attention, const char* name) {
  if (!attention.find(name)) return {};
  Fields f = attention.object(name);
  const ParameterTokens tokens = tokens_from(f);
  f.finish();
  return tokens;
}

SoftmaxAttention attention_from(Fields f) {
  SoftmaxAttention attention{.heads = f.required<i64>("heads"),
                             .kv_heads = f.required<i64>("kv_heads"),
                             .head_dim = f.required<i64>("head_dim"),
                             .qkv_bias = f.required<bool>("qkv_bias"),
                             .out_bias = f.required<bool>("out_bias"),
                             .qk_norm = f.required<bool>("qk_norm"),
                             .window = f.or_default<i64>("window", 0),
                             .inner_norm = f.or_default<bool>("inner_norm", false),
                             .convolution = f.or_default<i64>("convolution", 0),
                             .q = tokens_from(f, "q"),
                             .k = tokens_from(f, "k"),
                             .v = tokens_from(f, "v"),
                             .o = tokens_from(f, "o")};
  f.finish();
  return attention;
}

Layer layer_from(const Json& json, const std::string& where) {
  Layer layer;
  Fields fields(json, where);
  if (fields.find("log_sum_exp")) {
    layer.mixer = log_sum_exp_from(fields.object("log_sum_exp"));
  } else if (const Json* attention = fields.find("attention"); attention && !attention->is_null()) {
    layer.mixer = attention_from(Fields(*attention, where + ".attention"));
  }
  if (const Json* mlp = fields.find("mlp"); mlp && mlp->contains("tokens")) {
    Fields f(*mlp, where + ".mlp");
    layer.mlp = tokens_from(f);
    f.finish();
  } else if (mlp && !mlp->is_null()) {
    Fields f(*mlp, where + ".mlp");
    const bool gated = f.required<bool>("gated");
    const i64 hidden = f.required<i64>("hidden");
    const Function activation = function_from_name(f.required<std::string>("activation"), f.where());
    const bool bias = f.required<bool>("bias");
    const float threshold = f.or_default<float>("threshold", 0);
    if (gated)
      layer.mlp = GatedMlp{.hidden = hidden,
                           .activation = activation,
                           .bias = bias,
                           .activate_up = f.or_default<bool>("activate_up", false),
                           .inner_norm = f.or_default<bool>("inner_norm", false),
                           .threshold = threshold};
    else
      layer.mlp = Mlp{hidden, activation, bias, threshold};
    f.finish();
  }
  fields.finish();
  return layer;
}

}  // namespace

Json truncation_json(const std::vector<Truncation>& layers) {
  Json json = Json::array();
  for (const Truncation& t : layers) json.push_back(truncation_json(t));
  return json;
}

std::vector<Truncation> read_truncation(Fields& fields) {
  std::vector<Truncation> layers;
  if (!fields.find("truncation")) return layers;
  for (const Json& item : fields.required<std::vector<Json>>("truncation")) {
    Truncation& t = layers.emplace_back();
    if (!item.is_null())
      t = truncation_from(Fields(item, fmt::format("{}.truncation[{}]", fields.where(), layers.size() - 1)));
  }
  return layers;
}

Json inputs_json(const InputSparsity& inputs) {
  Json layers = Json::array();
  for (const InputThresholds& thresholds : inputs.layers) {
    Json item = thresholds.active() ? Json::object() : Json();
    InputThresholds::fields(
        [&](const char* name, float threshold) {
          if (threshold > 0) item[name] = shortest(threshold);
        },
        thresholds);
    layers.push_back(item);
  }
  return {{"dense_positions", inputs.dense_positions}, {"layers", layers}};
}

InputSparsity read_inputs(Fields& fields) {
  InputSparsity inputs;
  if (!fields.find("inputs")) return inputs;
  Fields own = fields.object("inputs");
  inputs.dense_positions = own.or_default<i64>("dense_positions", 0, {.least = 0, .most = i64{1} << 40});
  for (const Json& item : own.required<std::vector<Json>>("layers")) {
    InputThresholds& thresholds = inputs.layers.emplace_back();
    if (item.is_null()) continue;
    Fields f(item, fmt::format("{}.layers[{}]", own.where(), inputs.layers.size() - 1));
    InputThresholds::fields(
        [&](const char* name, float& threshold) {
          threshold = f.or_default<float>(name, 0, {.least = 0, .most = std::numeric_limits<float>::max()});
        },
        thresholds);
    f.finish();
  }
  own.finish();
  return inputs;
}

Json crossovers_json(const std::vector<Crossover>& crossovers) {
  Json json = Json::array();
  for (const Crossover& c : crossovers)
    json.push_back({{"type", name_of(c.dtype)},
                    {"rows", c.rows},
                    {"cols", c.cols},
                    {"one_row", shortest(c.fractions[0])},
                    {"several_rows", shortest(c.fractions[1])}});
  return json;
}

std::vector<Crossover> read_crossovers(Fields& fields) {
  std::vector<Crossover> crossovers;
  if (!fields.find("crossovers")) return crossovers;
  for (const Json& item : fields.required<std::vector<Json>>("crossovers")) {
    Fields f(item, fmt::format("{}.crossovers[{}]", fields.where(), crossovers.size()));
    const auto type = f.required<std::string>("type");
    const auto dtype = dtype_from_name(type);
    if (!dtype) fail("{}.type: \"{}\" is no number format of weights", f.where(), type);
    crossovers.push_back({.dtype = *dtype,
                          .rows = f.required<i64>("rows"),
                          .cols = f.required<i64>("cols"),
                          .fractions = {f.required<float>("one_row"), f.required<float>("several_rows")}});
    f.finish();
  }
  return crossovers;
}

void read_description(const Json& json, const std::string& where, Config& config) {
  Fields fields(json, where);
  if (const i64 version = fields.required<i64>("version"); version != 1)
    fail("{}: version {} of the description, expected 1", where, version);
  Fields norm = fields.object("norm");
  config.norm = {.kind = enum_from_name<NormKind>(norm.required<std::string>("kind"), norm.where()),
                 .gain = norm.required<bool>("gain"),
                 .bias = norm.required<bool>("bias"),
                 .eps = norm.required<float>("eps")};
  config.final_affine = norm.or_default<bool>("final_affine", false);
  norm.finish();
  config.positions = enum_from_name<Positions>(fields.required<std::string>("positions"), where + ".positions");
  Fields rotary = fields.object("rotary");
  config.rotary = {.base = rotary.required<float>("base"),
                   .channels = rotary.required<i64>("channels"),
                   .pairing = enum_from_name<Pairing>(rotary.required<std::string>("pairing"), rotary.where())};
  if (rotary.find("scaling")) config.rotary.scaling = scaling_from(rotary.object("scaling"));
  rotary.finish();
  config.residual = enum_from_name<Residual>(fields.required<std::string>("residual"), where + ".residual");
  config.embedding_scale = fields.or_default<float>("embedding_scale", 1);
  config.branch_scale = fields.or_default<float>("branch_scale", 1);
  config.logit_scale = fields.or_default<float>("logit_scale", 1);
  config.causal = fields.or_default<bool>("causal", true);
  if (fields.find("classifier")) {
    Fields classifier = fields.object("classifier");
    if (const auto pooling = classifier.required<std::string>("pooling"); pooling != "mean")
      fail_unknown("value", pooling, std::vector<std::string>{"mean"}, classifier.where() + ".pooling");
    classifier.finish();
    if (config.labels.empty()) fail("{}: a classifier without labels; expected the field id2label", where);
  } else {
    config.labels.clear();  // such a table may stand beside any model
  }
  const auto layers = fields.required<std::vector<Json>>("layers");
  for (size_t i = 0; i < layers.size(); ++i)
    config.layers.push_back(layer_from(layers[i], fmt::format("{}.layers[{}]", where, i)));
  config.truncation = read_truncation(fields);
  config.inputs = read_inputs(fields);
  config.crossovers = read_crossovers(fields);
  fields.finish();
}

}  // namespace sparsam
