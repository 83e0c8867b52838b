// sparsam inspect: what a model or one of its files holds and what it costs, without running it.
#include "cli/inspect.h"

#include <fmt/ranges.h>

#include <map>
#include <optional>

#include "base/progress.h"
#include "cli/inspect_firings.h"
#include "formats/gguf.h"

namespace sparsam {

namespace {

Json tokens_json(const ParameterTokens& t) {
  return {{"tokens", t.tokens}, {"tau", t.tau}, {"theta", enum_name(t.theta)}};
}

Json attention_json(const Layer& layer) {
  if (const auto* a = std::get_if<LogSumExpAttention>(&layer.mixer))
    return {{"kind", "log_sum_exp"},
            {"heads", a->heads},
            {"kv_heads", a->kv_heads},
            {"head_dim", a->head_dim},
            {"value_dim", a->values_of_head()},
            {"log_values", a->log_values},
            {"key_cap", a->key_cap},
            {"head_scale", a->head_scale},
            {"decay", a->decay},
            {"convolution", a->convolution},
            {"window", a->window},
            {"shared_window", a->shared_window},
            {"feature_dim", a->feature_dim},
            {"output_glu", a->output_glu},
            {"state_elements", a->state_elements()}};
  const auto* a = std::get_if<SoftmaxAttention>(&layer.mixer);
  if (!a) return nullptr;
  Json json{{"heads", a->heads}, {"kv_heads", a->kv_heads}, {"head_dim", a->head_dim}};
  if (a->convolution) json["convolution"] = a->convolution;
  for (const auto& [name, tokens] :
       {std::pair("q", &a->q), std::pair("k", &a->k), std::pair("v", &a->v), std::pair("o", &a->o)})
    if (tokens->present()) json[name] = tokens_json(*tokens);
  return json;
}

Json mlp_json(const Layer& layer) {
  const auto json = [](const auto& m, bool gated) {
    return Json{{"hidden", m.hidden}, {"activation", name_of(m.activation)}, {"gated", gated}};
  };
  if (const auto* m = std::get_if<Mlp>(&layer.mlp)) return json(*m, false);
  if (const auto* m = std::get_if<GatedMlp>(&layer.mlp)) return json(*m, true);
  if (const auto* t = std::get_if<ParameterTokens>(&layer.mlp)) return tokens_json(*t);
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
  if (const auto* a = std::get_if<SoftmaxAttention>(&layer.mixer)) {
    text = fmt::format("attention {} heads of {}, {} key-value heads", a->heads, a->head_dim, a->kv_heads);
    if (a->q.present() || a->k.present() || a->v.present() || a->o.present())
      text += fmt::format(", parameter tokens q {} k {} v {} o {}", a->q.tokens, a->k.tokens, a->v.tokens, a->o.tokens);
    if (a->convolution) text += fmt::format(", convolution of {}", a->convolution);
  }
  if (const auto* a = std::get_if<LogSumExpAttention>(&layer.mixer)) {
    text = fmt::format("log-sum-exp attention {} heads of {}, {} states", a->heads, a->head_dim, a->kv_heads);
    if (a->log_values) text += ", values in log space";
    if (a->decay) text += ", decay";
    if (a->convolution) text += fmt::format(", convolution of {}", a->convolution);
    if (a->window) text += fmt::format(", {} of {}", a->shared_window ? "shared window" : "window", a->window);
    if (a->feature_dim) text += fmt::format(", {} features", a->feature_dim);
    if (a->output_glu) text += ", gated output";
  }
  const auto describe_mlp = [](const auto& m, const char* kind) {
    return fmt::format("{} {} {}", kind, m.hidden, name_of(m.activation));
  };
  if (const auto* m = std::get_if<Mlp>(&layer.mlp)) return text + "; " + describe_mlp(*m, "MLP");
  if (const auto* m = std::get_if<GatedMlp>(&layer.mlp)) return text + "; " + describe_mlp(*m, "gated MLP");
  if (const auto* t = std::get_if<ParameterTokens>(&layer.mlp))
    return text + fmt::format("; {} parameter tokens", t->tokens);
  return text + "; no MLP";
}

// Parameters by what they do, and bytes by number format.
struct Parts {
  std::map<std::string, i64> parameters{{"embedding", 0}, {"attention", 0}, {"mlp", 0}, {"norm", 0}, {"head", 0}};
  std::map<std::string, i64> bytes_by_dtype;
};
Parts parts_of(const Model& model) {
  Parts parts;
  for_each_parameter(
      parameter_specs(model.config),
      [&](const std::string& name, const ParameterSpec& spec, const Matrix& matrix) {
        const auto holds = [&](std::string_view part) { return name.find(part) != std::string::npos; };
        const char* kind = holds("norm")         ? "norm"
                           : holds("embed_")     ? "embedding"
                           : holds("position_")  ? "embedding"
                           : holds("self_attn.") ? "attention"
                           : holds("mlp.")       ? "mlp"
                                                 : "head";
        parts.parameters[kind] += spec.size();
        parts.bytes_by_dtype[std::string(name_of(matrix.dtype))] += static_cast<i64>(matrix.bytes.size());
      },
      model.weights);
  return parts;
}

// The format of the files and the name that they give the architecture: "gguf: llama", "Hugging Face: qwen2".
std::string stored_as(const fs::path& path) {
  if (path.extension() == ".gguf") {
    const GgufFile file = GgufFile::open(path);
    return "gguf: " + printable(GgufFields(file).required<std::string>("general.architecture"));
  }
  if (!fs::is_directory(path)) return "llama2.c";
  const std::string config = (path / "config.json").string();
  const Json json = parse_json(read_text(config), config);
  return "Hugging Face: " + printable(Fields(json, config).or_default<std::string>("model_type", "no model_type"));
}

Json model_json(const std::string& path, const Model& model, const std::optional<Tokenizer>& tokenizer) {
  const Config& config = model.config;
  const Parts parts = parts_of(model);
  Json per_layer = Json::array();
  for (size_t i = 0; i < config.layers.size(); ++i) per_layer.push_back(layer_json(config, i));
  return {{"architecture", architecture_name(config)},
          {"stored_as", stored_as(path)},
          {"parameters", parameter_count(config)},
          {"embedding_parameters", embedding_parameter_count(config)},
          {"parameters_by_kind", parts.parameters},
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
          {"bytes_by_dtype", parts.bytes_by_dtype},
          {"decode_bytes", decode_bytes(model)},
          {"cache_bytes_per_token", cache_bytes_per_token(config)},
          {"state_bytes", state_elements(config) * size_of(DType::f32)},
          {"flops_per_token", flops_per_token(config, static_cast<double>(config.context) / 2)},
          {"tokenizer", tokenizer_json(tokenizer)},
          {"per_layer", per_layer}};
}

void print_tokenizer(const Json& tokenizer) {
  if (tokenizer.is_null()) {
    fmt::print("  tokenizer        none\n");
    return;
  }
  const auto text = [&](const char* field) {
    const Json& value = tokenizer[field];
    return value.is_null() ? "none" : value.is_string() ? value.get<std::string>() : value.dump();
  };
  fmt::print("  tokenizer        {} tokens, {}\n", format_count(tokenizer["vocab"].get<double>()), text("kind"));
  fmt::print("    special        {} tokens, text begins with {}, ends with {}\n", text("special_tokens"),
             text("beginning_of_text"), text("end_of_text"));
  fmt::print("    chat template  {}\n", text("chat_template"));
}

void print_model(const std::string& path, const Model& model, const std::optional<Tokenizer>& tokenizer) {
  const Config& config = model.config;
  const auto number = [](auto value) { return format_count(static_cast<double>(value)); };
  fmt::print("{}: {} ({})\n", path, architecture_name(config), stored_as(path));
  fmt::print("  parameters       {} ({} of them in tables)\n", number(parameter_count(config)),
             number(embedding_parameter_count(config)));
  const Parts parts = parts_of(model);
  std::vector<std::string> kinds, dtypes;
  for (const auto& [kind, count] : parts.parameters)
    if (count > 0) kinds.push_back(fmt::format("{} {}", kind, number(count)));
  for (const auto& [dtype, bytes] : parts.bytes_by_dtype)
    dtypes.push_back(fmt::format("{} in {}", format_bytes(static_cast<double>(bytes)), dtype));
  fmt::print("    by kind        {}\n", fmt::join(kinds, ", "));
  fmt::print("  weights          {}\n", fmt::join(dtypes, ", "));
  fmt::print("  cache per token  {} bytes in f16; {} for all {} positions\n", number(cache_bytes_per_token(config)),
             format_bytes(static_cast<double>(cache_bytes_per_token(config) * config.context)), number(config.context));
  if (state_elements(config))
    fmt::print("  state            {} for any number of positions\n",
               format_bytes(static_cast<double>(state_elements(config) * size_of(DType::f32))));
  fmt::print("  operations       {} M per token in the middle of its context\n",
             number(flops_per_token(config, static_cast<double>(config.context) / 2) / 1e6));
  fmt::print("  shape            dim {}, vocabulary {}{}, {} norm, {} positions, {} residual\n", config.dim,
             number(config.vocab), config.tied ? " (tied head)" : "", enum_name(config.norm.kind),
             enum_name(config.positions), enum_name(config.residual));
  print_tokenizer(tokenizer_json(tokenizer));
  for (size_t i = 0; i < config.layers.size();) {
    size_t end = i + 1;
    while (end < config.layers.size() && config.layers[end] == config.layers[i]) ++end;
    const std::string range = end - i == 1 ? fmt::format("layer {}", i) : fmt::format("layers {}-{}", i, end - 1);
    fmt::print("  {:<16} {}\n", range, layer_text(config.layers[i]));
    i = end;
  }
}

// A file that is no model: its tensors by name, or its tokenizer, or one line a fact.
void print_file(const std::string& path, const Json& json) {
  fmt::print("{}\n", path);
  for (const auto& [key, value] : json.items()) {
    if (key == "tokenizer") {
      print_tokenizer(value);
    } else if (key == "tensor_list") {
      for (const Json& tensor : value)
        fmt::print("  {:<40} {:<5} {}\n", tensor["name"].get<std::string>(), tensor["dtype"].get<std::string>(),
                   tensor["shape"].dump());
    } else {
      fmt::print("  {:<16} {}\n", key, value.is_string() ? value.get<std::string>() : value.dump());
    }
  }
}

std::optional<Tokenizer> tokenizer_beside(const fs::path& path) {
  if (path.extension() == ".gguf") {
    const GgufFile file = GgufFile::open(path);
    return GgufFields(file).find("tokenizer.ggml.model") ? std::optional(Tokenizer::load(path)) : std::nullopt;
  }
  return tokenizer_file(path) ? std::optional(Tokenizer::load(path)) : std::nullopt;
}

Json inspect_file(FileKind kind, const fs::path& path) {
  switch (kind) {
    case FileKind::tensors:
      return inspect_tensors(path);
    case FileKind::vocabulary:
      return inspect_vocabulary(path);
    case FileKind::config:
      return inspect_config(path);
    case FileKind::chat:
      return inspect_chat_template(path);
    case FileKind::model:
      break;
  }
  check(false, "a model is inspected as one");
  return {};
}

Exit run_inspect(const std::string& path, bool tensors, bool json) {
  const FileKind kind = tensors && !fs::is_directory(path) ? FileKind::tensors : kind_of_file(path);
  if (kind != FileKind::model || tensors) {
    const Json file = tensors ? inspect_tensors(path) : inspect_file(kind, path);
    json ? print_json(file) : print_file(path, file);
    return Exit::done;
  }
  const Model model = load_model(path);
  const std::optional<Tokenizer> tokenizer = tokenizer_beside(path);
  json ? print_json(model_json(path, model, tokenizer)) : print_model(path, model, tokenizer);
  return Exit::done;
}

}  // namespace

void add_inspect(CLI::App& program, Command& command) {
  struct InspectFlags {
    ModelFlags model;
    FiringFlags firings;
    bool tensors = false;
  };
  const auto flags = std::make_shared<InspectFlags>();
  CLI::App* verb = add_verb(program, command, "inspect", "what a model or a file of one holds and what it costs");
  verb->add_option("MODEL", flags->model.path, "model directory, or a file: weights, tokenizer, config, chat template")
      ->required();
  verb->add_flag("--tensors", flags->tensors, "list the tensors as they are stored, whatever model they belong to");
  add_firing_flags(verb, flags->firings);
  add_example(verb,
              "sparsam inspect model --json\n"
              "  sparsam inspect model --tokens text.txt --follow 3.mlp.17");
  on_chosen(verb, command, [flags, &command] {
    if (flags->firings.wanted()) return inspect_firings(flags->model, flags->firings, command.common);
    if (!flags->firings.followed.empty() || !flags->firings.at.empty())
      fail_usage("inspect: --follow and --at are of a text: give --tokens FILE or --text");
    return run_inspect(flags->model.path, flags->tensors, command.common.json);
  });
}

}  // namespace sparsam
