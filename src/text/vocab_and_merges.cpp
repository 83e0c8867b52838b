// vocab.json and merges.txt, from before tokenizer.json: what transformers makes of them, as a tokenizer.json.
#include <algorithm>
#include <array>
#include <map>
#include <optional>

#include "base/error.h"
#include "formats/json.h"
#include "text/pre_tokenizers.h"
#include "text/tokenizer_data.h"

namespace sparsam {
namespace {

// The classes whose tokenizers are byte-level BPE of this kind, and the model_type of config.json that stands for them
// where tokenizer_config.json names no class.
struct Kind {
  const char* name;
  bool qwen;  // texts are brought into Unicode's form C and cut in Qwen's way, not in GPT-2's
};
constexpr std::array kinds{Kind{"GPT2Tokenizer", false}, Kind{"CodeGenTokenizer", false}, Kind{"Qwen2Tokenizer", true}};
constexpr std::pair<std::string_view, std::string_view> classes[] = {
    {"gpt2", "GPT2Tokenizer"},   {"opt", "GPT2Tokenizer"},    {"codegen", "CodeGenTokenizer"},
    {"phi", "CodeGenTokenizer"}, {"qwen2", "Qwen2Tokenizer"}, {"qwen3", "Qwen2Tokenizer"}};

Json read_object(const fs::path& path) {
  if (!fs::exists(path)) return Json::object();
  Json json = parse_json(MappedFile(path).text(), path.string());
  if (!json.is_object()) fail("{}: expected an object", path.string());
  return json;
}

const Kind& kind_of(const fs::path& directory, const Json& config) {
  const std::string where = (directory / "tokenizer_config.json").string();
  std::string name = Fields(config, where).or_default<std::string>("tokenizer_class", "");
  if (name.empty()) {
    const fs::path path = directory / "config.json";
    const Json model = read_object(path);
    const auto type = Fields(model, path.string()).or_default<std::string>("model_type", "");
    for (const auto& [model_type, of_it] : classes)
      if (type == model_type) name = of_it;
    if (name.empty())
      fail(
          "{}: vocab.json and merges.txt without tokenizer.json, and neither tokenizer_class nor model_type ('{}') "
          "says "
          "how texts are cut",
          directory.string(), printable(type));
  }
  if (name.ends_with("Fast")) name.resize(name.size() - 4);
  std::vector<std::string> known;
  for (const Kind& kind : kinds) {
    if (kind.name == name) return kind;
    known.emplace_back(kind.name);
  }
  fail_unknown("tokenizer_class of vocab.json and merges.txt", printable(name), known, where);
}

Json read_merges(const fs::path& path) {
  const MappedFile file(path);
  Json merges = Json::array();
  std::string_view rest = file.text();
  while (!rest.empty()) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.empty() && !line.starts_with("#version")) merges.push_back(line);
  }
  return merges;
}

// Every token that stands for itself in a text: those of added_tokens_decoder with their flags, those of
// added_tokens.json, and those with a part to play.
class Added {
 public:
  Added(const fs::path& directory, const Json& config, const Json& vocabulary)
      : where_((directory / "tokenizer_config.json").string()) {
    const Json roles_file = read_object(directory / "special_tokens_map.json");
    Fields fields(config, where_), roles(roles_file, (directory / "special_tokens_map.json").string());
    if (const Json* decoder = fields.find("added_tokens_decoder"); decoder != nullptr && decoder->is_object())
      for (const auto& [id, token] : decoder->items()) add(token, id);
    const fs::path path = directory / "added_tokens.json";
    const Json more = read_object(path);
    for (const auto& [content, id] : more.items())
      if (!tokens_.contains(content)) add({{"content", content}}, id.is_number_integer() ? id.dump() : "");
    for (const char* role : {"bos_token", "eos_token", "unk_token", "pad_token"}) {
      const Json* token = fields.find(role);
      if (token == nullptr) token = roles.find(role);
      Json named = token != nullptr ? *token : Json("<|endoftext|>");  // all of these classes' own
      if (named.is_object()) named = named.value("content", Json());
      if (named.is_string()) special(named.get<std::string>(), vocabulary);
    }
    if (const Json* list = roles.find("additional_special_tokens"); list != nullptr && list->is_array())
      for (const Json& token : *list)
        if (token.is_string()) special(token.get<std::string>(), vocabulary);
  }

  // Nothing where there is no such token.
  std::optional<i64> id_of(const std::string& content) const {
    const auto found = tokens_.find(content);
    return found == tokens_.end() ? std::nullopt : std::optional(found->second.at("id").get<i64>());
  }

  Json list() const {
    Json all = Json::array();
    for (const auto& [content, token] : tokens_) all.push_back(token);
    return all;
  }

 private:
  void add(Json token, const std::string& id) {
    if (id.empty() || id.size() > 9 || id.find_first_not_of("0123456789") != std::string::npos)
      fail("{}: an added token has the id '{}', expected a number", where_, printable(id));
    Fields fields(token, where_ + ": added_tokens_decoder");
    const auto content = fields.required<std::string>("content");
    token["id"] = std::stoll(id);
    token.erase("__type");
    tokens_[content] = std::move(token);
  }
  void special(const std::string& content, const Json& vocabulary) {
    if (const auto known = tokens_.find(content); known != tokens_.end()) {
      known->second["special"] = true;
    } else if (const auto entry = vocabulary.find(content); entry != vocabulary.end()) {
      tokens_[content] = {{"id", *entry}, {"content", content}, {"special", true}};
    }  // else there is no such token: models name some that their vocabulary lacks
  }

  std::string where_;
  std::map<std::string, Json> tokens_;
};

}  // namespace

// As transformers' converters write it (convert_slow_tokenizer.py: GPT2Converter, Qwen2Converter).
std::shared_ptr<TokenizerData> read_vocab_and_merges(const fs::path& directory) {
  const fs::path path = directory / "tokenizer_config.json";
  const Json config = read_object(path), vocabulary = read_object(directory / "vocab.json");
  const Kind& kind = kind_of(directory, config);
  const Added added(directory, config, vocabulary);
  Fields fields(config, path.string());
  Json bytes{{"type", "ByteLevel"},
             {"add_prefix_space", fields.or_default<bool>("add_prefix_space", false)},
             {"trim_offsets", true},
             {"use_regex", !kind.qwen}};
  Json stages = Json::array(), around;
  if (kind.qwen)
    for (const std::string& pattern : pre_tokenizer_named("qwen2", path.string()).patterns)
      stages.push_back(
          {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}});
  stages.push_back(std::move(bytes));
  if (!kind.qwen && fields.or_default<bool>("add_bos_token", false)) {
    const Json* named = fields.find("bos_token");
    const std::string bos = named == nullptr     ? "<|endoftext|>"
                            : named->is_object() ? named->value("content", "")
                                                 : fields.required<std::string>("bos_token");
    const auto id = added.id_of(bos);
    if (!id) fail("{}: add_bos_token, but the vocabulary lacks the bos_token '{}'", path.string(), printable(bos));
    around = {
        {"type", "TemplateProcessing"},
        {"single", {{{"SpecialToken", {{"id", bos}, {"type_id", 0}}}}, {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
        {"pair", Json::array()},
        {"special_tokens", {{bos, {{"id", bos}, {"ids", {*id}}, {"tokens", {bos}}}}}}};
  }
  const Json root{{"version", "1.0"},
                  {"truncation", nullptr},
                  {"padding", nullptr},
                  {"added_tokens", added.list()},
                  {"normalizer", kind.qwen ? Json{{"type", "NFC"}} : Json()},
                  {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", std::move(stages)}}},
                  {"post_processor", std::move(around)},
                  {"decoder", {{"type", "ByteLevel"}}},
                  {"model",
                   {{"type", "BPE"},
                    {"ignore_merges", false},
                    {"vocab", vocabulary},
                    {"merges", read_merges(directory / "merges.txt")}}}};
  return read_tokenizer_json(format_json(root, directory.string()), directory.string());
}

}  // namespace sparsam
