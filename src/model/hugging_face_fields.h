// What the families' readers share: fields of config.json that several of them have.
#pragma once

#include <optional>
#include <string>

#include "model/hugging_face.h"

namespace sparsam {

constexpr i64 most_size = i64{1} << 24;  // validate() is stricter where it knows what a number means

// One config.json that is being read. `fields` remembers what was asked for; finish() refuses the rest.
struct ConfigFile {
  const Json& json;
  Fields fields;

  ConfigFile(const Json& json, const std::string& where) : json(json), fields(json, where) {}
  i64 size(std::string_view name) { return fields.required<i64>(name, {.least = 1, .most = most_size}); }
  i64 size_or(std::string_view name, i64 otherwise) {
    return fields.or_default<i64>(name, otherwise, {.least = 1, .most = most_size});
  }
  i64 layers(std::string_view name) { return fields.required<i64>(name, {.least = 0, .most = 4096}); }
  bool flag(std::string_view name, bool otherwise) { return fields.or_default<bool>(name, otherwise); }
  // The field, if it is there, must be `supported`.
  void only(std::string_view name, bool supported);
  // An activation by name; fatrelu's threshold is the field hidden_act_param.
  Function activation(std::string_view name, std::string_view otherwise);
  // A field that is there but null turns something off, while an absent one has a default.
  std::optional<i64> nullable(std::string_view name, std::optional<i64> when_absent);
  const std::string& where() const { return fields.where(); }
};

// rope_theta, rope_scaling and partial_rotary_factor, or rope_parameters, which holds all of them.
struct RotaryDefaults {
  double base = 10000, part = 1;
  const char* base_name = "rope_theta";
  const char* part_name = "partial_rotary_factor";
};
Rotary read_rotary(ConfigFile& file, i64 head_dim, i64 context, const RotaryDefaults& defaults);

// Windows of all layers, or of those that layer_types calls sliding_attention, or else of those from `first` on.
void set_windows(ConfigFile& file, Config& config, i64 window, i64 first);

// The families. Each fills the description and changes the sources where its files differ from Llama's.
HuggingFaceModel read_llama_family(ConfigFile& file, std::string_view type);  // Llama and its descendants
HuggingFaceModel read_gpt2(ConfigFile& file);
HuggingFaceModel read_gpt_neox(ConfigFile& file);
HuggingFaceModel read_opt(ConfigFile& file);
HuggingFaceModel read_falcon(ConfigFile& file);
HuggingFaceModel read_tokenformer(ConfigFile& file);

// The names that Llama's files have, which are also those of params.h.
Params<Source> llama_sources(const Config& config);
// Points a linear or a norm at the tensors NAME.weight and NAME.bias.
void name_source(NormParams<Source>& norm, const std::string& name);
void name_source(LinearParams<Source>& linear, const std::string& name);
// The part of a fused tensor: weight and bias alike.
void place(LinearParams<Source>& linear, i64 stored_rows, i64 first, i64 block = 0, i64 stride = 0);
// The norm of the MLP is the norm of the attention.
void share_norms(Params<Source>& sources);

}  // namespace sparsam
