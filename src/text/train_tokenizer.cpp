// Learning byte-pair merges: words are counted once, then pair counts are kept up to date merge by merge, and a heap
// whose stale entries are corrected when they surface gives the most frequent pair.
#include <algorithm>
#include <queue>
#include <unordered_map>

#include "base/error.h"
#include "base/random.h"
#include "base/threads.h"
#include "formats/json.h"
#include "text/splitter.h"
#include "text/tokenizer.h"

namespace sparsam {
namespace {

constexpr std::string_view separator = "<|endoftext|>";
using WordCounts = std::unordered_map<std::string_view, i64>;

// Cuts of about `bytes` at places that no piece crosses, without the separators.
std::vector<std::string_view> parts_of(std::span<const std::string_view> texts, size_t bytes) {
  std::vector<std::string_view> parts;
  for (std::string_view text : texts)
    while (!text.empty()) {
      const size_t document = std::min(text.find(separator), text.size());
      std::string_view rest = text.substr(0, document);
      text.remove_prefix(std::min(text.size(), document + separator.size()));
      while (!rest.empty()) {
        const size_t end = gpt2_safe_cut(rest, bytes);
        parts.push_back(rest.substr(0, end));
        rest.remove_prefix(end);
      }
    }
  return parts;
}

WordCounts count_words(std::span<const std::string_view> texts) {
  const std::vector<std::string_view> parts = parts_of(texts, 1 << 20);
  std::vector<WordCounts> counts(static_cast<size_t>(threads()));  // by thread; the sums do not depend on who counted
  parallel_dynamic(static_cast<i64>(parts.size()), [&](int thread, i64 i) {
    split_gpt2(parts[i], [&](std::string_view word) { ++counts[thread][word]; });
  });
  for (size_t t = 1; t < counts.size(); ++t)
    for (const auto& [word, count] : counts[t]) counts[0][word] += count;
  return std::move(counts[0]);
}

using Pair = std::pair<i32, i32>;
struct PairHash {
  size_t operator()(const Pair& pair) const {
    return mix64(static_cast<u64>(static_cast<u32>(pair.first)) << 32 | static_cast<u32>(pair.second));
  }
};

class MergeLearner {
 public:
  explicit MergeLearner(const WordCounts& counts) {
    for (int byte = 0; byte < 256; ++byte) tokens_.emplace_back(1, static_cast<char>(byte));
    for (const auto& [text, count] : counts) {
      if (text.size() < 2) continue;
      Word word{{}, count};
      for (char c : text) word.symbols.push_back(static_cast<u8>(c));
      words_.push_back(std::move(word));
    }
    for (size_t w = 0; w < words_.size(); ++w)
      for (size_t i = 0; i + 1 < words_[w].symbols.size(); ++i)
        change({words_[w].symbols[i], words_[w].symbols[i + 1]}, words_[w].count, static_cast<i32>(w));
    for (const auto& [pair, stats] : pairs_) heap_.push_back({stats.count, pair});
    std::make_heap(heap_.begin(), heap_.end(), Below{*this});
  }

  // Merges the most frequent pair into a new token; false when no pair occurs twice.
  bool step() {
    while (!heap_.empty()) {
      std::pop_heap(heap_.begin(), heap_.end(), Below{*this});
      const Candidate best = heap_.back();
      heap_.pop_back();
      const auto stats = pairs_.find(best.pair);
      const i64 count = stats == pairs_.end() ? 0 : stats->second.count;
      if (count < 2) continue;
      if (count == best.count) return merge(best.pair), true;
      push({count, best.pair});  // it was stale
    }
    return false;
  }
  // By learner id: the bytes first, in numeric order, then the merges in order.
  const std::vector<std::string>& tokens() const { return tokens_; }
  const std::vector<Pair>& merges() const { return merges_; }

 private:
  struct Word {
    std::vector<i32> symbols;
    i64 count;
  };
  struct Stats {
    i64 count = 0;
    std::vector<i32> words;  // where it has occurred, perhaps no longer; ascending within a run of changes
  };
  struct Candidate {
    i64 count;
    Pair pair;
  };

  bool below(const Candidate& a, const Candidate& b) const {
    if (a.count != b.count) return a.count < b.count;
    const int first = tokens_[a.pair.first].compare(tokens_[b.pair.first]);
    return first != 0 ? first < 0 : tokens_[a.pair.second] < tokens_[b.pair.second];
  }
  struct Below {
    const MergeLearner& learner;
    bool operator()(const Candidate& a, const Candidate& b) const { return learner.below(a, b); }
  };
  void push(Candidate candidate) {
    heap_.push_back(candidate);
    std::push_heap(heap_.begin(), heap_.end(), Below{*this});
  }
  void change(Pair pair, i64 by, i32 word) {
    Stats& stats = pairs_[pair];
    stats.count += by;
    if (by > 0 && (stats.words.empty() || stats.words.back() != word)) stats.words.push_back(word);
  }

  void merge(Pair pair) {
    const i32 id = static_cast<i32>(tokens_.size());
    tokens_.push_back(tokens_[pair.first] + tokens_[pair.second]);
    merges_.push_back(pair);
    const std::vector<i32> where = std::move(pairs_[pair].words);
    std::vector<Pair> born;
    for (i32 w : where) {
      Word& word = words_[w];
      std::vector<i32>& symbols = word.symbols;
      size_t to = 0;
      for (size_t from = 0; from < symbols.size();) {
        if (from + 1 == symbols.size() || symbols[from] != pair.first || symbols[from + 1] != pair.second) {
          symbols[to++] = symbols[from++];
          continue;
        }
        if (to > 0) {  // the left neighbour may itself be a token just made
          change({symbols[to - 1], pair.first}, -word.count, w);
          change({symbols[to - 1], id}, word.count, w);
          born.emplace_back(symbols[to - 1], id);
        }
        if (from + 2 < symbols.size()) {
          change({pair.second, symbols[from + 2]}, -word.count, w);
          change({id, symbols[from + 2]}, word.count, w);
          born.emplace_back(id, symbols[from + 2]);
        }
        symbols[to++] = id;
        from += 2;
      }
      symbols.resize(to);
    }
    pairs_.erase(pair);
    std::sort(born.begin(), born.end());
    born.erase(std::unique(born.begin(), born.end()), born.end());
    for (const Pair& next : born)
      if (const auto stats = pairs_.find(next); stats != pairs_.end() && stats->second.count > 1)
        push({stats->second.count, next});
  }

  std::vector<std::string> tokens_;
  std::vector<Word> words_;
  std::unordered_map<Pair, Stats, PairHash> pairs_;
  std::vector<Candidate> heap_;
  std::vector<Pair> merges_;
};

std::string tokenizer_json(const MergeLearner& learner) {
  const auto name = [&](i32 token) { return to_byte_alphabet(learner.tokens()[token]); };
  std::vector<std::pair<std::string, i32>> vocab = {{std::string(separator), 0}};
  i32 id = 1;
  for (u8 byte : bytes_in_alphabet_order()) vocab.emplace_back(name(byte), id++);
  Json merges = Json::array();
  for (size_t i = 0; i < learner.merges().size(); ++i) {
    const auto [left, right] = learner.merges()[i];
    merges.push_back({name(left), name(right)});
    vocab.emplace_back(name(256 + static_cast<i32>(i)), id++);
  }
  const Json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  const Json end_of_text = {{"id", 0},         {"content", separator}, {"single_word", false}, {"lstrip", false},
                            {"rstrip", false}, {"normalized", false},  {"special", true}};
  // Written entry by entry: an ordered object of thousands of keys would be filled in quadratic time.
  std::string vocab_text;
  for (const auto& [token, number] : vocab)
    vocab_text += fmt::format("{}{}:{}", vocab_text.empty() ? "" : ",", Json(token).dump(), number);
  return fmt::format(R"({{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{}],"normalizer":null,)"
                     R"("pre_tokenizer":{},"post_processor":null,"decoder":{},"model":{{"type":"BPE","dropout":null,)"
                     R"("unk_token":null,"continuing_subword_prefix":"","end_of_word_suffix":"","fuse_unk":false,)"
                     R"("byte_fallback":false,"ignore_merges":false,"vocab":{{{}}},"merges":{}}}}})",
                     end_of_text.dump(), byte_level.dump(), byte_level.dump(), vocab_text, merges.dump());
}

}  // namespace

Tokenizer train_tokenizer(std::span<const std::string_view> texts, i64 vocab, const TrainProgress& progress) {
  constexpr i64 fewest = 257, most = 1 << 24;
  if (vocab < fewest || vocab > most)
    fail("a vocabulary of {} tokens was asked for; a tokenizer has {} (the bytes and {}) to {}", vocab, fewest,
         separator, most);
  const auto report = [&](double fraction, std::string_view stage) {
    if (progress) progress(fraction, stage);
  };
  report(0.0, "counting words");
  const WordCounts counts = count_words(texts);
  report(0.2, "counting pairs");
  MergeLearner learner(counts);
  const i64 wanted = vocab - fewest;
  for (i64 i = 0; i < wanted && learner.step(); ++i)
    if (i % 256 == 0) report(0.3 + 0.7 * static_cast<double>(i) / static_cast<double>(wanted), "merging");
  report(1.0, "done");
  return Tokenizer::from_json(tokenizer_json(learner), "the trained tokenizer");
}

}  // namespace sparsam
