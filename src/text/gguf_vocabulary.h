// The tokenizer inside a GGUF file: its keys tokenizer.*, read with llama.cpp's defaults.
#pragma once

#include <optional>
#include <string>

#include "formats/gguf.h"
#include "text/vocabulary.h"

namespace sparsam {

// Error: no vocabulary, lists of different lengths, ids outside it, kinds that are not supported.
Vocabulary read_vocabulary(const GgufFile& file);
std::optional<std::string> read_chat_template(const GgufFile& file);

}  // namespace sparsam
