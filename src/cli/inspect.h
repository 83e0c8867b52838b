// What `inspect` finds in a file that is no model: tensors, a tokenizer, a description, images.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/common.h"
#include "formats/safetensors.h"

namespace sparsam {

// The kinds of file that `inspect` knows, told by name and first bytes. Error: none of them.
enum class FileKind : u8 {
  model,       // a directory with config.json, llama2.c's .bin, a GGUF file with tensors
  tensors,     // safetensors, an index of shards, a file of torch.save, CTranslate2's model.bin, IDX
  vocabulary,  // tokenizer.json, .model or .tiktoken, llama2.c's tok*.bin, a GGUF file or directory without weights
  config,      // config.json alone
  chat,        // a .jinja file
};
FileKind kind_of_file(const fs::path& path);

// Each reads the whole file; errors are those of its reader. JSON as `--json` prints it.
Json inspect_tensors(const fs::path& path);
Json inspect_vocabulary(const fs::path& path);
Json inspect_config(const fs::path& path);
Json inspect_chat_template(const fs::path& path);

// Facts about a tokenizer; null without one.
Json tokenizer_json(const std::optional<Tokenizer>& tokenizer);

}  // namespace sparsam
