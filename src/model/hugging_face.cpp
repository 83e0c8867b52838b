// Which family a config.json belongs to, and what families share.
#include "model/hugging_face.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "model/hugging_face_fields.h"

namespace sparsam {

namespace {

// Fields that do not change what a model computes for given tokens: training, generation, bookkeeping.
constexpr std::string_view harmless =
    "architectures torch_dtype dtype transformers_version _name_or_path _commit_hash auto_map "
    "transformers.js_config is_llama_config unsloth_version unsloth_fixed tokenizer_class model_max_length "
    "_attn_implementation attn_implementation _flash_attn_2_enabled use_flash_attn use_bfloat16 torchscript "
    "use_cache pretraining_tp initializer_range initializer_factor init_std gradient_checkpointing "
    "bos_token_id eos_token_id pad_token_id unk_token_id sep_token_id cls_token_id mask_token_id "
    "decoder_start_token_id forced_bos_token_id forced_eos_token_id bad_words_ids suppress_tokens prefix name "
    "id2label label2id num_labels _num_labels problem_type task_specific_params finetuning_task "
    "attention_dropout attention_probs_dropout_prob hidden_dropout hidden_dropout_prob classifier_dropout "
    "attn_pdrop embd_pdrop resid_pdrop dropout activation_dropout layerdrop mlp_dropout embd_layer_dropout "
    "output_attentions output_hidden_states output_scores return_dict use_return_dict return_dict_in_generate "
    "is_decoder is_encoder_decoder summary_activation summary_first_dropout summary_proj_to_labels "
    "summary_type summary_use_proj n_ctx do_sample max_length min_length num_beams num_beam_groups "
    "num_return_sequences temperature top_k top_p typical_p repetition_penalty length_penalty "
    "diversity_penalty early_stopping no_repeat_ngram_size encoder_no_repeat_ngram_size remove_invalid_values "
    "exponential_decay_length_penalty begin_suppress_tokens chunk_size_feed_forward "
    "cross_attention_hidden_size tie_encoder_decoder tf_legacy_loss reorder_and_upcast_attn";

// What changes the numbers and is never supported, with the reason.
void refuse_unsupported(ConfigFile& file) {
  if (const Json* found = file.fields.find("quantization_config"))
    file.fields.fail_value("quantization_config", *found, "none: weights quantised in this way are not read");
  for (const char* name : {"is_moe", "add_cross_attention", "use_mrope", "rope_interleaved"})
    if (file.json.contains(name)) file.only(name, false);
}

// {"0": "negative", "1": "positive"}: the labels of a classifier, in order. Empty where there are none.
std::vector<std::string> read_labels(ConfigFile& file) {
  const Json* names = file.fields.find("id2label");
  if (!names || names->is_null()) return {};
  const std::string where = file.where() + ": id2label";
  if (!names->is_object()) fail("{}: expected an object of labels", where);
  std::map<std::string, std::string, std::less<>> by_key;
  for (const auto& [key, label] : names->items())
    if (label.is_string()) by_key.emplace(key, label.get<std::string>());
  std::vector<std::string> labels;
  for (size_t i = 0; i < names->size(); ++i) {
    const auto label = by_key.find(std::to_string(i));
    if (label == by_key.end())
      fail("{}: expected the labels 0 to {} as strings; {} is not one", where, names->size() - 1, i);
    labels.push_back(label->second);
  }
  return labels;
}

HuggingFaceModel read_own(ConfigFile& file) {
  HuggingFaceModel model;
  Config& config = model.config;
  config.vocab = file.size("vocab_size");
  config.dim = file.size("hidden_size");
  config.context = file.size_or("max_position_embeddings", 2048);
  config.tied = file.flag("tie_word_embeddings", false);
  file.fields.ignore("num_hidden_layers");
  const Json* description = file.fields.find("sparsam");
  if (!description) fail("{}: the field 'sparsam' is missing", file.where());
  config.labels = read_labels(file);
  read_description(*description, file.where() + ": sparsam", config);
  model.sources = llama_sources(config);
  return model;
}

constexpr std::array llama_family{"llama",   "mistral",  "qwen2",  "qwen3",  "gemma",      "phi3",
                                  "minicpm", "stablelm", "bitnet", "bamboo", "sparsellama"};

HuggingFaceModel read_family(ConfigFile& file, const std::string& type) {
  if (type == "sparsam" || (file.json.contains("sparsam") && file.json["sparsam"].contains("version")))
    return read_own(file);
  if (type == "gpt2") return read_gpt2(file);
  if (type == "gpt_neox") return read_gpt_neox(file);
  if (type == "opt") return read_opt(file);
  if (type == "falcon") return read_falcon(file);
  if (type == "tokenformer") return read_tokenformer(file);
  if (std::find(llama_family.begin(), llama_family.end(), type) != llama_family.end())
    return read_llama_family(file, type);
  fail_unknown("model_type", type, hugging_face_families(), file.where());
}

}  // namespace

std::vector<std::string> hugging_face_families() {
  std::vector<std::string> names(llama_family.begin(), llama_family.end());
  names.insert(names.end(), {"gpt2", "gpt_neox", "opt", "falcon", "tokenformer", "sparsam"});
  return names;
}

HuggingFaceModel read_hugging_face(const Json& json, const std::string& where) {
  ConfigFile file(json, where);
  // TokenFormer's files have no model_type.
  const std::string type = json.is_object() && json.contains("qkv_slot_num")
                               ? "tokenformer"
                               : file.fields.required<std::string>("model_type");
  refuse_unsupported(file);
  HuggingFaceModel model = read_family(file, type);
  if (file.fields.find("sparsam") && type != "sparsam") {
    Fields own = file.fields.object("sparsam");
    if (!own.find("version")) {
      model.config.truncation = read_truncation(own);
      model.config.inputs = read_inputs(own);
      model.config.crossovers = read_crossovers(own);
      own.finish();
    }
  }
  for (size_t at = 0; at < harmless.size();) {
    const size_t end = std::min(harmless.find(' ', at), harmless.size());
    file.fields.ignore(harmless.substr(at, end - at));
    at = end + 1;
  }
  file.fields.finish();
  validate(model.config, where);
  return model;
}

Config config_from_json(const Json& json, const std::string& where) { return read_hugging_face(json, where).config; }

bool is_buffer(std::string_view tensor) {
  for (const std::string_view end : {".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", ".attention.bias",
                                     ".attention.masked_bias", ".rotary_emb.cos_cached", ".rotary_emb.sin_cached"})
    if (tensor.ends_with(end)) return true;
  return false;
}

void ConfigFile::only(std::string_view name, bool supported) {
  const std::optional<bool> found = fields.optional<bool>(name);
  if (found && *found != supported)
    fields.fail_value(name, *found, fmt::format("{}: the other is not supported", supported));
}

Function ConfigFile::activation(std::string_view name, std::string_view otherwise) {
  return function_from_name(fields.or_default<std::string>(name, std::string(otherwise)),
                            fmt::format("{}: {}", where(), name));
}

std::optional<i64> ConfigFile::nullable(std::string_view name, std::optional<i64> when_absent) {
  if (!json.contains(name)) return when_absent;
  return fields.optional<i64>(name, {.least = 1, .most = most_size});
}

namespace {

// Beyond these are mistakes or attacks; within them every number fits a float.
constexpr Limits<double> bases{.least = 0, .most = 1e30}, factors{.least = 0, .most = 1e9};

double attention_factor(Fields& f, double factor) {
  const auto stretch = [&](double weight) { return factor <= 1 ? 1.0 : 0.1 * weight * std::log(factor) + 1; };
  const double mscale = f.or_default<double>("mscale", 0, factors);
  const double all = f.or_default<double>("mscale_all_dim", 0, factors);
  const double by_default = mscale != 0 && all != 0 ? stretch(mscale) / stretch(all) : stretch(1);
  return f.or_default<double>("attention_factor", by_default, factors);
}

// The scaling that an object describes; its other fields are the caller's.
RotaryScaling read_scaling(Fields& f, i64 context) {
  const auto alternative = f.optional<std::string>("type");
  const std::string type = f.or_default<std::string>("rope_type", alternative.value_or("default"));
  const Limits<i64> positions{.least = 1, .most = most_size};
  if (type == "default") return {};
  if (type == "linear") return LinearScaling{f.required<float>("factor")};
  if (type == "llama3")
    return Llama3Scaling{.factor = f.required<float>("factor"),
                         .low_frequency_factor = f.required<float>("low_freq_factor"),
                         .high_frequency_factor = f.required<float>("high_freq_factor"),
                         .original_context = f.required<i64>("original_max_position_embeddings", positions)};
  if (type == "yarn") {
    YarnScaling yarn{.beta_fast = f.or_default<float>("beta_fast", 32),
                     .beta_slow = f.or_default<float>("beta_slow", 1),
                     .truncate = f.or_default<bool>("truncate", true),
                     .original_context = f.or_default<i64>("original_max_position_embeddings", context, positions)};
    const double ratio = static_cast<double>(context) / static_cast<double>(yarn.original_context);
    const double factor = f.or_default<double>("factor", ratio, factors);
    yarn.factor = static_cast<float>(factor);
    yarn.attention_factor = static_cast<float>(attention_factor(f, factor));
    return yarn;
  }
  fail_unknown("rope_type", type, std::vector<std::string>{"default", "linear", "llama3", "yarn"}, f.where());
}

}  // namespace

Rotary read_rotary(ConfigFile& file, i64 head_dim, i64 context, const RotaryDefaults& defaults) {
  Fields& fields = file.fields;
  double base = fields.or_default<double>(defaults.base_name, defaults.base, bases);
  double part = fields.or_default<double>(defaults.part_name, defaults.part);
  Rotary rotary;
  if (fields.find("rope_parameters")) {
    Fields f = fields.object("rope_parameters");
    base = f.or_default<double>("rope_theta", base, bases);
    part = f.or_default<double>("partial_rotary_factor", part);
    rotary.scaling = read_scaling(f, context);
    f.finish();
  }
  if (fields.find("rope_scaling")) {
    Fields f = fields.object("rope_scaling");
    f.ignore("rope_theta");
    rotary.scaling = read_scaling(f, context);
    f.finish();
  }
  if (!(part > 0 && part <= 1)) fail("{}: {} is {}, expected more than 0 to 1", file.where(), defaults.part_name, part);
  rotary.base = static_cast<float>(base);
  const i64 channels = static_cast<i64>(static_cast<double>(head_dim) * part);
  if (channels < 2) fail("{}: {} of {} turns no pair of {} channels", file.where(), defaults.part_name, part, head_dim);
  rotary.channels = channels == head_dim ? 0 : channels;
  return rotary;
}

void set_windows(ConfigFile& file, Config& config, i64 window, i64 first) {
  const i64 layers = static_cast<i64>(config.layers.size());
  const auto types = file.fields.optional<std::vector<std::string>>("layer_types");
  if (types && static_cast<i64>(types->size()) != layers)
    fail("{}: layer_types names {} layers, the model has {}", file.where(), types->size(), layers);
  for (i64 l = 0; l < layers; ++l) {
    bool slides = l >= first;
    if (types) {
      const std::vector<std::string> known{"full_attention", "sliding_attention"};
      const std::string& type = (*types)[static_cast<size_t>(l)];
      if (std::find(known.begin(), known.end(), type) == known.end())
        fail_unknown("layer type", type, known, file.where() + ": layer_types");
      slides = type == known[1];
    }
    std::get<SoftmaxAttention>(config.layers[static_cast<size_t>(l)].mixer).window = slides ? window : 0;
  }
}

Params<Source> llama_sources(const Config& config) {
  auto sources = empty_params<Source>(config);
  Params<Source>::visit([](const std::string& name, Source& source) { source.tensor = name; }, sources);
  return sources;
}

void name_source(NormParams<Source>& norm, const std::string& name) {
  norm.gain.tensor = name + ".weight", norm.bias.tensor = name + ".bias";
}
void name_source(LinearParams<Source>& linear, const std::string& name) {
  linear.weight.tensor = name + ".weight", linear.bias.tensor = name + ".bias";
}

void place(LinearParams<Source>& linear, i64 stored_rows, i64 first, i64 block, i64 stride) {
  for (Source* source : {&linear.weight, &linear.bias}) {
    source->stored_rows = stored_rows, source->first = first;
    source->block = block, source->stride = stride;
  }
}

void share_norms(Params<Source>& sources) {
  for (auto& layer : sources.layers) layer.mlp.norm = layer.attention.norm;
}

}  // namespace sparsam
