#include "text/tokenizer.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <exception>

#include "base/error.h"
#include "base/random.h"
#include "base/threads.h"
#include "text/tokenizer_data.h"

namespace sparsam {
namespace {

u64 hash_piece(std::string_view piece) {
  u64 hash = piece.size();
  for (size_t i = 0; i < piece.size(); i += 8) {
    u64 word = 0;
    std::memcpy(&word, piece.data() + i, std::min<size_t>(8, piece.size() - i));
    hash = mix64(hash ^ word);
  }
  return hash;
}

// Remembers where in the text a piece stood before and where in the output its ids are: copies nothing, forgets by
// overwriting.
class PieceCache {
 public:
  explicit PieceCache(size_t text_size)
      : entries_(std::bit_ceil(std::clamp<size_t>(text_size / 16, 16, size_t{1} << 16))) {}

  struct Entry {
    const char* text = nullptr;
    u32 length = 0, count = 0;
    size_t begin = 0;  // ids out[begin, begin + count)
    bool holds(std::string_view piece) const {
      return length == piece.size() && std::memcmp(text, piece.data(), length) == 0;
    }
  };
  Entry& slot(std::string_view piece) { return entries_[hash_piece(piece) & (entries_.size() - 1)]; }

 private:
  std::vector<Entry> entries_;
};

}  // namespace

void TokenizerData::encode_piece(std::string_view piece, std::vector<i32>& symbols) const {
  symbols.clear();
  if (ignore_merges) {
    const auto whole = ids.find(piece);
    if (whole != ids.end()) return symbols.push_back(whole->second);
  }
  for (size_t i = 0; i < piece.size();) {
    const size_t length = byte_level ? 1 : std::max<size_t>(1, static_cast<size_t>(utf8_at(piece, i).length));
    const auto id = byte_level ? ids.end() : ids.find(piece.substr(i, length));
    symbols.push_back(byte_level ? byte_ids[static_cast<u8>(piece[i])] : id == ids.end() ? -1 : id->second);
    if (symbols.back() < 0) {
      std::string hex;
      for (char c : piece.substr(i, length)) hex += fmt::format(" {:02x}", static_cast<u8>(c));
      fail("cannot encode the bytes{}: the tokenizer has no token for them", hex);
    }
    i += length;
  }
  merges.apply(symbols);
}

void TokenizerData::encode_section(std::string_view text, std::vector<i32>& out) const {
  constexpr size_t longest_cached = 64;
  std::vector<i32> symbols;
  PieceCache cache(text.size());
  const bool stable = !splitter.changes_text();  // else the cache would point to text that is gone
  const auto encode = [&](std::string_view piece) {
    if (piece.size() > longest_cached || !stable) {
      encode_piece(piece, symbols);
      out.insert(out.end(), symbols.begin(), symbols.end());
      return;
    }
    PieceCache::Entry& entry = cache.slot(piece);
    if (entry.holds(piece)) {
      const size_t begin = out.size();
      out.resize(begin + entry.count);
      std::copy_n(out.begin() + static_cast<i64>(entry.begin), entry.count, out.begin() + static_cast<i64>(begin));
      return;
    }
    encode_piece(piece, symbols);
    entry = {piece.data(), static_cast<u32>(piece.size()), static_cast<u32>(symbols.size()), out.size()};
    out.insert(out.end(), symbols.begin(), symbols.end());
  };
  if (splitter.is_gpt2())
    split_gpt2(text, encode);
  else
    splitter.split(text, encode);
}

const std::string& Tokenizer::to_json() const { return data_->json; }
i64 Tokenizer::vocab_size() const { return static_cast<i64>(data_->tokens.size()); }
const std::optional<std::string>& Tokenizer::chat_template() const { return data_->chat_template; }
const std::vector<i32>& Tokenizer::prefix() const { return data_->prefix; }
const std::vector<i32>& Tokenizer::suffix() const { return data_->suffix; }
std::optional<i32> Tokenizer::end_of_text() const { return data_->end_of_text; }
std::optional<i32> Tokenizer::beginning_of_text() const { return data_->beginning_of_text; }

std::vector<i32> Tokenizer::encode(std::string_view text, SpecialTokens special) const {
  std::vector<i32> ids;
  encode(text, ids, special);
  return ids;
}

void Tokenizer::encode(std::string_view text, std::vector<i32>& out, SpecialTokens special) const {
  data_->added.split(
      text, special == SpecialTokens::recognise, [&](std::string_view part) { data_->encode_section(part, out); },
      [&](i32 id) { out.push_back(id); });
}

std::string_view Tokenizer::bytes_of(i32 id) const {
  if (id < 0 || id >= vocab_size() || !data_->tokens[id].has_value())
    fail("token {} is not in the tokenizer, whose ids are 0 to {}", id, vocab_size() - 1);
  return *data_->tokens[id];
}

std::string Tokenizer::decode(std::span<const i32> ids) const {
  std::string text;
  for (i32 id : ids) text += bytes_of(id);
  return text;
}

std::optional<i32> Tokenizer::id_of(std::string_view bytes) const {
  for (const AddedToken& token : data_->added.all())
    if (token.content == bytes) return token.id;
  const auto found = data_->ids.find(bytes);
  return found == data_->ids.end() ? std::nullopt : std::optional(found->second);
}

std::vector<i32> encode_parallel(const Tokenizer& tokenizer, std::string_view text) {
  constexpr size_t part_bytes = 1 << 20;
  struct Part {
    std::string_view text;
    i32 id;  // of an added token, where the text is empty
  };
  const TokenizerData& data = *tokenizer.data_;
  std::vector<Part> parts;
  const auto cut = [&](std::string_view section) {
    while (!section.empty()) {
      const size_t end = data.splitter.is_gpt2() ? gpt2_safe_cut(section, part_bytes) : section.size();
      parts.push_back({section.substr(0, end), -1});
      section.remove_prefix(std::min(end, section.size()));
    }
  };
  data.added.split(text, true, cut, [&](i32 id) { parts.push_back({{}, id}); });

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
          data.encode_section(parts[i].text, results[task]);
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
