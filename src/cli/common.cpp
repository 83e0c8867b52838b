#include "cli/common.h"

#include "base/progress.h"
#include "text/corpus.h"

namespace sparsam {

void add_compute_flags(CLI::App* verb, ModelFlags& flags) {
  verb->add_option("--backend", flags.backend, "cpu, or the slow and simple reference")->capture_default_str();
  verb->add_option("--precision", flags.precision, "inner products in f32 or bf16 (auto: bf16 for weights in bf16)")
      ->capture_default_str();
}

void add_model_flags(CLI::App* verb, ModelFlags& flags) {
  verb->add_option("MODEL", flags.path, "model: a directory of Hugging Face's, .gguf, .safetensors, .bin")->required();
  verb->add_option(
      "--override-activation", flags.activation,
      "activation of the MLPs where the files do not tell: relu, drelu (of both branches), fatrelu:0.01, ...");
  add_compute_flags(verb, flags);
}

std::string_view name_of(Compute compute) { return compute == Compute::bf16 ? "bf16" : "f32"; }

Compute compute_of(const std::string& precision, const Model& model) {
  if (precision == "f32") return Compute::f32;
  if (precision == "bf16") return Compute::bf16;
  if (precision != "auto")
    fail_unknown("precision", precision, std::vector<std::string>{"auto", "f32", "bf16"}, "--precision", Exit::usage);
  return model.weights.token_embedding.dtype == DType::bf16 ? Compute::bf16 : Compute::f32;
}

OpenModel open_any_model(const ModelFlags& flags) {
  const std::string& path = flags.path;
  Model model = load_model(path, {.activation = flags.activation});
  const fs::path file(path);  // weights alone have their tokenizer beside them, like their config.json
  const bool alone = file.extension() == ".safetensors" || file.extension() == ".bin";
  Tokenizer tokenizer = Tokenizer::load(alone ? fs::absolute(file).parent_path() : file);
  const Compute compute = compute_of(flags.precision, model);
  if (tokenizer.vocab_size() > model.config.vocab)
    fail("{}: the tokenizer has {} tokens, the model's vocabulary {}: they do not belong together", path,
         tokenizer.vocab_size(), model.config.vocab);
  return {path, std::move(model), std::move(tokenizer), compute};
}

OpenModel open_model(const ModelFlags& flags) {
  OpenModel open = open_any_model(flags);
  require_language_model(open.model.config, open.path);
  return open;
}

TokenText load_text(const std::string& path, const Tokenizer& tokenizer) {
  const std::string text = read_text(path);
  if (text.empty()) fail("{}: empty, expected text", path);
  return {encode_parallel(tokenizer, text), tokenizer.beginning_of_text(), path};
}

TokenText embedded_text(i64 tokens, u64 seed, const Tokenizer& tokenizer) {
  constexpr i64 most_bytes_per_token = 6;
  const Corpus corpus = embedded_corpus(tokens * most_bytes_per_token, seed);
  return {encode_parallel(tokenizer, corpus.text), tokenizer.beginning_of_text(), "embedded corpus"};
}

void print_json(const Json& json) { fmt::print("{}\n", format_json(json, "result", 2)); }

i64 cache_bytes_per_token(const Config& config, DType dtype) {
  return cache_elements_per_token(config) * size_of(dtype);
}

std::string architecture_name(const Config& config) { return to_json(config)["architectures"][0].get<std::string>(); }

Json costs_json(const Model& model) {
  return {{"parameters", parameter_count(model.config)},
          {"layers", model.config.layers.size()},
          {"weight_bytes", weight_bytes(model)},
          {"cache_bytes_per_token", cache_bytes_per_token(model.config)}};
}
void print_costs(const Model& before, const Model& after) {
  const auto row = [](const char* what, auto was, auto is) {
    fmt::print("{:<22} {:>15} -> {:>15}\n", what, format_count(static_cast<double>(was)),
               format_count(static_cast<double>(is)));
  };
  row("parameters", parameter_count(before.config), parameter_count(after.config));
  row("layers", before.config.layers.size(), after.config.layers.size());
  row("bytes of weights", weight_bytes(before), weight_bytes(after));
  row("cache bytes per token", cache_bytes_per_token(before.config), cache_bytes_per_token(after.config));
}

void add_example(CLI::App* verb, const std::string& commands) { verb->footer("Example:\n  " + commands); }

void on_chosen(CLI::App* verb, Command& command, std::function<Exit()> run) {
  verb->callback([&command, run = std::move(run)] { command.run = run; });
}

}  // namespace sparsam
