// The description as config.json and back.
#include <algorithm>
#include <string>

#include "model/config.h"

namespace sparsam {

namespace {

// --- the key "sparsam": the description itself, layer by layer; null is a dropped half-layer ------------------------

// A float as the shortest decimal that reads back as it: 1e-05, not 9.999999747378752e-06.
double shortest(float value) { return std::stod(fmt::format("{}", value)); }

Json mixer_json(const Layer& layer) {
  const auto* a = std::get_if<SoftmaxAttention>(&layer.mixer);
  if (!a) return nullptr;
  Json json{{"heads", a->heads},       {"kv_heads", a->kv_heads}, {"head_dim", a->head_dim},
            {"qkv_bias", a->qkv_bias}, {"out_bias", a->out_bias}, {"qk_norm", a->qk_norm}};
  if (a->window) json["window"] = a->window;
  if (a->inner_norm) json["inner_norm"] = true;
  return json;
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
}

Json description_json(const Config& config) {
  Json layers = Json::array();
  for (const Layer& layer : config.layers)
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

Layer layer_from(const Json& json, const std::string& where) {
  Layer layer;
  Fields fields(json, where);
  if (const Json* attention = fields.find("attention"); attention && !attention->is_null()) {
    Fields f(*attention, where + ".attention");
    layer.mixer = SoftmaxAttention{.heads = f.required<i64>("heads"),
                                   .kv_heads = f.required<i64>("kv_heads"),
                                   .head_dim = f.required<i64>("head_dim"),
                                   .qkv_bias = f.required<bool>("qkv_bias"),
                                   .out_bias = f.required<bool>("out_bias"),
                                   .qk_norm = f.required<bool>("qk_norm"),
                                   .window = f.or_default<i64>("window", 0),
                                   .inner_norm = f.or_default<bool>("inner_norm", false)};
    f.finish();
  }
  if (const Json* mlp = fields.find("mlp"); mlp && !mlp->is_null()) {
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

void read_description(const Json& json, const std::string& where, Config& config) {
  Fields fields(json, where);
  if (const i64 version = fields.required<i64>("version"); version != 1)
    fail("{}: version {} of the description, expected 1", where, version);
  Fields norm = fields.object("norm");
  config.norm = {.kind = enum_from_name<NormKind>(norm.required<std::string>("kind"), norm.where()),
                 .gain = norm.required<bool>("gain"),
                 .bias = norm.required<bool>("bias"),
                 .eps = norm.required<float>("eps")};
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
  const auto layers = fields.required<std::vector<Json>>("layers");
  for (size_t i = 0; i < layers.size(); ++i)
    config.layers.push_back(layer_from(layers[i], fmt::format("{}.layers[{}]", where, i)));
  fields.finish();
}

// --- Llama ----------------------------------------------------------------------------------------------------------

// The attention and MLP that all layers share, when LlamaForCausalLM can express the model; nothing otherwise.
bool is_llama(const Config& config) {
  if (config.layers.empty() || config.norm.kind != NormKind::rms || !config.norm.gain) return false;
  if (config.positions != Positions::rotary || config.rotary.channels != 0 || config.rotary.pairing != Pairing::halves)
    return false;
  if (config.residual != Residual::sequential || config.rotary.scaling.index() != 0) return false;
  if (config.embedding_scale != 1 || config.branch_scale != 1 || config.logit_scale != 1) return false;
  const Layer& first = config.layers.front();
  const auto* a = std::get_if<SoftmaxAttention>(&first.mixer);
  const auto* m = std::get_if<GatedMlp>(&first.mlp);
  if (!a || !m || a->qk_norm || a->qkv_bias != a->out_bias || a->window || a->inner_norm) return false;
  if (m->inner_norm || m->activate_up || m->activation == Function::fatrelu) return false;
  return std::all_of(config.layers.begin(), config.layers.end(), [&](const Layer& layer) { return layer == first; });
}

// Hugging Face's names where they differ from ours.
std::string hidden_act(Function function) {
  switch (function) {
    case Function::gelu_tanh:
      return "gelu_pytorch_tanh";
    case Function::relu2:
      return "relu2";
    default:
      return std::string(name_of(function));
  }
}

void read_llama(Fields& fields, Config& config) {
  constexpr i64 most = i64{1} << 24;
  const i64 layers = fields.required<i64>("num_hidden_layers", {.least = 0, .most = 4096});
  const i64 heads = fields.required<i64>("num_attention_heads", {.least = 1, .most = most});
  const i64 kv_heads = fields.or_default<i64>("num_key_value_heads", heads, {.least = 1, .most = most});
  if (!fields.optional<i64>("head_dim") && config.dim % heads != 0)
    fail("{}: hidden_size {} is not a multiple of num_attention_heads {}", fields.where(), config.dim, heads);
  const i64 head_dim = fields.or_default<i64>("head_dim", config.dim / heads, {.least = 1, .most = most});
  const i64 hidden = fields.required<i64>("intermediate_size", {.least = 1, .most = most});
  const Function activation = function_from_name(fields.or_default<std::string>("hidden_act", "silu"), fields.where());
  const bool attention_bias = fields.or_default<bool>("attention_bias", false);
  const bool mlp_bias = fields.or_default<bool>("mlp_bias", false);
  config.norm.eps = fields.or_default<float>("rms_norm_eps", 1e-6f);
  config.rotary.base = fields.or_default<float>("rope_theta", 10000);
  if (const Json* scaling = fields.find("rope_scaling"))
    fields.fail_value("rope_scaling", *scaling, "null: scaled rotary positions are not supported");
  config.layers.assign(static_cast<size_t>(layers), Layer{.mixer = SoftmaxAttention{.heads = heads,
                                                                                    .kv_heads = kv_heads,
                                                                                    .head_dim = head_dim,
                                                                                    .qkv_bias = attention_bias,
                                                                                    .out_bias = attention_bias},
                                                          .mlp = GatedMlp{hidden, activation, mlp_bias}});
}

// Fields of Hugging Face's configurations that do not change what the model computes.
constexpr const char* harmless[] = {"architectures",          "torch_dtype",    "dtype",
                                    "transformers_version",   "use_cache",      "bos_token_id",
                                    "eos_token_id",           "pad_token_id",   "initializer_range",
                                    "_name_or_path",          "pretraining_tp", "auto_map",
                                    "attention_dropout",      "rope_scaling",   "unk_token_id",

                                    "max_position_embeddings"};

}  // namespace

Json to_json(const Config& config) {
  const bool llama = is_llama(config);
  Json json{{"architectures", {llama ? "LlamaForCausalLM" : "SparsamForCausalLM"}},
            {"model_type", llama ? "llama" : "sparsam"},
            {"vocab_size", config.vocab},
            {"hidden_size", config.dim},
            {"max_position_embeddings", config.context},
            {"num_hidden_layers", config.layers.size()},
            {"tie_word_embeddings", config.tied},
            {"torch_dtype", "float32"}};
  if (llama) {
    const auto& a = std::get<SoftmaxAttention>(config.layers.front().mixer);
    const auto& m = std::get<GatedMlp>(config.layers.front().mlp);
    json.update({{"num_attention_heads", a.heads},
                 {"num_key_value_heads", a.kv_heads},
                 {"head_dim", a.head_dim},
                 {"attention_bias", a.qkv_bias},
                 {"intermediate_size", m.hidden},
                 {"hidden_act", hidden_act(m.activation)},
                 {"mlp_bias", m.bias},
                 {"rms_norm_eps", shortest(config.norm.eps)},
                 {"rope_theta", shortest(config.rotary.base)}});
  } else {
    json["sparsam"] = description_json(config);
  }
  return json;
}

Config config_from_json(const Json& json, const std::string& where) {
  Fields fields(json, where);
  Config config;
  const std::string type = fields.required<std::string>("model_type");
  config.vocab = fields.required<i64>("vocab_size", {.least = 1, .most = i64{1} << 24});
  config.dim = fields.required<i64>("hidden_size", {.least = 1, .most = i64{1} << 24});
  config.context = fields.or_default<i64>("max_position_embeddings", 2048);
  config.tied = fields.or_default<bool>("tie_word_embeddings", false);
  if (const Json* description = fields.find("sparsam")) {
    read_description(*description, where + ": sparsam", config);
    fields.ignore("num_hidden_layers");
  } else if (type == "llama") {
    read_llama(fields, config);
  } else {
    fail_unknown("model_type", type, std::vector<std::string>{"llama", "sparsam"}, where);
  }
  for (const char* name : harmless) fields.ignore(name);
  fields.finish();
  validate(config, where);
  return config;
}

}  // namespace sparsam
