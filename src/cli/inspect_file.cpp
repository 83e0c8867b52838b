#include <algorithm>
#include <map>

#include "cli/inspect.h"
#include "formats/ctranslate2.h"
#include "formats/gguf.h"
#include "formats/idx.h"
#include "formats/torch_file.h"
#include "model/hugging_face.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace sparsam {

namespace {

bool ends_with(const fs::path& path, std::string_view end) { return path.string().ends_with(end); }

bool is_idx(const fs::path& path) {
  return ends_with(path, ".idx") || ends_with(path, ".idx.gz") ||
         path.filename().string().find("-ubyte") != std::string::npos;
}
bool is_torch(const fs::path& path) {
  if (!fs::is_regular_file(path)) return false;
  return ends_with(path, ".pt") || ends_with(path, ".pth") || ends_with(path, ".ckpt") ||
         ends_with(path, ".state_dict") || (ends_with(path, ".bin") && TorchFile::is_archive(MappedFile(path).bytes()));
}
bool is_ctranslate2(const fs::path& path) {
  return ends_with(path, ".bin") && fs::is_regular_file(path) && Ctranslate2File::is_model(MappedFile(path).bytes());
}

Json tensor_list(const std::vector<TensorEntry>& tensors) {
  Json list = Json::array();
  for (const TensorEntry& tensor : tensors)
    list.push_back({{"name", printable(tensor.name)},
                    {"dtype", name_of(tensor.dtype)},
                    {"shape", tensor.shape},
                    {"bytes", tensor.bytes.size()}});
  return list;
}

Json tensors_json(const char* format, const std::vector<TensorEntry>& tensors) {
  i64 elements = 0, bytes = 0;
  std::map<std::string, i64> dtypes;
  for (const TensorEntry& tensor : tensors) {
    elements += tensor.elements();
    bytes += static_cast<i64>(tensor.bytes.size());
    dtypes[std::string(name_of(tensor.dtype))] += static_cast<i64>(tensor.bytes.size());
  }
  return {{"format", format}, {"tensors", tensors.size()}, {"parameters", elements},
          {"bytes", bytes},   {"bytes_by_dtype", dtypes},  {"tensor_list", tensor_list(tensors)}};
}

// The texts and numbers of the metadata; of an array its length.
Json metadata_json(const GgufMetadata& metadata) {
  Json json = Json::object();
  for (const auto& [key, value] : metadata)
    json[key] = std::visit(
        []<class T>(const T& plain) -> Json {
          if constexpr (std::same_as<T, std::string>)
            return printable(plain);
          else if constexpr (std::same_as<T, GgufArray>)
            return fmt::format("{} values", std::visit(
                                                []<class Items>(const Items& items) {
                                                  if constexpr (requires { items.size(); }) return items.size();
                                                  return size_t{0};
                                                },
                                                plain.items));
          else
            return plain;
        },
        value);
  return json;
}

}  // namespace

FileKind kind_of_file(const fs::path& path) {
  if (!fs::exists(path)) fail("{}: no such model directory or file", path.string());
  if (fs::is_directory(path)) {
    return tokenizer_file(path) && !fs::exists(path / "config.json") ? FileKind::vocabulary : FileKind::model;
  }
  if (ends_with(path, ".gguf")) return GgufFile::open(path).tensors().empty() ? FileKind::vocabulary : FileKind::model;
  if (ends_with(path, ".safetensors") || ends_with(path, ".index.json") || is_idx(path) || is_torch(path) ||
      is_ctranslate2(path))
    return FileKind::tensors;
  if (ends_with(path, ".bin"))  // llama2.c: its vocabularies are tok512.bin, tokenizer.bin and the like
    return path.filename().string().find("tok") != std::string::npos ? FileKind::vocabulary : FileKind::model;
  if (path.filename() == "config.json") return FileKind::config;
  if (ends_with(path, ".json") || ends_with(path, ".model") || ends_with(path, ".tiktoken"))
    return FileKind::vocabulary;
  if (ends_with(path, ".jinja")) return FileKind::chat;
  fail(
      "{}: expected a model directory, or a file whose name ends in .safetensors, .index.json, .gguf, .bin, .pt, .pth, "
      ".ckpt, .state_dict, .json, .model, .tiktoken, .jinja or .idx",
      path.string());
}

Json inspect_tensors(const fs::path& path) {
  if (ends_with(path, ".gguf")) {
    const GgufFile file = GgufFile::open(path);
    Json json = tensors_json("gguf", file.tensors());
    json["metadata"] = metadata_json(file.metadata());
    return json;
  }
  if (is_idx(path)) {
    const IdxArray array = read_idx(path);
    return tensors_json("idx", {array.entry()});
  }
  if (is_ctranslate2(path)) {
    const Ctranslate2File file = Ctranslate2File::open(path);
    Json json = tensors_json("ctranslate2", file.tensors());
    json["metadata"] = {
        {"version", file.version()}, {"specification", printable(file.specification())}, {"revision", file.revision()}};
    return json;
  }
  const fs::path torch = fs::is_directory(path) ? path / "pytorch_model.bin" : path;
  const bool safetensors = fs::exists(path / "model.safetensors") || fs::exists(path / "model.safetensors.index.json");
  if (is_torch(torch) && !safetensors) return tensors_json("torch", TorchFile::open(torch).tensors());
  const SafetensorsFile file = SafetensorsFile::open(path);
  Json json = tensors_json("safetensors", file.tensors());
  for (const auto& [key, text] : file.metadata()) json["metadata"][printable(key)] = printable(text);
  return json;
}

Json inspect_vocabulary(const fs::path& path) { return {{"tokenizer", tokenizer_json(Tokenizer::load(path))}}; }

Json inspect_config(const fs::path& path) {
  const Config config = read_hugging_face(parse_json(read_text(path), path.string()), path.string()).config;
  return {{"architecture", architecture_name(config)},
          {"parameters", parameter_count(config)},
          {"layers", config.layers.size()}};
}

Json inspect_chat_template(const fs::path& path) {
  ChatTemplate::parse(read_text(path), path.string());
  return {{"chat_template", "supported"}};
}

Json tokenizer_json(const std::optional<Tokenizer>& tokenizer) {
  if (!tokenizer) return nullptr;
  const auto id = [](std::optional<i32> token) { return token ? Json(*token) : Json(nullptr); };
  Json json{{"kind", nullptr},
            {"vocab", tokenizer->vocab_size()},
            {"end_of_text", id(tokenizer->end_of_text())},
            {"beginning_of_text", id(tokenizer->beginning_of_text())},
            {"special_tokens", nullptr},
            {"chat_template", nullptr}};
  try {
    const Vocabulary vocabulary = tokenizer->vocabulary();
    const std::map<std::string, const char*> kinds{
        {"gpt2", "byte-level BPE"}, {"llama", "sentencepiece BPE"}, {"t5", "Unigram"}, {"bert", "WordPiece"}};
    json["kind"] = kinds.contains(vocabulary.model) ? kinds.at(vocabulary.model) : vocabulary.model;
    json["special_tokens"] = std::count(vocabulary.types.begin(), vocabulary.types.end(), TokenType::control);
  } catch (const Error& error) {  // a kind that GGUF has no words for
    json["kind"] = error.what();
  }
  if (const auto& text = tokenizer->chat_template()) {
    json["chat_template"] = "supported";
    try {
      ChatTemplate::parse(*text, "chat template");
    } catch (const Error& error) {
      json["chat_template"] = error.what();
    }
  }
  return json;
}

}  // namespace sparsam
