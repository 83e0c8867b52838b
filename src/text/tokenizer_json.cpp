// Reading `tokenizer.json`. Strict: what would change the ids and is not understood is refused by its name.
#include <algorithm>
#include <cmath>
#include <unordered_set>

#include "base/error.h"
#include "text/pipeline_json.h"
#include "text/tokenizer.h"
#include "text/tokenizer_data.h"

namespace sparsam {
namespace {

using Entries = std::vector<std::pair<std::string, i32>>;  // of the vocabulary

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

Entries read_vocabulary(Fields& model) {
  const Json* vocab = model.find("vocab");
  if (vocab == nullptr || !vocab->is_object())
    model.fail_value("vocab", vocab == nullptr ? Json() : *vocab, "an object of token: id");
  Entries entries;
  for (const auto& [token, id] : vocab->items()) {
    if (!id.is_number_integer() || id.get<i64>() < 0 || id.get<i64>() >= largest_vocabulary)
      fail("{}: token '{}' has id {}, expected an integer from 0 to {}", model.where(), printable(token),
           printable(format_json(id, model.where())), largest_vocabulary - 1);
    entries.emplace_back(token, static_cast<i32>(id.get<i64>()));
  }
  if (entries.empty()) fail("{}: the vocabulary is empty", model.where());
  return entries;
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
                     .early = true,
                     .single_word = fields.or_default<bool>("single_word", false)};
    token.early = !fields.or_default<bool>("normalized", !token.special);
    fields.finish();
    if (token.content.empty()) fail("{}: token {} is empty", fields.where(), token.id);
    tokens.push_back(std::move(token));
  }
  return tokens;
}

// Reads the model and completes the tokenizer whose other parts are there.
class Assembly {
 public:
  Assembly(TokenizerData& data, bool byte_level, std::vector<AddedToken> added, const std::string& where)
      : data_(data), byte_level_(byte_level), added_(std::move(added)), where_(where) {}

  void read(Fields model) {
    const Json* vocab = model.find("vocab");
    const bool list = vocab != nullptr && vocab->is_array();
    const std::string type = model.or_default<std::string>("type", list ? "Unigram" : "BPE");
    if (type == "BPE")
      read_bpe(model);
    else if (type == "Unigram")
      read_unigram(model);
    else if (type == "WordPiece")
      read_word_piece(model);
    else
      refuse_type(model, type);
    if (type != "BPE" && model.find("merges") != nullptr) refuse(model.where(), "merges");
    model.finish();
  }

 private:
  void read_bpe(Fields& model) {
    if (model.or_default<double>("dropout", 0.0) != 0.0) refuse(model.where(), "dropout");
    for (const char* field : {"continuing_subword_prefix", "end_of_word_suffix"})
      if (!model.or_default<std::string>(field, "").empty()) refuse(model.where(), field);
    Bpe::Options options{.byte_level = byte_level_,
                         .ignore_merges = model.or_default<bool>("ignore_merges", false),
                         .byte_fallback = model.or_default<bool>("byte_fallback", false),
                         .fuse_unk = model.or_default<bool>("fuse_unk", false)};
    if (byte_level_ && options.byte_fallback) refuse(model.where(), "byte_fallback after ByteLevel");
    const auto unk = model.optional<std::string>("unk_token");
    place(read_vocabulary(model));
    if (unk) options.unk = named(*unk, "unk_token");
    const Json* merges = model.find("merges");
    if (merges == nullptr || !merges->is_array())
      model.fail_value("merges", merges == nullptr ? Json() : *merges, "an array of pairs");
    MergeTable table(static_cast<i64>(merges->size()));
    i32 rank = 0;
    for (const Json& item : *merges) {
      const auto merge = read_merge(item, model.where());
      const auto id = [&](const std::string& name) {
        const i32 found = data_.names.find(name);
        if (found < 0)
          fail("{}: merge {} ('{}' '{}') needs the token '{}', which the vocabulary lacks", where_, rank,
               printable(merge.first), printable(merge.second), printable(name));
        return found;
      };
      table.add(id(merge.first), id(merge.second), {rank, id(merge.first + merge.second)});
      ++rank;
    }
    data_.model.emplace<Bpe>(data_.units, std::move(table), options);
  }

  void read_unigram(Fields& model) {
    if (byte_level_) refuse(model.where(), "a Unigram model after ByteLevel");
    const Json* vocab = model.find("vocab");
    if (vocab == nullptr || !vocab->is_array() || vocab->size() >= largest_vocabulary)
      model.fail_value("vocab", vocab == nullptr ? Json() : *vocab, "an array of pairs of token and score");
    Entries entries;
    std::vector<double> scores;
    for (const Json& item : *vocab) {
      if (!item.is_array() || item.size() != 2 || !item[0].is_string() || !item[1].is_number() ||
          !std::isfinite(item[1].get<double>()))
        fail("{}: entry {} of the vocabulary is {}, expected a pair of token and score", model.where(), entries.size(),
             printable(format_json(item, model.where())));
      entries.emplace_back(item[0].get<std::string>(), static_cast<i32>(entries.size()));
      scores.push_back(item[1].get<double>());
    }
    if (entries.empty()) fail("{}: the vocabulary is empty", model.where());
    const auto unk = model.optional<i64>("unk_id", {.least = 0, .most = static_cast<i64>(entries.size()) - 1});
    if (!unk) refuse(model.where(), "a Unigram model without unk_id");
    place(std::move(entries));
    std::optional<std::array<i32, 256>> bytes;
    if (model.or_default<bool>("byte_fallback", false)) {
      bytes.emplace();
      for (int byte = 0; byte < 256; ++byte) (*bytes)[byte] = data_.names.find(fmt::format("<0x{:02X}>", byte));
    }
    data_.special.unk = static_cast<i32>(*unk);
    data_.model.emplace<Unigram>(data_.units, std::move(scores), static_cast<i32>(*unk), bytes);
  }

  void read_word_piece(Fields& model) {
    if (byte_level_) refuse(model.where(), "a WordPiece model after ByteLevel");
    const std::string unk = model.or_default<std::string>("unk_token", "[UNK]");
    const std::string prefix = model.or_default<std::string>("continuing_subword_prefix", "##");
    const i64 longest = model.or_default<i64>("max_input_chars_per_word", 100, {.least = 0, .most = 1000});
    place(read_vocabulary(model));
    data_.model.emplace<WordPiece>(data_.units, prefix, named(unk, "unk_token"), longest);
  }

  i32 named(const std::string& name, const char* field) {
    const i32 id = data_.names.find(name);
    if (id < 0) fail("{}: {} '{}' is not in the vocabulary", where_, field, printable(name));
    data_.special.unk = id;
    return id;
  }

  // Gives every token its place; from here on names and units are known.
  void place(Entries entries) {
    // Ids may have holes, but no more than there are tokens: memory follows the largest id.
    i64 largest = 0;
    for (const auto& [token, id] : entries) largest = std::max<i64>(largest, id);
    for (const AddedToken& token : added_) largest = std::max<i64>(largest, token.id);
    if (const i64 count = static_cast<i64>(entries.size() + added_.size()); largest > 2 * count + 1024)
      fail("{}: the largest token id is {}, but there are {} tokens", where_, largest, count);

    std::unordered_set<std::string_view> special;  // that no piece of text may become
    for (const AddedToken& token : added_)
      if (token.special || byte_level_) special.insert(token.content);
    std::vector<std::optional<std::string>> names(static_cast<size_t>(largest) + 1), units = names;
    std::unordered_map<std::string_view, i32> ids;
    for (const auto& [name, id] : entries) {
      if (names[id]) fail("{}: id {} is that of '{}' and of '{}'", where_, id, printable(*names[id]), printable(name));
      names[id] = name;
      ids.emplace(name, id);
      // In a byte-level vocabulary a name outside the alphabet is a token that no text reaches.
      if (special.count(name) == 0) units[id] = byte_level_ ? from_byte_alphabet(name) : name;
    }
    for (const AddedToken& token : added_) {
      const auto named = ids.find(token.content);
      std::optional<std::string>& at = names[token.id];
      if ((at && *at != token.content) || (named != ids.end() && named->second != token.id))
        fail("{}: added token '{}' has id {}, but the vocabulary says otherwise", where_, printable(token.content),
             token.id);
      at = token.content;
    }
    data_.names.assign(std::move(names));
    data_.units.assign(std::move(units));
    data_.added = AddedTokens(std::move(added_), data_.normalizer);
    for (const char* name : {"<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>"})
      for (const AddedToken& token : data_.added.all())
        if (token.content == name && !data_.end_of_text) data_.end_of_text = token.id;
  }

  TokenizerData& data_;
  bool byte_level_;
  std::vector<AddedToken> added_;
  std::string where_;
};

}  // namespace

std::shared_ptr<TokenizerData> read_tokenizer_json(std::string_view json, std::string_view where) {
  const Json root = parse_json(json, where);
  auto data = std::make_shared<TokenizerData>();
  data->json = json;
  data->where = where;
  Fields fields(root, data->where);
  fields.ignore("version");
  for (const char* field : {"truncation", "padding"})
    if (fields.find(field) != nullptr) refuse(where, field);
  if (fields.find("normalizer") != nullptr) read_normalizer(fields.object("normalizer"), data->normalizer);
  const bool alphabet_text =
      std::any_of(data->normalizer.steps.begin(), data->normalizer.steps.end(),
                  [](const Normalizer::Step& step) { return std::holds_alternative<Normalizer::ByteAlphabet>(step); });
  bool byte_level = alphabet_text;
  auto& stages = data->splitter.stages;
  if (fields.find("pre_tokenizer") != nullptr) {
    const bool now = read_pre_tokenizer(fields.object("pre_tokenizer"), data->splitter);
    if (now && alphabet_text) refuse(where, "ByteLevel as normalizer and as pre-tokenizer");
    byte_level |= now;
    // The model works on bytes: the alphabet is only for stages that come after it.
    if (now && std::holds_alternative<Splitter::ByteAlphabet>(stages.back()))
      stages.pop_back();
    else if (now)
      stages.emplace_back(Splitter::FromByteAlphabet{});
  }
  if (alphabet_text) stages.emplace_back(Splitter::FromByteAlphabet{});
  if (fields.find("post_processor") != nullptr)
    read_post_processor(fields.object("post_processor"), data->prefix, data->suffix);
  if (fields.find("decoder") != nullptr)
    read_decoder(fields.object("decoder"), data->decoder);
  else if (byte_level)
    data->decoder.steps.emplace_back(Decoder::ByteAlphabet{});
  Assembly(*data, byte_level, read_added_tokens(fields.or_default<std::vector<Json>>("added_tokens", {}), data->where),
           data->where)
      .read(fields.object("model"));
  fields.finish();
  for (const auto* ids : {&data->prefix, &data->suffix})
    for (i32 id : *ids)
      if (id >= data->names.size() || !data->names[id])
        fail("{}: post_processor uses token {}, which does not exist", where, id);
  data->place_bytes();
  return data;
}

Tokenizer Tokenizer::from_json(std::string_view json, std::string_view where) {
  return Tokenizer(read_tokenizer_json(json, where));
}

}  // namespace sparsam
