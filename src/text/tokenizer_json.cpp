// Reading `tokenizer.json`. Strict: what would change the ids and is not understood is refused by its name.
#include <algorithm>
#include <unordered_set>

#include "base/error.h"
#include "formats/json.h"
#include "text/tokenizer.h"
#include "text/tokenizer_data.h"

namespace sparsam {
namespace {

constexpr i64 largest_vocabulary = 1 << 24;

[[noreturn]] void refuse(std::string_view where, std::string_view what) {
  fail("{}: {} is not supported; byte-level BPE is (models like GPT-2, Llama 3, Qwen without normalizer)", where, what);
}

std::string type_of(Fields& fields) { return fields.required<std::string>("type"); }

struct Model {
  std::vector<std::pair<std::string, i32>> vocab;
  std::vector<std::pair<std::string, std::string>> merges;
  bool ignore_merges = false;
};

std::pair<std::string, std::string> read_merge(const Json& merge, const std::string& where) {
  const auto wrong = [&]() {
    fail("{}: merge {} is not a pair of tokens", where, printable(format_json(merge, where)));
  };
  if (merge.is_array()) {
    if (merge.size() != 2 || !merge[0].is_string() || !merge[1].is_string()) wrong();
    return {merge[0].get<std::string>(), merge[1].get<std::string>()};
  }
  if (!merge.is_string()) wrong();
  const auto& text = merge.get_ref<const std::string&>();
  const size_t space = text.find(' ');
  if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) wrong();
  return {text.substr(0, space), text.substr(space + 1)};
}

Model read_model(Fields model) {
  const std::string type = model.or_default<std::string>("type", "BPE");
  if (type != "BPE") refuse(model.where(), fmt::format("type '{}'", printable(type)));
  if (model.or_default<double>("dropout", 0.0) != 0.0) refuse(model.where(), "dropout");
  if (model.or_default<bool>("byte_fallback", false)) refuse(model.where(), "byte_fallback (sentencepiece)");
  for (const char* field : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (!model.or_default<std::string>(field, "").empty()) refuse(model.where(), field);
  model.ignore("unk_token"), model.ignore("fuse_unk");  // a byte-level vocabulary knows every byte

  Model result;
  result.ignore_merges = model.or_default<bool>("ignore_merges", false);
  const Json absent;
  const auto part = [&](const char* field) -> const Json& {
    const Json* found = model.find(field);
    return found == nullptr ? absent : *found;
  };
  const Json& vocab = part("vocab");
  if (!vocab.is_object()) model.fail_value("vocab", vocab, "an object of token: id");
  for (const auto& [token, id] : vocab.items()) {
    if (!id.is_number_integer() || id.get<i64>() < 0 || id.get<i64>() >= largest_vocabulary)
      fail("{}: token '{}' has id {}, expected an integer from 0 to {}", model.where(), printable(token),
           format_json(id, model.where()), largest_vocabulary - 1);
    result.vocab.emplace_back(token, static_cast<i32>(id.get<i64>()));
  }
  if (result.vocab.empty()) fail("{}: the vocabulary is empty", model.where());
  const Json& merges = part("merges");
  if (!merges.is_array()) model.fail_value("merges", merges, "an array of pairs");
  for (const Json& merge : merges) result.merges.push_back(read_merge(merge, model.where()));
  model.finish();
  return result;
}

std::string pattern_of(Fields& split) {
  Fields pattern = split.object("pattern");
  const auto regex = pattern.optional<std::string>("Regex"), literal = pattern.optional<std::string>("String");
  pattern.finish();
  if (regex.has_value() == literal.has_value())
    fail("{}: found {} patterns, expected one of Regex, String", pattern.where(), regex ? 2 : 0);
  if (regex) return *regex;
  std::string quoted;
  for (char c : *literal) {
    const bool ascii_word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (!ascii_word && static_cast<u8>(c) < 128 && static_cast<u8>(c) > 32) quoted += '\\';
    quoted += c;
  }
  return quoted;
}

// Appends the stages of one pre-tokenizer; true if it was ByteLevel, after which nothing may follow.
bool read_pre_tokenizer(Fields pre, Splitter& splitter) {
  const auto add_regex = [&](std::string_view pattern) {
    if (pattern == gpt2_pattern)
      splitter.stages.emplace_back(Splitter::Gpt2{});
    else
      splitter.stages.emplace_back(Regex(pattern, pre.where()));
  };
  const std::string type = type_of(pre);
  bool bytes = false;
  if (type == "ByteLevel") {
    bytes = true;
    if (pre.or_default<bool>("add_prefix_space", true)) splitter.stages.emplace_back(Splitter::AddSpace{});
    if (pre.or_default<bool>("use_regex", true)) splitter.stages.emplace_back(Splitter::Gpt2{});
    pre.ignore("trim_offsets");
  } else if (type == "Split") {
    const std::string pattern = pattern_of(pre), behavior = pre.required<std::string>("behavior");
    const bool invert = pre.or_default<bool>("invert", false);
    // "Removed" of everything but the matches is "Isolated" for patterns that match all of a text, as those of cl100k
    // do; where one does not, nothing is lost here.
    if (behavior != "Isolated" && !(behavior == "Removed" && invert))
      refuse(pre.where(), fmt::format("Split with behavior '{}'", printable(behavior)));
    add_regex(pattern);
  } else if (type == "Digits") {
    add_regex(pre.or_default<bool>("individual_digits", false) ? R"(\p{N})" : R"(\p{N}+)");
  } else if (type == "Punctuation") {
    const std::string behavior = pre.or_default<std::string>("behavior", "Isolated");
    if (behavior != "Isolated" && behavior != "Contiguous")
      refuse(pre.where(), fmt::format("Punctuation with behavior '{}'", printable(behavior)));
    const std::string one = R"([\p{P}!-/:-@\[-`{-~])";
    add_regex(behavior == "Isolated" ? one : one + "+");
  } else if (type == "Sequence") {
    for (const Json& part : pre.required<std::vector<Json>>("pretokenizers")) {
      if (bytes) refuse(pre.where(), "a pre-tokenizer after ByteLevel");
      bytes = read_pre_tokenizer(Fields(part, pre.where()), splitter);
    }
  } else {
    refuse(pre.where(), fmt::format("type '{}'", printable(type)));
  }
  pre.finish();
  return bytes;
}

// The token that a post-processor puts before a text, if any. One after the text is refused.
std::optional<i32> read_post_processor(Fields post) {
  const std::string type = type_of(post);
  std::optional<i32> first;
  if (type == "Sequence") {
    for (const Json& part : post.required<std::vector<Json>>("processors"))
      if (const auto id = read_post_processor(Fields(part, post.where()))) first = id;
  } else if (type == "TemplateProcessing") {
    const Json special = post.or_default<Json>("special_tokens", Json::object());
    bool text_seen = false;
    for (const Json& part : post.required<std::vector<Json>>("single")) {
      Fields piece(part, post.where());
      if (piece.find("Sequence") != nullptr) {
        text_seen = true;
        continue;
      }
      Fields token = piece.object("SpecialToken");
      const std::string name = token.required<std::string>("id");
      if (text_seen) refuse(post.where(), fmt::format("a token after the text ('{}')", printable(name)));
      if (first) refuse(post.where(), "more than one token before the text");
      Fields all(special, post.where() + ": special_tokens");
      const auto ids = all.object(name).required<std::vector<i64>>("ids", {});
      if (ids.size() != 1 || ids[0] < 0 || ids[0] >= largest_vocabulary)
        fail("{}: special token '{}' has no single id", post.where(), printable(name));
      first = static_cast<i32>(ids[0]);
    }
  } else if (type != "ByteLevel") {  // which only moves offsets
    refuse(post.where(), fmt::format("type '{}'", printable(type)));
  }
  return first;
}

void check_decoder(Fields decoder) {
  const std::string type = type_of(decoder);
  if (type != "ByteLevel") refuse(decoder.where(), fmt::format("type '{}'", printable(type)));
}

std::vector<AddedToken> read_added_tokens(const std::vector<Json>& list, const std::string& where) {
  std::vector<AddedToken> tokens;
  for (const Json& item : list) {
    Fields fields(item, where + ": added_tokens");
    AddedToken token{.id = static_cast<i32>(fields.required<i64>("id", {.least = 0, .most = largest_vocabulary - 1})),
                     .content = fields.required<std::string>("content"),
                     .special = fields.or_default<bool>("special", false),
                     .strip_left = fields.or_default<bool>("lstrip", false),
                     .strip_right = fields.or_default<bool>("rstrip", false),
                     .early = true};
    token.early = !fields.or_default<bool>("normalized", !token.special);
    if (fields.or_default<bool>("single_word", false)) refuse(fields.where(), "single_word");
    fields.finish();
    if (token.content.empty()) fail("{}: token {} is empty", fields.where(), token.id);
    tokens.push_back(std::move(token));
  }
  return tokens;
}

using Names = std::unordered_map<std::string_view, i32>;  // of the model's tokens, as the file writes them

Names place_tokens(TokenizerData& data, const Model& model, const std::vector<AddedToken>& added,
                   const std::string& where) {
  // Ids may have holes, but no more than there are tokens: memory follows the largest id.
  i64 largest = 0;
  for (const auto& [token, id] : model.vocab) largest = std::max<i64>(largest, id);
  for (const AddedToken& token : added) largest = std::max<i64>(largest, token.id);
  if (const i64 count = static_cast<i64>(model.vocab.size() + added.size()); largest > 2 * count + 1024)
    fail("{}: the largest token id is {}, but there are {} tokens", where, largest, count);

  data.tokens.resize(static_cast<size_t>(largest) +
                     1);  // data.ids refers to the strings: they do not move from here on
  std::unordered_set<std::string_view> added_names;
  for (const AddedToken& token : added) added_names.insert(token.content);
  Names names;
  for (const auto& [name, id] : model.vocab) {
    if (data.tokens[id])
      fail("{}: id {} is that of '{}' and of '{}'", where, id, printable(*data.tokens[id]), printable(name));
    // In a byte-level vocabulary a name outside the alphabet is a token that no text reaches; its bytes are its name.
    const auto bytes = added_names.count(name) > 0 ? std::nullopt : data.byte_level ? from_byte_alphabet(name) : name;
    data.tokens[id] = bytes.value_or(name);
    if (bytes) data.ids.emplace(*data.tokens[id], id);
    names.emplace(name, id);
  }
  for (const AddedToken& token : added) {
    std::optional<std::string>& place = data.tokens[token.id];
    const auto named = names.find(token.content);
    if ((place && *place != token.content) || (named != names.end() && named->second != token.id))
      fail("{}: added token '{}' has id {}, but the vocabulary says otherwise", where, printable(token.content),
           token.id);
    place = token.content;
  }
  data.added = AddedTokens(added);
  for (int byte = 0; byte < 256; ++byte) {
    const auto found = data.ids.find(std::string(1, static_cast<char>(byte)));
    data.byte_ids[byte] = found == data.ids.end() ? -1 : found->second;
  }
  for (const char* name : {"<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>"})
    for (const AddedToken& token : added)
      if (token.content == name && !data.end_of_text) data.end_of_text = token.id;
  return names;
}

MergeTable merge_table(const Model& model, const Names& names, const std::string& where) {
  MergeTable table(static_cast<i64>(model.merges.size()));
  for (size_t rank = 0; rank < model.merges.size(); ++rank) {
    const auto& merge = model.merges[rank];
    const auto id_of = [&](const std::string& name) {
      const auto found = names.find(name);
      if (found == names.end())
        fail("{}: merge {} ('{}' '{}') needs the token '{}', which the vocabulary lacks", where, rank,
             printable(merge.first), printable(merge.second), printable(name));
      return found->second;
    };
    table.add(id_of(merge.first), id_of(merge.second), {static_cast<i32>(rank), id_of(merge.first + merge.second)});
  }
  return table;
}

}  // namespace

Tokenizer Tokenizer::from_json(std::string_view json, std::string_view where) {
  const Json root = parse_json(json, where);
  const std::string place(where);
  Fields fields(root, place);
  fields.ignore("version");
  for (const char* field : {"truncation", "padding"})
    if (fields.find(field) != nullptr) refuse(where, field);
  if (fields.find("normalizer") != nullptr) {
    Fields normalizer = fields.object("normalizer");
    refuse(normalizer.where(), fmt::format("type '{}'", printable(type_of(normalizer))));
  }
  auto data = std::make_shared<TokenizerData>();
  data->json = json;
  data->byte_level = fields.find("pre_tokenizer") != nullptr;
  if (data->byte_level && !read_pre_tokenizer(fields.object("pre_tokenizer"), data->splitter))
    refuse(place + ": pre_tokenizer", "a pre-tokenizer without ByteLevel");
  if (fields.find("post_processor") != nullptr)
    data->beginning_of_text = read_post_processor(fields.object("post_processor"));
  if (fields.find("decoder") != nullptr) check_decoder(fields.object("decoder"));
  const auto added = read_added_tokens(fields.or_default<std::vector<Json>>("added_tokens", {}), place);
  const Model model = read_model(fields.object("model"));
  fields.finish();

  data->ignore_merges = model.ignore_merges;
  data->merges = merge_table(model, place_tokens(*data, model, added, place), place);
  if (const auto first = data->beginning_of_text;
      first && (*first >= static_cast<i64>(data->tokens.size()) || !data->tokens[*first]))
    fail("{}: post_processor uses token {}, which does not exist", where, *first);
  return Tokenizer(std::move(data));
}

Tokenizer Tokenizer::from_vocabulary(const Vocabulary& vocabulary, std::string_view where) {
  refuse(where, fmt::format("a vocabulary of model '{}'", printable(vocabulary.model)));
}

Vocabulary Tokenizer::vocabulary() const { fail("this tokenizer cannot be written as a GGUF vocabulary"); }

Tokenizer Tokenizer::load(const fs::path& file_or_directory) {
  const fs::path file = fs::is_directory(file_or_directory) ? file_or_directory / "tokenizer.json" : file_or_directory;
  return from_json(MappedFile(file).text(), file.string());
}

}  // namespace sparsam
