#include "train/data.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "text/corpus.h"

namespace sparsam {

std::vector<Document> open_documents(std::span<const std::string> paths) {
  std::vector<Document> documents;
  size_t bytes = 0;
  for (const std::string& path : paths) {
    Document document{path, {}, {}};
    if (path == "-") {
      const auto text = std::make_shared<const std::string>(read_text(path));
      document.text = *text, document.owner = text;
    } else {
      const auto file = std::make_shared<const MappedFile>(path);
      document.text = file->text(), document.owner = file;
    }
    bytes += document.text.size();
    documents.push_back(std::move(document));
  }
  if (bytes == 0) fail("{}: no text; expected at least one byte", paths.empty() ? "data" : paths.front());
  return documents;
}

Document corpus_document(i64 bytes, u64 seed) {
  const auto text = std::make_shared<const std::string>(embedded_corpus(bytes, seed).text);
  return {"embedded corpus", *text, text};
}

u64 hash_of(std::span<const Document> documents) {
  u64 hash = 0;
  for (const Document& document : documents) hash = hash_text(document.text, hash);
  return hash;
}

namespace {

// The end of a paragraph, else of a line, else of a character, at or soon after `position`.
size_t good_cut(std::string_view text, size_t position) {
  const size_t limit = position + (text.size() - position) / 4;
  for (const std::string_view end : {"\n\n", "\n"}) {
    const size_t found = text.find(end, position);
    if (found != std::string_view::npos && found + end.size() <= limit) return found + end.size();
  }
  constexpr size_t longest_character = 4;
  for (size_t i = position; i < std::min(text.size(), position + longest_character); ++i)
    if ((static_cast<u8>(text[i]) & 0xc0) != 0x80) return i;  // not a continuation byte of UTF-8
  return position;
}

}  // namespace

Split hold_out(std::vector<Document> documents, double fraction) {
  size_t total = 0;
  for (const Document& document : documents) total += document.text.size();
  const size_t kept = total - static_cast<size_t>(fraction * static_cast<double>(total));
  Split split;
  size_t before = 0;
  for (Document& document : documents) {
    const size_t size = document.text.size(), begin = before;
    before += size;
    if (before <= kept) {
      split.train.push_back(std::move(document));
    } else if (begin >= kept) {
      split.held_out.push_back(std::move(document));
    } else {
      const size_t cut = good_cut(document.text, kept - begin);
      split.train.push_back({document.name, document.text.substr(0, cut), document.owner});
      split.held_out.push_back({document.name, document.text.substr(cut), document.owner});
    }
  }
  return split;
}

TokenFile tokenize(std::span<const Document> documents, const Tokenizer& tokenizer, const fs::path& directory,
                   std::string_view name) {
  const u64 hash = hash_text(tokenizer.to_json(), hash_of(documents));
  const fs::path path = directory / fmt::format("{}-{:016x}.tokens", name, hash);
  const i64 vocab = tokenizer.vocab_size();
  if (fs::exists(path)) {
    try {
      if (TokenFile tokens = TokenFile::open(path); tokens.hash() == hash && tokens.vocab() == vocab) return tokens;
    } catch (const Error&) {  // a damaged cache is written anew
    }
  }
  std::vector<i32> ids;
  for (const Document& document : documents) {
    const std::vector<i32> encoded = encode_parallel(tokenizer, document.text);
    ids.insert(ids.end(), encoded.begin(), encoded.end());
    if (const auto end = tokenizer.end_of_text()) ids.push_back(*end);
  }
  std::error_code error;
  fs::create_directories(directory, error);
  if (error) fail("{}: cannot create directory: {}", directory.string(), error.message());
  write_token_file(path, ids, vocab, hash);
  return TokenFile::open(path);
}

std::vector<i32> token_bytes(const Tokenizer& tokenizer) {
  std::vector<i32> bytes(static_cast<size_t>(tokenizer.vocab_size()));
  for (size_t id = 0; id < bytes.size(); ++id) {
    try {
      bytes[id] = static_cast<i32>(tokenizer.bytes_of(static_cast<i32>(id)).size());
    } catch (const Error&) {  // a gap in the vocabulary
    }
  }
  if (const auto end = tokenizer.end_of_text()) bytes[static_cast<size_t>(*end)] = 0;
  if (const auto begin = tokenizer.beginning_of_text()) bytes[static_cast<size_t>(*begin)] = 0;
  return bytes;
}

std::vector<u32> shuffled(i64 count, Random random) {
  std::vector<u32> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0u);
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);  // Fisher-Yates
  return order;
}

Sampler::Sampler(const TokenFile& tokens, i64 length, u64 seed) : tokens_(tokens), length_(length), seed_(seed) {
  const i64 n = tokens.size();
  if (n < length + 1)
    fail("{}: {} tokens, but one training sequence takes {}; give more data or a smaller --sequence",
         tokens.path().string(), n, length + 1);
  // The largest offset is min(T, n - T) - 1: every epoch has the same number of windows.
  windows_ = (n - std::min(length, n - length)) / length;
  if (windows_ > std::numeric_limits<u32>::max()) fail("{}: {} windows are too many", tokens.path().string(), windows_);
}

void Sampler::begin_epoch(i64 epoch) {
  Random random(seed_, static_cast<u64>(epoch));
  epoch_ = epoch;
  offset_ = static_cast<i64>(random.below(static_cast<u64>(std::min(length_, tokens_.size() - length_))));
  order_ = shuffled(windows_, random);
}

void Sampler::copy(i64 sample, std::span<i32> window) {
  check(static_cast<i64>(window.size()) == length_ + 1, "window of {}, expected {}", window.size(), length_ + 1);
  if (sample / windows_ != epoch_) begin_epoch(sample / windows_);
  const i64 place = order_[static_cast<size_t>(sample % windows_)];
  tokens_.copy(offset_ + place * length_, length_ + 1, window.data());
}

}  // namespace sparsam
