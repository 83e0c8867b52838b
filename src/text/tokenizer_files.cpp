// Where a tokenizer comes from: one of six kinds of files, or a directory with what stands beside it.
#include <algorithm>

#include "base/error.h"
#include "text/gguf_vocabulary.h"
#include "text/tokenizer.h"
#include "text/tokenizer_data.h"

namespace sparsam {
namespace {

// The text of a token in tokenizer_config.json: a string, or an object that holds it.
std::optional<std::string> token_text(Fields& config, const char* field) {
  const Json* value = config.find(field);
  if (value == nullptr) return std::nullopt;
  if (value->is_object()) return Fields(*value, config.where() + ": " + field).optional<std::string>("content");
  return value->is_string() ? std::optional(value->get<std::string>()) : std::nullopt;
}

std::optional<std::string> template_of(Fields& config) {
  const Json* value = config.find("chat_template");
  if (value == nullptr) return std::nullopt;
  if (value->is_string()) return value->get<std::string>();
  // Several by name: the default is for conversation.
  for (const Json& item : config.required<std::vector<Json>>("chat_template")) {
    Fields named(item, config.where() + ": chat_template");
    if (named.required<std::string>("name") == "default") return named.required<std::string>("template");
  }
  return std::nullopt;
}

// tokenizer_config.json knows which tokens begin and end a text; what else is in it, the tokenizer says itself.
void read_config(const fs::path& path, TokenizerData& data) {
  const std::string where = path.string();
  const Json json = parse_json(MappedFile(path).text(), where);
  Fields config(json, where);
  struct Role {
    const char* field;
    std::optional<i32> SpecialIds::*id;
  };
  for (const Role& role :
       {Role{"bos_token", &SpecialIds::bos}, Role{"eos_token", &SpecialIds::eos}, Role{"unk_token", &SpecialIds::unk},
        Role{"pad_token", &SpecialIds::pad}, Role{"sep_token", &SpecialIds::sep}, Role{"cls_token", &SpecialIds::cls},
        Role{"mask_token", &SpecialIds::mask}})
    if (const auto text = token_text(config, role.field))
      if (const i32 id = data.names.find(*text); id >= 0) data.special.*role.id = id;
  if (!data.end_of_text) data.end_of_text = data.special.eos;
  data.chat_template = template_of(config);
  if (!data.from_sentencepiece) return;
  const auto around = [&](const char* field, std::vector<i32>& ids, std::optional<i32> id) {
    if (const auto wanted = config.optional<bool>(field)) ids = *wanted && id ? std::vector{*id} : std::vector<i32>();
  };
  const std::string kind = config.or_default<std::string>("tokenizer_class", "");
  if (kind.starts_with("T5") && data.special.eos) data.suffix = {*data.special.eos};
  around("add_bos_token", data.prefix, data.special.bos);
  around("add_eos_token", data.suffix, data.special.eos);
}

void read_siblings(const fs::path& directory, TokenizerData& data) {
  if (const fs::path config = directory / "tokenizer_config.json"; fs::exists(config)) read_config(config, data);
  if (const fs::path file = directory / "chat_template.jinja"; fs::exists(file)) data.chat_template = read_text(file);
}

std::shared_ptr<TokenizerData> read_gguf(const fs::path& path) {
  const GgufFile file = GgufFile::open(path);
  auto data = read_vocabulary(read_vocabulary(file), path.string());
  data->chat_template = read_chat_template(file);
  return data;
}

}  // namespace

namespace {

// BPE models that leave the text as it is but for its spaces need nothing that is not here too, and here a long text
// takes a fiftieth of the time. Symbols of the user stay with the library: it gives them no space of their own.
bool is_plain_bpe(const Vocabulary& v) {
  return v.model == "llama" && v.charsmap.empty() && !v.remove_extra_whitespaces && v.unk &&
         std::find(v.types.begin(), v.types.end(), TokenType::user_defined) == v.types.end();
}

}  // namespace

std::shared_ptr<TokenizerData> read_sentencepiece(std::string_view model, std::string_view where) {
  SentencePiece sentencepiece(model, where);
  if (is_plain_bpe(sentencepiece.vocabulary())) return read_vocabulary(sentencepiece.vocabulary(), where);
  auto data = std::make_shared<TokenizerData>();
  data->where = where;
  const Vocabulary& v = data->vocabulary.emplace(sentencepiece.vocabulary());
  data->model = std::move(sentencepiece);
  data->names.assign({v.tokens.begin(), v.tokens.end()});
  std::vector<AddedToken> added;  // control tokens, which the library never sees in a text
  std::vector<std::optional<std::string>> units(v.tokens.begin(), v.tokens.end());
  for (size_t id = 0; id < v.tokens.size(); ++id)
    if (v.types[id] == TokenType::control || v.types[id] == TokenType::unknown) {
      units[id].reset();
      added.push_back({.id = static_cast<i32>(id), .content = v.tokens[id], .special = true});
    }
  data->units.assign(std::move(units));
  data->added = AddedTokens(std::move(added));
  data->decoder.steps = {Decoder::Replace{"\u2581", " "}, Decoder::ByteFallback{}};
  if (v.add_space_prefix) data->decoder.whole_steps = {Decoder::Strip{" ", 1, 0}};
  data->special = v;
  data->end_of_text = v.eos;
  if (v.add_bos) data->prefix = {*v.bos};
  data->place_bytes();
  return data;
}

std::optional<fs::path> tokenizer_file(const fs::path& directory) {
  for (const char* name : {"tokenizer.json", "tokenizer.model", "spiece.model"})
    if (fs::exists(directory / name)) return directory / name;
  const bool old = fs::exists(directory / "vocab.json") && fs::exists(directory / "merges.txt");
  return old ? std::optional(directory / "vocab.json") : std::nullopt;
}

Tokenizer Tokenizer::load(const fs::path& path) {
  if (!fs::exists(path)) fail("{}: no such file or directory", path.string());
  fs::path file = path;
  if (fs::is_directory(path)) {
    const auto found = tokenizer_file(path);
    if (!found)
      fail("{}: found neither tokenizer.json nor tokenizer.model nor vocab.json with merges.txt", path.string());
    file = *found;
  }
  if (file.filename() == "vocab.json") {
    auto data = read_vocab_and_merges(file.parent_path());
    read_siblings(file.parent_path(), *data);
    return Tokenizer(std::move(data));
  }
  const fs::path kind = file.extension();
  if (kind == ".gguf") return Tokenizer(read_gguf(file));
  const MappedFile mapped(file);
  const std::string where = file.string();
  const bool sentencepiece = kind == ".model" && !is_tiktoken(mapped.text());  // Llama 3's own files are tiktoken's
  auto data = sentencepiece ? read_sentencepiece(mapped.text(), where)
              : kind == ".model" || kind == ".tiktoken"
                  ? read_vocabulary(read_tiktoken_vocabulary(mapped.text(), where), where)
              : kind == ".bin" ? read_vocabulary(read_llama2c_vocabulary(mapped.text(), where), where)
                               : read_tokenizer_json(mapped.text(), where);
  data->from_sentencepiece = sentencepiece;
  if (fs::is_directory(path)) read_siblings(path, *data);
  return Tokenizer(std::move(data));
}

}  // namespace sparsam
