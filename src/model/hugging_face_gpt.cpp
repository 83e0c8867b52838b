// Families of GPT's shape: plain MLPs, biases, layer norms.
#include "model/hugging_face_fields.h"

namespace sparsam {

namespace {

// The fields that GPT-NeoX, OPT and Falcon share.
void read_size(ConfigFile& file, Config& config, bool tied) {
  config.vocab = file.size("vocab_size");
  config.dim = file.size("hidden_size");
  config.context = file.size_or("max_position_embeddings", 2048);
  config.tied = file.flag("tie_word_embeddings", tied);
}

struct GptShape {
  i64 layers, heads, kv_heads, hidden;
  Function activation;
  bool qkv_bias, out_bias, mlp_bias;
};

void set_layers(ConfigFile& file, Config& config, const GptShape& s) {
  if (config.dim % s.heads != 0) fail("{}: dim {} is not a multiple of {} heads", file.where(), config.dim, s.heads);
  config.layers.assign(static_cast<size_t>(s.layers), Layer{.mixer = SoftmaxAttention{.heads = s.heads,
                                                                                      .kv_heads = s.kv_heads,
                                                                                      .head_dim = config.dim / s.heads,
                                                                                      .qkv_bias = s.qkv_bias,
                                                                                      .out_bias = s.out_bias},
                                                            .mlp = Mlp{s.hidden, s.activation, s.mlp_bias}});
}

// Group by group: the queries of its heads, its key, its value (GPT-NeoX and old Falcon: groups of one head).
void place_grouped(AttentionParams<Source>& p, const SoftmaxAttention& a) {
  const i64 D = a.head_dim, queries = a.heads / a.kv_heads * D, stride = queries + 2 * D, rows = stride * a.kv_heads;
  place(p.q, rows, 0, queries, stride);
  place(p.k, rows, queries, D, stride);
  place(p.v, rows, queries + D, D, stride);
}

// What one layer's tensors are called, after the layer's own prefix.
struct LayerNames {
  const char *attention_norm, *fused, *out, *mlp_norm, *up, *down;
};
void name_layer(LayerParams<Source>& p, const std::string& at, const LayerNames& names) {
  name_source(p.attention.norm, at + names.attention_norm);
  for (auto* part : {&p.attention.q, &p.attention.k, &p.attention.v}) name_source(*part, at + names.fused);
  name_source(p.attention.o, at + names.out);
  name_source(p.mlp.norm, at + names.mlp_norm);
  name_source(p.mlp.up, at + names.up);
  name_source(p.mlp.down, at + names.down);
}

const SoftmaxAttention& attention_of(const Layer& layer) { return std::get<SoftmaxAttention>(layer.mixer); }

}  // namespace

// GPT2Model. Its Conv1D stores weights as (in, out); c_attn holds queries, keys and values.
HuggingFaceModel read_gpt2(ConfigFile& file) {
  HuggingFaceModel model{.prefix = "transformer."};
  Config& config = model.config;
  config.vocab = file.size("vocab_size");
  config.dim = file.size("n_embd");
  config.context = file.size_or("n_positions", 1024);
  config.norm = {NormKind::layer, true, true, file.fields.or_default<float>("layer_norm_epsilon", 1e-5f)};
  config.positions = Positions::learned;
  config.tied = file.flag("tie_word_embeddings", true);
  file.only("scale_attn_weights", true), file.only("scale_attn_by_inverse_layer_idx", false);
  const i64 heads = file.size("n_head"), hidden = file.nullable("n_inner", std::nullopt).value_or(4 * config.dim);
  set_layers(file, config,
             {.layers = file.layers("n_layer"),
              .heads = heads,
              .kv_heads = heads,
              .hidden = hidden,
              .activation = file.activation("activation_function", "gelu_new"),
              .qkv_bias = true,
              .out_bias = true,
              .mlp_bias = true});

  model.sources = llama_sources(config);
  model.sources.token_embedding.tensor = "transformer.wte.weight";
  model.sources.position_embedding.tensor = "transformer.wpe.weight";
  name_source(model.sources.final_norm, "transformer.ln_f");
  for (size_t i = 0; i < config.layers.size(); ++i) {
    auto& p = model.sources.layers[i];
    name_layer(p, fmt::format("transformer.h.{}.", i),
               {"ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"});
    place(p.attention.q, 3 * config.dim, 0);
    place(p.attention.k, 3 * config.dim, config.dim);
    place(p.attention.v, 3 * config.dim, 2 * config.dim);
    for (LinearParams<Source>* linear : std::initializer_list<LinearParams<Source>*>{
             &p.attention.q, &p.attention.k, &p.attention.v, &p.attention.o, &p.mlp.up, &p.mlp.down})
      linear->weight.transposed = true;
  }
  return model;
}

// GPTNeoXModel (Pythia). query_key_value holds query, key and value of each head.
HuggingFaceModel read_gpt_neox(ConfigFile& file) {
  HuggingFaceModel model{.prefix = "gpt_neox."};
  Config& config = model.config;
  read_size(file, config, false);
  config.norm = {NormKind::layer, true, true, file.fields.or_default<float>("layer_norm_eps", 1e-5f)};
  config.residual = file.flag("use_parallel_residual", true) ? Residual::parallel : Residual::sequential;
  const i64 heads = file.size("num_attention_heads");
  const bool bias = file.flag("attention_bias", true);
  set_layers(file, config,
             {.layers = file.layers("num_hidden_layers"),
              .heads = heads,
              .kv_heads = heads,
              .hidden = file.size("intermediate_size"),
              .activation = file.activation("hidden_act", "gelu"),
              .qkv_bias = bias,
              .out_bias = bias,
              .mlp_bias = true});
  // Newer files say rope_theta and partial_rotary_factor.
  const double base = file.fields.or_default<double>("rope_theta", 10000, {.least = 0, .most = 1e30});
  const double part = file.fields.or_default<double>("partial_rotary_factor", 0.25);
  config.rotary = read_rotary(file, config.dim / heads, config.context,
                              {.base = base, .part = part, .base_name = "rotary_emb_base", .part_name = "rotary_pct"});

  model.sources = llama_sources(config);
  model.sources.token_embedding.tensor = "gpt_neox.embed_in.weight";
  model.sources.head.tensor = "embed_out.weight";
  name_source(model.sources.final_norm, "gpt_neox.final_layer_norm");
  for (size_t i = 0; i < config.layers.size(); ++i) {
    name_layer(model.sources.layers[i], fmt::format("gpt_neox.layers.{}.", i),
               {"input_layernorm", "attention.query_key_value", "attention.dense", "post_attention_layernorm",
                "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"});
    place_grouped(model.sources.layers[i].attention, attention_of(config.layers[i]));
  }
  return model;
}

// OPTDecoder. Its table of positions begins with two rows that no position of a text without padding reads.
HuggingFaceModel read_opt(ConfigFile& file) {
  constexpr i64 first_position = 2;
  HuggingFaceModel model{.prefix = "model."};
  Config& config = model.config;
  read_size(file, config, true);
  config.positions = Positions::learned;
  file.only("do_layer_norm_before", true), file.only("_remove_final_layer_norm", false);
  if (const i64 width = file.size_or("word_embed_proj_dim", config.dim); width != config.dim)
    fail("{}: word_embed_proj_dim is {}, expected hidden_size, {}: others are not supported", file.where(), width,
         config.dim);
  const bool affine = file.flag("layer_norm_elementwise_affine", true), bias = file.flag("enable_bias", true);
  config.norm = {NormKind::layer, affine, affine, 1e-5f};
  const i64 heads = file.size("num_attention_heads");
  set_layers(file, config,
             {.layers = file.layers("num_hidden_layers"),
              .heads = heads,
              .kv_heads = heads,
              .hidden = file.size("ffn_dim"),
              .activation = file.activation("activation_function", "relu"),
              .qkv_bias = bias,
              .out_bias = bias,
              .mlp_bias = bias});

  model.sources = llama_sources(config);
  model.sources.token_embedding.tensor = "model.decoder.embed_tokens.weight";
  model.sources.position_embedding = {.tensor = "model.decoder.embed_positions.weight",
                                      .stored_rows = config.context + first_position,
                                      .first = first_position};
  name_source(model.sources.final_norm, "model.decoder.final_layer_norm");
  for (size_t i = 0; i < config.layers.size(); ++i) {
    auto& p = model.sources.layers[i];
    const std::string at = fmt::format("model.decoder.layers.{}.", i);
    name_layer(p, at, {"self_attn_layer_norm", "", "self_attn.out_proj", "final_layer_norm", "fc1", "fc2"});
    name_source(p.attention.q, at + "self_attn.q_proj");
    name_source(p.attention.k, at + "self_attn.k_proj");
    name_source(p.attention.v, at + "self_attn.v_proj");
  }
  return model;
}

// FalconModel, in its three shapes: groups of heads with two norms or one (new_decoder_architecture), one key and value
// for all heads (multi_query), or a key and value for each.
HuggingFaceModel read_falcon(ConfigFile& file) {
  HuggingFaceModel model{.prefix = "transformer."};
  Config& config = model.config;
  read_size(file, config, true);
  config.norm = {NormKind::layer, true, true, file.fields.or_default<float>("layer_norm_epsilon", 1e-5f)};
  file.only("alibi", false), file.only("apply_residual_connection_post_layernorm", false);
  const bool grouped = file.flag("new_decoder_architecture", false), one_key = file.flag("multi_query", true);
  const bool parallel = file.flag("parallel_attn", true), bias = file.flag("bias", false);
  const i64 norms = file.size_or("num_ln_in_parallel_attn", grouped ? 2 : 1);
  const i64 heads = file.size("num_attention_heads"), stated = file.size_or("num_kv_heads", heads);
  if (norms > 2) fail("{}: num_ln_in_parallel_attn is {}, expected 1 or 2", file.where(), norms);
  if (!grouped && norms == 2)
    fail("{}: num_ln_in_parallel_attn of 2 without new_decoder_architecture is not supported", file.where());
  if (grouped && !parallel) fail("{}: new_decoder_architecture without parallel_attn is not supported", file.where());
  config.residual = parallel ? Residual::parallel : Residual::sequential;
  set_layers(file, config,
             {.layers = file.layers("num_hidden_layers"),
              .heads = heads,
              .kv_heads = grouped   ? stated
                          : one_key ? 1
                                    : heads,
              .hidden = file.size_or("ffn_hidden_size", 4 * config.dim),
              .activation = file.activation("activation", "gelu"),
              .qkv_bias = bias,
              .out_bias = bias,
              .mlp_bias = bias});
  config.rotary = read_rotary(file, config.dim / heads, config.context, {});

  const bool two_norms = grouped && norms == 2;
  model.sources = llama_sources(config);
  model.sources.token_embedding.tensor = "transformer.word_embeddings.weight";
  name_source(model.sources.final_norm, "transformer.ln_f");
  for (size_t i = 0; i < config.layers.size(); ++i) {
    name_layer(model.sources.layers[i], fmt::format("transformer.h.{}.", i),
               {two_norms ? "ln_attn" : "input_layernorm", "self_attention.query_key_value", "self_attention.dense",
                two_norms ? "ln_mlp" : "post_attention_layernorm", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"});
    place_grouped(model.sources.layers[i].attention, attention_of(config.layers[i]));
  }
  if (parallel && !two_norms) share_norms(model.sources);
  return model;
}

}  // namespace sparsam
