#include "cli/output.h"

#include "base/files.h"
#include "base/interrupt.h"
#include "formats/gguf.h"
#include "model/gguf.h"
#include "model/pairing.h"

namespace sparsam {

namespace {

// Files of a model directory that levers do not change.
constexpr const char* companions[] = {"tokenizer.json",          "tokenizer.model",        "tokenizer_config.json",
                                      "special_tokens_map.json", "generation_config.json", "chat_template.jinja"};

bool is_gguf(const fs::path& path) { return path.extension() == ".gguf"; }

// What Hugging Face's loaders want beside tokenizer.json, from a file that has all in one.
void write_tokenizer(const Tokenizer& tokenizer, const fs::path& directory) {
  write_text(directory / "tokenizer.json", tokenizer.to_json());
  const Vocabulary vocabulary = tokenizer.vocabulary();
  Json config{{"tokenizer_class", "PreTrainedTokenizerFast"}, {"clean_up_tokenization_spaces", false}};
  Json generation = Json::object();
  const auto add = [&](const char* name, std::optional<i32> id) {
    if (!id) return;
    config[fmt::format("{}_token", name)] = vocabulary.tokens[static_cast<size_t>(*id)];
    generation[fmt::format("{}_token_id", name)] = *id;
  };
  add("bos", vocabulary.bos), add("eos", vocabulary.eos), add("pad", vocabulary.pad);
  if (vocabulary.unk) config["unk_token"] = vocabulary.tokens[static_cast<size_t>(*vocabulary.unk)];
  if (tokenizer.chat_template()) config["chat_template"] = *tokenizer.chat_template();
  const auto write = [&](const char* name, const Json& json) {
    write_text(directory / name, format_json(json, name, 2) + "\n");
  };
  write("tokenizer_config.json", config), write("generation_config.json", generation);
}

void save_directory(const Model& model, const std::optional<Tokenizer>& tokenizer, const fs::path& from,
                    const fs::path& out, const Json& manifest, const std::function<void(const fs::path&)>& add) {
  AtomicDirectory directory(out);
  save_model(is_gguf(from) ? with_pairing(model, Pairing::halves) : model, directory.path());
  const fs::path beside = fs::is_directory(from) ? from : from.parent_path();
  for (const char* name : companions)
    if (!is_gguf(from) && fs::exists(beside / name)) fs::copy_file(beside / name, directory.path() / name);
  if (tokenizer && is_gguf(from))
    write_tokenizer(*tokenizer, directory.path());
  else if (tokenizer && tokenizer_file(beside) == beside / "vocab.json")  // means something beside its config.json only
    write_text(directory.path() / "tokenizer.json", tokenizer->to_json());
  write_text(directory.path() / "sparsam.json", format_json(manifest, "sparsam.json", 2) + "\n");
  if (add) add(directory.path());
  directory.commit();
}

}  // namespace

void check_output(const std::string& verb, const std::string& out_name, const std::string& from) {
  const fs::path out(out_name);
  if (!fs::exists(out)) return;
  if (fs::exists(from) && fs::equivalent(out, from))
    fail_usage("{}: the output {} is the model itself; expected another name", verb, out_name);
  if (is_gguf(out) && fs::is_regular_file(out)) return;  // replaced, as a file is
  // Replacing a directory removes what is in it: only a model may be replaced.
  if (is_gguf(out) || !fs::is_directory(out) || (!fs::is_empty(out) && !fs::exists(out / "config.json")))
    fail_usage("{}: the output {} exists and is no model {}; expected a new name", verb, out_name,
               is_gguf(out) ? "file" : "directory");
}

void save_output(const Model& model, const std::optional<Tokenizer>& tokenizer, const std::string& from,
                 const std::string& out, const Json& manifest, const std::function<void(const fs::path&)>& add) {
  install_interrupt_handler();  // from here on Ctrl-C waits until the output stands under its name
  if (!is_gguf(out)) return save_directory(model, tokenizer, from, out, manifest, add);
  GgufText text{.name = fs::path(out).stem().string(), .manifest = format_json(manifest, "manifest")};
  if (tokenizer) text.vocabulary = tokenizer->vocabulary(), text.chat_template = tokenizer->chat_template();
  save_gguf(model, text, out);
}

std::optional<Tokenizer> tokenizer_beside(const std::string& model) {
  const fs::path path(model);
  const fs::path folder = fs::is_directory(path) ? path : path.parent_path();
  const auto in_gguf = [&] {
    const GgufFile file = GgufFile::open(path);
    return GgufFields(file).find("tokenizer.ggml.tokens") != nullptr;
  };
  const bool has_one = is_gguf(path) ? in_gguf() : tokenizer_file(folder).has_value();
  if (!has_one) return std::nullopt;
  return Tokenizer::load(is_gguf(path) ? path : folder);
}

}  // namespace sparsam
