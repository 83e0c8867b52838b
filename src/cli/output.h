// Where verbs write a model: a file whose name ends in .gguf, or a Hugging Face directory.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "formats/json.h"
#include "model/model.h"
#include "text/tokenizer.h"

namespace sparsam {

// Before the work: Errors (usage) when `out` is the model `from` itself, or something that is there and is no model.
void check_output(const std::string& verb, const std::string& out, const std::string& from);

// Writes the model, whole or not at all, with the tokenizer, chat template and other companions of the one at `from`.
// The manifest, which says how it came about, becomes sparsam.json in a directory and sparsam.manifest in a GGUF file.
// `add` writes what else belongs into a directory. Errors: the disk; what the format cannot say, by name.
void save_output(const Model& model, const std::optional<Tokenizer>& tokenizer, const std::string& from,
                 const std::string& out, const Json& manifest, const std::function<void(const fs::path&)>& add = {});

// The tokenizer of a model that has one. Errors: one that is damaged.
std::optional<Tokenizer> tokenizer_beside(const std::string& model);

}  // namespace sparsam
