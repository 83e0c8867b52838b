// What several verbs share: the flags that name a model and how it is computed, texts, and JSON on standard output.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cli/verbs.h"
#include "formats/json.h"
#include "measure/windows.h"
#include "model/model.h"
#include "text/tokenizer.h"

namespace sparsam {

struct ModelFlags {
  std::string path;
  std::string backend = "cpu", precision = "auto";
  std::string activation = {};  // LoadOptions::activation
};
void add_model_flags(CLI::App* verb, ModelFlags& flags);    // MODEL, --override-activation and the next
void add_compute_flags(CLI::App* verb, ModelFlags& flags);  // --backend, --precision

struct OpenModel {
  std::string path;
  Model model;
  Tokenizer tokenizer;
  Compute compute;
};
// Errors: everything that load_model() and Tokenizer::load() find; a tokenizer with more tokens than the model.
OpenModel open_any_model(const ModelFlags& flags);
OpenModel open_model(const ModelFlags& flags);  // Error where it is no language model, too
// "f32", "bf16", or "auto": bf16 for weights in bf16, else f32. Error (usage).
Compute compute_of(const std::string& precision, const Model& model);
std::string_view name_of(Compute compute);

// Error when the file is missing or empty, or the text has no tokens.
TokenText load_text(const std::string& path, const Tokenizer& tokenizer);
// Calibration text when none is given: the embedded corpus, about `tokens` tokens of it.
TokenText embedded_text(i64 tokens, u64 seed, const Tokenizer& tokenizer);

void print_json(const Json& json);

// What the weights, cache and compute of a model are, for several verbs' reports.
i64 cache_bytes_per_token(const Config& config, DType dtype = DType::f16);
std::string architecture_name(const Config& config);
Json costs_json(const Model& model);
void print_costs(const Model& before, const Model& after);  // parameters, layers, bytes: a line each

// "  example:\n    sparsam ..." at the foot of a verb's help.
void add_example(CLI::App* verb, const std::string& commands);
// Leaves `run` as what the program does when the verb is chosen.
void on_chosen(CLI::App* verb, Command& command, std::function<Exit()> run);

}  // namespace sparsam
