// TokenFormer as its authors store it: the fields of their GPT-NeoX configuration and the names of its checkpoints.
#include <algorithm>
#include <cmath>

#include "model/hugging_face_fields.h"

namespace sparsam {

namespace {

// Fields of training that do not change what the model computes.
constexpr const char* of_training[] = {"model_type",
                                       "pipe_parallel_size",
                                       "model_parallel_size",
                                       "seq_length",
                                       "output_layer_parallelism",
                                       "use_bias_in_attn_linear",
                                       "attention_config",
                                       "scaled_upper_triang_masked_softmax_fusion",
                                       "bias_gelu_fusion",
                                       "rope_fusion",
                                       "layernorm_fusion",
                                       "init_method",
                                       "init_method_std",
                                       "output_layer_init_method",
                                       "optimizer",
                                       "min_lr",
                                       "zero_optimization",
                                       "train_micro_batch_size_per_gpu",
                                       "gradient_accumulation_steps",
                                       "data_impl",
                                       "num_workers",
                                       "checkpoint_activations",
                                       "checkpoint_num_layers",
                                       "partition_activations",
                                       "synchronize_each_layer",
                                       "gradient_clipping",
                                       "weight_decay",
                                       "precision",
                                       "fp16",
                                       "bf16",
                                       "train_iters",
                                       "lr_decay_iters",
                                       "distributed_backend",
                                       "lr_decay_style",
                                       "warmup",
                                       "pretrain_partial_init"};

std::string one_of(ConfigFile& file, const char* name, const std::vector<std::string>& known) {
  const std::string value = file.fields.or_default<std::string>(name, known.front());
  if (std::find(known.begin(), known.end(), value) == known.end())
    fail_unknown("value", value, known, fmt::format("{}: {}", file.where(), name));
  return value;
}

Theta theta_of(ConfigFile& file) {
  const std::string name = one_of(file, "norm_activation_type", {"l2_norm_gelu", "gelu_l2_norm", "softmax"});
  return name == "l2_norm_gelu" ? Theta::l2_gelu : name == "gelu_l2_norm" ? Theta::gelu_l2 : Theta::softmax;
}

ParameterTokens tokens_of(ConfigFile& file, const char* name, Theta theta) {
  const i64 tokens = file.size(name);
  return {tokens, std::sqrt(static_cast<float>(tokens)), theta};
}

// Keys lie as ours, values (P, out).
void name_tokens(TokenParams<Source>& tokens, const std::string& name) {
  tokens.keys.tensor = name + ".key_param_tokens";
  tokens.values = {.tensor = name + ".value_param_tokens", .transposed = true};
}

}  // namespace

// GPT2ModelPipe with attention_config "tokenformer": the layers are numbered within a sequence of modules.
HuggingFaceModel read_tokenformer(ConfigFile& file) {
  HuggingFaceModel model;
  Config& config = model.config;
  const i64 multiple = file.size_or("make_vocab_size_divisible_by", 128);
  config.vocab = (file.size_or("vocab_size", 50277) + multiple - 1) / multiple * multiple;
  config.dim = file.size("hidden_size");
  config.context = file.size_or("max_position_embeddings", 2048);
  one_of(file, "norm", {"layernorm_nonparam"});
  config.norm = {NormKind::layer, false, false, file.fields.or_default<float>("layernorm_epsilon", 1e-5f)};
  config.final_affine = one_of(file, "final_norm", {"layernorm", "layernorm_nonparam"}) == "layernorm";
  config.tied = !file.flag("no_weight_tying", false);
  file.only("gpt_j_residual", false);
  const i64 heads = file.size("num_attention_heads"), layers = file.layers("num_layers");
  if (config.dim % heads != 0) fail("{}: dim {} is not a multiple of {} heads", file.where(), config.dim, heads);
  const Rotary rotary = read_rotary(file, config.dim / heads, config.context,
                                    {.part = 1, .base_name = "rotary_emb_base", .part_name = "rotary_pct"});
  const bool turned = one_of(file, "pos_emb", {"rotary", "none"}) == "rotary";
  config.positions = turned ? Positions::rotary : Positions::none;
  if (turned) config.rotary = rotary;
  const Theta theta = theta_of(file);
  const ParameterTokens qkv = tokens_of(file, "qkv_slot_num", theta), proj = tokens_of(file, "proj_slot_num", theta);
  const SoftmaxAttention attention{
      .heads = heads, .kv_heads = heads, .head_dim = config.dim / heads, .q = qkv, .k = qkv, .v = qkv, .o = proj};
  const Layer layer{.mixer = attention, .mlp = tokens_of(file, "ffn_slot_num", theta)};
  config.layers.assign(static_cast<size_t>(layers), layer);
  for (const char* name : of_training) file.fields.ignore(name);

  model.sources = llama_sources(config);
  model.sources.token_embedding.tensor = "sequential.0.word_embeddings.weight";
  model.sources.head.tensor = fmt::format("sequential.{}.final_linear.weight", layers + 4);
  name_source(model.sources.final_norm, fmt::format("sequential.{}.norm", layers + 3));
  for (size_t i = 0; i < config.layers.size(); ++i) {
    auto& p = model.sources.layers[i];
    const std::string at = fmt::format("sequential.{}.", i + 2);
    name_tokens(p.attention.q.tokens, at + "attention.query"), name_tokens(p.attention.k.tokens, at + "attention.key");
    name_tokens(p.attention.v.tokens, at + "attention.value"), name_tokens(p.attention.o.tokens, at + "attention.proj");
    name_tokens(p.mlp.tokens, at + "mlp");
  }
  return model;
}

}  // namespace sparsam
