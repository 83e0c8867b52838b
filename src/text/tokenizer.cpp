#include "text/tokenizer.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <exception>

#include "base/error.h"
#include "base/random.h"
#include "base/threads.h"
#include "formats/json.h"
#include "text/tokenizer_data.h"

namespace sparsam {
namespace {

constexpr std::string_view new_mask_token = "<mask>";

u64 hash_piece(std::string_view piece) {
  u64 hash = piece.size();
  for (size_t i = 0; i < piece.size(); i += 8) {
    u64 word = 0;
    std::memcpy(&word, piece.data() + i, std::min<size_t>(8, piece.size() - i));
    hash = mix64(hash ^ word);
  }
  return hash;
}

// Remembers the ids of pieces met before: their text is kept, their ids are looked up in the output. It forgets by
// overwriting.
class PieceCache {
 public:
  static constexpr size_t longest = 32;
  explicit PieceCache(size_t text_size)
      : entries_(std::bit_ceil(std::clamp<size_t>(text_size / 16, 16, size_t{1} << 16))) {}

  struct Entry {
    std::array<char, longest> text;
    u32 length = 0, count = 0;
    size_t begin = 0;  // ids out[begin, begin + count)
    bool holds(std::string_view piece) const {
      return length == piece.size() && std::memcmp(text.data(), piece.data(), length) == 0;
    }
  };
  Entry& slot(std::string_view piece) { return entries_[hash_piece(piece) & (entries_.size() - 1)]; }

 private:
  std::vector<Entry> entries_;
};

}  // namespace

void TokenizerData::place_bytes() {
  is_added.assign(static_cast<size_t>(names.size()), false);
  for (const AddedToken& token : added.all()) is_added[static_cast<size_t>(token.id)] = true;
  for (i32 id = 0; id < names.size(); ++id) bytes.push_back(names[id] ? text_of(id, false) : std::string());
}

std::string TokenizerData::text_of(i32 id, bool first) const {
  return decoder.token(*names[id], first, is_added[static_cast<size_t>(id)]);
}

void TokenizerData::encode_section(std::string_view text, bool first, std::vector<i32>& out) const {
  if (const auto* sentencepiece = std::get_if<SentencePiece>(&model)) return sentencepiece->encode(text, out);
  PieceCache cache(text.size());
  const auto encode_with = [&](const auto& model) {
    const auto encode = [&](std::string_view piece) {
      if (piece.size() > PieceCache::longest) return model.encode(piece, out);
      PieceCache::Entry& entry = cache.slot(piece);
      const size_t begin = out.size();
      if (entry.holds(piece)) {
        out.resize(begin + entry.count);
        std::copy_n(out.begin() + static_cast<i64>(entry.begin), entry.count, out.begin() + static_cast<i64>(begin));
        return;
      }
      model.encode(piece, out);
      std::copy(piece.begin(), piece.end(), entry.text.begin());
      entry.length = static_cast<u32>(piece.size());
      entry.count = static_cast<u32>(out.size() - begin);
      entry.begin = begin;
    };
    const auto encode_parts = [&](std::string_view piece) {
      if constexpr (requires { model.cut(piece, encode); })
        model.cut(piece, encode);
      else
        encode(piece);
    };
    if (splitter.is_gpt2())
      split_gpt2(text, encode_parts);
    else
      splitter.split(text, first, encode_parts);
  };
  std::visit(
      [&](const auto& model) {
        if constexpr (requires { model.encode(text, out); }) encode_with(model);
      },
      model);
}

std::string Tokenizer::to_json() const {
  return data_->json.empty() ? tokenizer_json(vocabulary(), data_->where) : data_->json;
}
i64 Tokenizer::vocab_size() const { return data_->names.size(); }
const std::optional<std::string>& Tokenizer::chat_template() const { return data_->chat_template; }
const std::vector<i32>& Tokenizer::prefix() const { return data_->prefix; }
const std::vector<i32>& Tokenizer::suffix() const { return data_->suffix; }
std::optional<i32> Tokenizer::end_of_text() const { return data_->end_of_text; }
std::optional<i32> Tokenizer::beginning_of_text() const {
  return data_->prefix.empty() ? std::nullopt : std::optional(data_->prefix.back());
}

std::optional<i32> Tokenizer::mask_token() const {
  for (const AddedToken& token : data_->added.all())
    if (token.content == new_mask_token || token.content == "[MASK]") return token.id;
  return std::nullopt;
}

Tokenizer Tokenizer::with_mask_token() const {
  if (mask_token()) return *this;
  Json json = parse_json(to_json(), data_->where);
  if (!json.contains("added_tokens") || !json["added_tokens"].is_array()) json["added_tokens"] = Json::array();
  json["added_tokens"].push_back({{"id", vocab_size()},
                                  {"content", std::string(new_mask_token)},
                                  {"single_word", false},
                                  {"lstrip", false},
                                  {"rstrip", false},
                                  {"normalized", false},
                                  {"special", true}});
  return from_json(format_json(json, data_->where), data_->where);
}

std::vector<i32> Tokenizer::encode(std::string_view text, SpecialTokens special) const {
  std::vector<i32> ids;
  encode(text, ids, special);
  return ids;
}

void Tokenizer::encode(std::string_view text, std::vector<i32>& out, SpecialTokens special) const {
  data_->added.split(
      text, special == SpecialTokens::recognise, data_->normalizer,
      [&](std::string_view part, bool first) { data_->encode_section(part, first, out); },
      [&](i32 id) { out.push_back(id); });
}

std::string_view Tokenizer::bytes_of(i32 id) const {
  if (id < 0 || id >= vocab_size() || !data_->names[id].has_value())
    fail("token {} is not in the tokenizer, whose ids are 0 to {}", id, vocab_size() - 1);
  return data_->bytes[static_cast<size_t>(id)];
}

std::string Tokenizer::decode(std::span<const i32> ids) const {
  std::string text;
  for (size_t i = 0; i < ids.size(); ++i) {
    const std::string_view bytes = bytes_of(ids[i]);
    i == 0 ? text = data_->text_of(ids[i], true) : text += bytes;
  }
  return data_->decoder.finish(std::move(text));
}

std::optional<i32> Tokenizer::id_of(std::string_view bytes) const {
  for (const AddedToken& token : data_->added.all())
    if (token.content == bytes) return token.id;
  const i32 found = data_->units.find(bytes);
  return found < 0 ? std::nullopt : std::optional(found);
}

std::vector<i32> encode_parallel(const Tokenizer& tokenizer, std::string_view text) {
  constexpr size_t part_bytes = 1 << 20;
  struct Part {
    std::string_view text;
    i32 id;  // of an added token, where the text is empty
  };
  const TokenizerData& data = *tokenizer.data_;
  if (!data.splitter.is_gpt2() || !data.normalizer.empty()) return tokenizer.encode(text);
  std::vector<Part> parts;
  const auto cut = [&](std::string_view section, bool) {
    while (!section.empty()) {
      const size_t end = gpt2_safe_cut(section, part_bytes);
      parts.push_back({section.substr(0, end), -1});
      section.remove_prefix(std::min(end, section.size()));
    }
  };
  data.added.split(text, true, data.normalizer, cut, [&](i32 id) { parts.push_back({{}, id}); });

  // Small neighbours share one task, so that many short documents do not become many tasks.
  std::vector<size_t> begins;
  size_t bytes = part_bytes;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (bytes >= part_bytes) begins.push_back(i), bytes = 0;
    bytes += parts[i].text.size() + 1;
  }
  begins.push_back(parts.size());
  std::vector<std::vector<i32>> results(begins.size() - 1);
  std::vector<std::exception_ptr> errors(results.size());
  parallel_dynamic(static_cast<i64>(results.size()), [&](int, i64 task) {
    try {
      for (size_t i = begins[task]; i < begins[task + 1]; ++i)
        if (parts[i].text.empty())
          results[task].push_back(parts[i].id);
        else
          data.encode_section(parts[i].text, false, results[task]);
    } catch (...) {  // must not leave the thread
      errors[task] = std::current_exception();
    }
  });
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
  size_t count = 0;
  for (const auto& result : results) count += result.size();
  std::vector<i32> ids;
  ids.reserve(count);
  for (const auto& result : results) ids.insert(ids.end(), result.begin(), result.end());
  return ids;
}

}  // namespace sparsam
