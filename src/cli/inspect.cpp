// sparsam inspect: what a model directory holds and what it costs, without running it.
#include <optional>

#include "base/progress.h"
#include "cli/common.h"

namespace sparsam {

namespace {

Json attention_json(const Layer& layer) {
  const auto* a = std::get_if<SoftmaxAttention>(&layer.mixer);
  if (!a) return nullptr;
  return {{"heads", a->heads}, {"kv_heads", a->kv_heads}, {"head_dim", a->head_dim}};
}

Json mlp_json(const Layer& layer) {
  const auto json = [](const auto& m, bool gated) {
    return Json{{"hidden", m.hidden}, {"activation", name_of(m.activation)}, {"gated", gated}};
  };
  if (const auto* m = std::get_if<Mlp>(&layer.mlp)) return json(*m, false);
  if (const auto* m = std::get_if<GatedMlp>(&layer.mlp)) return json(*m, true);
  return nullptr;
}

// Parameters and cache of one layer.
Json layer_json(const Config& config, size_t index) {
  Config one = config;
  one.layers = {config.layers[index]};
  Config none = config;
  none.layers.clear();
  return {{"layer", index},
          {"attention", attention_json(config.layers[index])},
          {"mlp", mlp_json(config.layers[index])},
          {"parameters", parameter_count(one) - parameter_count(none)},
          {"cache_bytes_per_token", cache_bytes_per_token(one)}};
}

std::string layer_text(const Layer& layer) {
  std::string text = "no attention";
  if (const auto* a = std::get_if<SoftmaxAttention>(&layer.mixer))
    text = fmt::format("attention {} heads of {}, {} key-value heads", a->heads, a->head_dim, a->kv_heads);
  const auto describe_mlp = [](const auto& m, const char* kind) {
    return fmt::format("{} {} {}", kind, m.hidden, name_of(m.activation));
  };
  if (const auto* m = std::get_if<Mlp>(&layer.mlp)) return text + "; " + describe_mlp(*m, "MLP");
  if (const auto* m = std::get_if<GatedMlp>(&layer.mlp)) return text + "; " + describe_mlp(*m, "gated MLP");
  return text + "; no MLP";
}

Json tokenizer_json(const std::optional<Tokenizer>& tokenizer) {
  if (!tokenizer) return nullptr;
  const auto id = [](std::optional<i32> token) { return token ? Json(*token) : Json(nullptr); };
  return {{"vocab", tokenizer->vocab_size()},
          {"end_of_text", id(tokenizer->end_of_text())},
          {"beginning_of_text", id(tokenizer->beginning_of_text())}};
}

Json model_json(const Model& model, const std::optional<Tokenizer>& tokenizer) {
  const Config& config = model.config;
  Json per_layer = Json::array();
  for (size_t i = 0; i < config.layers.size(); ++i) per_layer.push_back(layer_json(config, i));
  return {{"architecture", architecture_name(config)},
          {"parameters", parameter_count(config)},
          {"embedding_parameters", embedding_parameter_count(config)},
          {"layers", config.layers.size()},
          {"dim", config.dim},
          {"vocab", config.vocab},
          {"context", config.context},
          {"positions", enum_name(config.positions)},
          {"norm", enum_name(config.norm.kind)},
          {"residual", enum_name(config.residual)},
          {"tied", config.tied},
          {"dtype", name_of(model.weights.token_embedding.dtype)},
          {"weight_bytes", weight_bytes(model)},
          {"decode_bytes", decode_bytes(model)},
          {"cache_bytes_per_token", cache_bytes_per_token(config)},
          {"flops_per_token", flops_per_token(config, static_cast<double>(config.context) / 2)},
          {"tokenizer", tokenizer_json(tokenizer)},
          {"per_layer", per_layer}};
}

void print_model(const std::string& path, const Model& model, const std::optional<Tokenizer>& tokenizer) {
  const Config& config = model.config;
  const auto number = [](auto value) { return format_count(static_cast<double>(value)); };
  fmt::print("{}: {}\n", path, architecture_name(config));
  fmt::print("  parameters       {} ({} of them in tables)\n", number(parameter_count(config)),
             number(embedding_parameter_count(config)));
  fmt::print("  weights          {} in {}\n", format_bytes(static_cast<double>(weight_bytes(model))),
             name_of(model.weights.token_embedding.dtype));
  fmt::print("  cache per token  {} bytes in f16; {} for all {} positions\n", number(cache_bytes_per_token(config)),
             format_bytes(static_cast<double>(cache_bytes_per_token(config) * config.context)), number(config.context));
  fmt::print("  operations       {} M per token in the middle of its context\n",
             number(flops_per_token(config, static_cast<double>(config.context) / 2) / 1e6));
  fmt::print("  shape            dim {}, vocabulary {}{}, {} norm, {} positions, {} residual\n", config.dim,
             number(config.vocab), config.tied ? " (tied head)" : "", enum_name(config.norm.kind),
             enum_name(config.positions), enum_name(config.residual));
  if (tokenizer)
    fmt::print("  tokenizer        {} tokens\n", number(tokenizer->vocab_size()));
  else
    fmt::print("  tokenizer        none\n");
  for (size_t i = 0; i < config.layers.size();) {
    size_t end = i + 1;
    while (end < config.layers.size() && config.layers[end] == config.layers[i]) ++end;
    const std::string range = end - i == 1 ? fmt::format("layer {}", i) : fmt::format("layers {}-{}", i, end - 1);
    fmt::print("  {:<16} {}\n", range, layer_text(config.layers[i]));
    i = end;
  }
}

}  // namespace

void add_inspect(CLI::App& program, Command& command) {
  const auto path = std::make_shared<std::string>();
  CLI::App* verb = add_verb(program, command, "inspect", "what a model holds and what it costs");
  verb->add_option("MODEL", *path, "model directory")->required();
  add_example(verb, "sparsam inspect model --json");
  on_chosen(verb, command, [path, &command] {
    const Model model = load_model(*path);
    std::optional<Tokenizer> tokenizer;
    if (fs::exists(fs::path(*path) / "tokenizer.json")) tokenizer = Tokenizer::load(*path);
    if (command.common.json)
      print_json(model_json(model, tokenizer));
    else
      print_model(*path, model, tokenizer);
    return Exit::done;
  });
}

}  // namespace sparsam
