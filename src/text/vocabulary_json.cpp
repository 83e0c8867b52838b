// A vocabulary as GGUF spells it, written as a tokenizer.json that means the same.
#include <algorithm>
#include <unordered_map>

#include "base/error.h"
#include "formats/json.h"
#include "text/pre_tokenizers.h"
#include "text/splitter.h"
#include "text/tokenizer.h"
#include "text/tokenizer_data.h"

namespace sparsam {
namespace {

constexpr std::string_view space = "\u2581";

Json sequence(const char* field, Json parts) {
  if (parts.empty()) return nullptr;
  if (parts.size() == 1) return parts[0];
  return {{"type", "Sequence"}, {field, std::move(parts)}};
}

Json replace(Json pattern, std::string_view by) {
  return {{"type", "Replace"}, {"pattern", std::move(pattern)}, {"content", by}};
}

bool takes_no_space(std::string_view name) { return name == "<unk>" || name == "<s>" || name == "<|endoftext|>"; }
bool is_special(TokenType type) { return type == TokenType::control || type == TokenType::unknown; }
bool is_normal(TokenType type) { return type == TokenType::normal || type == TokenType::user_defined; }

// All merges that sentencepiece would try: of two tokens whose texts joined are a token; the higher its score the
// sooner, among equals the leftmost first.
struct ScoredMerge {
  i32 left, right, id;
};
std::vector<ScoredMerge> merges_by_score(const Vocabulary& v) {
  std::unordered_map<std::string_view, i32> ids;
  const i32 count = static_cast<i32>(v.tokens.size());
  for (i32 id = 0; id < count; ++id)
    if (is_normal(v.types[id])) ids.emplace(v.tokens[id], id);
  std::vector<ScoredMerge> merges;
  for (i32 id = 0; id < count; ++id) {
    const std::string_view text = v.tokens[id];
    constexpr size_t longest = 1024;  // bytes; no trained token comes near, and the work is quadratic
    if (!is_normal(v.types[id]) || text.size() > longest || ids.at(text) != id) continue;
    for (size_t cut = 1; cut < text.size(); ++cut) {
      if ((static_cast<u8>(text[cut]) & 0xC0) == 0x80) continue;
      const auto left = ids.find(text.substr(0, cut)), right = ids.find(text.substr(cut));
      if (left != ids.end() && right != ids.end()) merges.push_back({left->second, right->second, id});
    }
  }
  std::stable_sort(merges.begin(), merges.end(),
                   [&](const ScoredMerge& a, const ScoredMerge& b) { return v.scores[a.id] > v.scores[b.id]; });
  return merges;
}

MergeTable scored_table(const Vocabulary& v) {
  const std::vector<ScoredMerge> merges = merges_by_score(v);
  MergeTable table(static_cast<i64>(merges.size()));
  i32 rank = 0;
  for (size_t i = 0; i < merges.size(); ++i) {
    if (i > 0 && v.scores[merges[i].id] != v.scores[merges[i - 1].id]) ++rank;
    table.add(merges[i].left, merges[i].right, {rank, merges[i].id});
  }
  return table;
}

std::string base64(std::string_view bytes) {
  constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    u32 bits = 0;
    for (size_t k = 0; k < 3; ++k) bits = bits << 8 | (i + k < bytes.size() ? static_cast<u8>(bytes[i + k]) : 0u);
    for (size_t k = 0; k < 4; ++k) text.push_back(i + k <= bytes.size() ? digits[bits >> (18 - 6 * k) & 63] : '=');
  }
  return text;
}

class Writer {
 public:
  Writer(const Vocabulary& v, std::string_view where) : v_(v), where_(where) {
    const auto has = [&](TokenType type) { return std::find(v.types.begin(), v.types.end(), type) != v.types.end(); };
    has_bytes_ = has(TokenType::byte);
  }

  std::string json() {
    root_ = {{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}, {"added_tokens", added_tokens()}};
    if (v_.model == "gpt2")
      byte_level();
    else if (v_.model == "llama")
      sentencepiece_bpe();
    else if (v_.model == "t5")
      unigram();
    else if (v_.model == "bert")
      word_piece();
    else
      fail("{}: tokenizers of kind '{}' are not supported; known: gpt2, llama, t5, bert", where_, printable(v_.model));
    root_["post_processor"] = post_processor();
    for (const char* field : {"normalizer", "pre_tokenizer", "decoder"})
      if (!root_.contains(field)) root_[field] = nullptr;
    // The vocabulary is written entry by entry: an ordered object of thousands of keys fills in quadratic time.
    std::string text = format_json(root_, where_);
    text.pop_back();
    text += ",\"model\":" + format_json(model_, where_);
    text.pop_back();
    return text.append(",\"vocab\":").append(vocab_).append(",\"merges\":").append(merges_).append("}}");
  }

 private:
  std::string name(i32 id) const {
    const std::string& text = v_.tokens[static_cast<size_t>(id)];
    if (v_.model != "bert" || (text.starts_with('[') && text.ends_with(']'))) return text;
    return text.starts_with(space) ? text.substr(space.size()) : "##" + text;
  }

  Json added_tokens() const {
    Json added = Json::array();
    for (i32 id = 0; id < static_cast<i32>(v_.tokens.size()); ++id) {
      const TokenType type = v_.types[static_cast<size_t>(id)];
      if (!is_special(type) && type != TokenType::user_defined) continue;
      added.push_back({{"id", id},
                       {"content", name(id)},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", v_.specials_take_space && !takes_no_space(name(id))},
                       {"normalized", false},
                       {"special", is_special(type)}});
    }
    return added;
  }

  void vocab_object() {
    vocab_ = "{";
    for (i32 id = 0; id < static_cast<i32>(v_.tokens.size()); ++id)
      vocab_ += fmt::format("{}{}:{}", id == 0 ? "" : ",", quoted(name(id)), id);
    vocab_ += "}";
  }
  std::string quoted(std::string_view text) const {
    const bool plain = std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c < 0x7F; });
    if (!plain || text.find_first_of("\"\\") != std::string_view::npos) return format_json(Json(text), where_);
    return std::string("\"").append(text).append("\"");
  }
  void add_merge(std::string_view left, std::string_view right) {
    if (merges_.size() > 1) merges_ += ',';
    if (left.find(' ') == left.npos && right.find(' ') == right.npos)
      merges_ += quoted(std::string(left).append(" ").append(right));
    else
      merges_.append("[").append(quoted(left)).append(",").append(quoted(right)).append("]");
  }
  void merge_list(const std::vector<ScoredMerge>& merges) {
    for (const ScoredMerge& m : merges) add_merge(v_.tokens[m.left], v_.tokens[m.right]);
  }

  void byte_level() {
    const PreTokenizer& pre = pre_tokenizer_named(v_.pre, where_);
    Json parts = Json::array();
    for (const std::string& pattern : pre.patterns)
      parts.push_back(
          {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}});
    const Json bytes = {
        {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
    parts.push_back(bytes);
    root_["pre_tokenizer"] = sequence("pretokenizers", std::move(parts));
    root_["decoder"] = bytes;
    model_ = {{"type", "BPE"},
              {"dropout", nullptr},
              {"unk_token", nullptr},
              {"fuse_unk", false},
              {"byte_fallback", false},
              {"continuing_subword_prefix", nullptr},
              {"end_of_word_suffix", nullptr},
              {"ignore_merges", pre.ignore_merges}};
    vocab_object();
    for (const std::string& merge : v_.merges) {
      const size_t cut = merge.find(' ', 1);
      if (cut == std::string::npos) fail("{}: merge '{}' is not a pair of tokens", where_, printable(merge));
      add_merge(std::string_view(merge).substr(0, cut), std::string_view(merge).substr(cut + 1));
    }
    merges_ += "]";
  }

  Json unknown_name() const { return v_.unk ? Json(name(*v_.unk)) : Json(nullptr); }

  void sentencepiece_bpe() {
    Json normalizers = Json::array();
    if (!v_.charsmap.empty())
      normalizers.push_back({{"type", "Precompiled"}, {"precompiled_charsmap", base64(v_.charsmap)}});
    if (v_.remove_extra_whitespaces) extra_whitespace(normalizers);
    if (v_.add_space_prefix) normalizers.push_back({{"type", "Prepend"}, {"prepend", space}});
    normalizers.push_back(replace({{"String", " "}}, space));
    root_["normalizer"] = sequence("normalizers", std::move(normalizers));
    Json decoders = Json::array({replace({{"String", space}}, " "), {{"type", "ByteFallback"}}, {{"type", "Fuse"}}});
    if (v_.add_space_prefix) decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
    root_["decoder"] = sequence("decoders", std::move(decoders));
    model_ = {{"type", "BPE"},
              {"dropout", nullptr},
              {"unk_token", unknown_name()},
              {"fuse_unk", true},
              {"byte_fallback", has_bytes_},
              {"continuing_subword_prefix", nullptr},
              {"end_of_word_suffix", nullptr},
              {"ignore_merges", false}};
    vocab_object();
    merge_list(merges_by_score(v_));
    merges_ += "]";
  }

  static void extra_whitespace(Json& normalizers) {
    normalizers.push_back({{"type", "Strip"}, {"strip_left", true}, {"strip_right", true}});
    normalizers.push_back(replace({{"Regex", " {2,}"}}, " "));
  }

  void unigram() {
    Json normalizers = Json::array();
    if (!v_.charsmap.empty())
      normalizers.push_back({{"type", "Precompiled"}, {"precompiled_charsmap", base64(v_.charsmap)}});
    if (v_.remove_extra_whitespaces) extra_whitespace(normalizers);
    root_["normalizer"] = sequence("normalizers", std::move(normalizers));
    const Json metaspace = {{"type", "Metaspace"},
                            {"replacement", space},
                            {"prepend_scheme", v_.add_space_prefix ? "always" : "never"},
                            {"split", true}};
    root_["pre_tokenizer"] = metaspace;
    root_["decoder"] =
        has_bytes_ ? sequence("decoders", Json::array({{{"type", "ByteFallback"}}, metaspace})) : metaspace;
    model_ = {{"type", "Unigram"}, {"unk_id", v_.unk ? Json(*v_.unk) : Json(nullptr)}, {"byte_fallback", has_bytes_}};
    float worst = 0;  // unused tokens must not move the score of the unknown
    for (size_t id = 0; id < v_.tokens.size(); ++id)
      if (v_.types[id] == TokenType::normal) worst = std::min(worst, v_.scores[id]);
    vocab_ = "[";
    for (size_t id = 0; id < v_.tokens.size(); ++id)
      vocab_ += fmt::format(
          "{}[{},{}]", id == 0 ? "" : ",", format_json(Json(v_.tokens[id]), where_),
          format_json(Json(static_cast<double>(v_.types[id] == TokenType::unused ? worst : v_.scores[id])), where_));
    vocab_ += "]";
    merges_ = "null";
  }

  void word_piece() {
    root_["normalizer"] = {{"type", "BertNormalizer"},
                           {"clean_text", true},
                           {"handle_chinese_chars", true},
                           {"strip_accents", nullptr},
                           {"lowercase", v_.lowercase}};
    root_["pre_tokenizer"] = {{"type", "BertPreTokenizer"}};
    root_["decoder"] = {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}};
    model_ = {{"type", "WordPiece"},
              {"unk_token", unknown_name()},
              {"continuing_subword_prefix", "##"},
              {"max_input_chars_per_word", 100}};
    vocab_object();
    merges_ = "null";
  }

  Json post_processor() const {
    const bool bert = v_.model == "bert";
    std::vector<i32> first, last;
    if (bert ? v_.cls || v_.bos : v_.add_bos && v_.bos) first = {bert && v_.cls ? *v_.cls : *v_.bos};
    if (bert ? v_.sep || v_.eos : v_.add_eos && v_.eos) last = {bert && v_.sep ? *v_.sep : *v_.eos};
    if (first.empty() && last.empty()) return nullptr;
    Json single = Json::array(), special = Json::object();
    const auto add = [&](const std::vector<i32>& ids) {
      for (i32 id : ids) {
        const std::string token = name(id);
        single.push_back({{"SpecialToken", {{"id", token}, {"type_id", 0}}}});
        special[token] = {{"id", token}, {"ids", {id}}, {"tokens", {token}}};
      }
    };
    add(first);
    single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
    add(last);
    return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", Json::array()}, {"special_tokens", special}};
  }

  const Vocabulary& v_;
  std::string_view where_;
  bool has_bytes_ = false;
  Json root_, model_;
  std::string vocab_, merges_ = "[";
};

}  // namespace

std::string tokenizer_json(const Vocabulary& vocabulary, std::string_view where) {
  return Writer(vocabulary, where).json();
}

std::shared_ptr<TokenizerData> read_vocabulary(const Vocabulary& vocabulary, std::string_view where) {
  auto data = read_tokenizer_json(tokenizer_json(vocabulary, where), where);
  if (vocabulary.model == "llama") {  // a list cannot say that merges are equal
    const auto& bpe = std::get<Bpe>(data->model);
    const Bpe::Options options = bpe.options();
    data->model.emplace<Bpe>(data->units, scored_table(vocabulary), options);
  }
  data->special = vocabulary;
  data->end_of_text = vocabulary.eos;
  data->vocabulary = vocabulary;
  return data;
}

Tokenizer Tokenizer::from_vocabulary(const Vocabulary& vocabulary, std::string_view where) {
  return Tokenizer(read_vocabulary(vocabulary, where));
}

}  // namespace sparsam
