#include <algorithm>
#include <charconv>
#include <unordered_map>

#include "base/error.h"
#include "formats/json.h"
#include "text/byte_level.h"
#include "text/pipeline_json.h"
#include "text/vocabulary.h"

namespace sparsam {
namespace {

// A rank file says neither how texts are cut nor which special tokens there are: both are known of the published ones,
// told apart by their number of tokens.
struct Published {
  const char* name;
  size_t tokens;
  const char* pre;
  std::vector<std::pair<i32, std::string>> special;
  std::optional<i32> bos;
  i32 eos;
};

std::vector<std::pair<i32, std::string>> llama3_special() {
  constexpr i32 first = 128000, count = 256;
  const std::pair<i32, const char*> named[] = {
      {0, "<|begin_of_text|>"},   {1, "<|end_of_text|>"},   {4, "<|finetune_right_pad_id|>"},
      {6, "<|start_header_id|>"}, {7, "<|end_header_id|>"}, {8, "<|eom_id|>"},
      {9, "<|eot_id|>"},          {10, "<|python_tag|>"}};
  std::vector<std::pair<i32, std::string>> special;
  for (i32 i = 0, reserved = 0; i < count; ++i) {
    const auto found = std::find_if(std::begin(named), std::end(named), [&](const auto& n) { return n.first == i; });
    special.emplace_back(first + i, found != std::end(named)
                                        ? std::string(found->second)
                                        : fmt::format("<|reserved_special_token_{}|>", reserved++));
  }
  return special;
}

Published published(size_t tokens, std::string_view where) {
  const std::string end = "<|endoftext|>";
  const Published known[] = {{"r50k_base", 50256, "gpt-2", {{50256, end}}, {}, 50256},
                             {"p50k_base", 50280, "gpt-2", {{50256, end}}, {}, 50256},
                             {"cl100k_base",
                              100256,
                              "llama-bpe",
                              {{100257, end},
                               {100258, "<|fim_prefix|>"},
                               {100259, "<|fim_middle|>"},
                               {100260, "<|fim_suffix|>"},
                               {100276, "<|endofprompt|>"}},
                              {},
                              100257},
                             {"Llama 3", 128000, "llama-bpe", llama3_special(), 128000, 128001}};
  std::string names;
  for (const Published& p : known) {
    if (p.tokens == tokens) return p;
    names += fmt::format("{}{} ({})", names.empty() ? "" : ", ", p.name, p.tokens);
  }
  fail("{}: a rank file of {} tokens; known are those of {}", where, tokens, names);
}

using Ranks = std::unordered_map<std::string_view, i32>;

// The ways to make a token of two others, in the order of Hugging Face's converter.
void append_merges(const std::string& token, const Ranks& ranks, std::vector<std::string>& merges) {
  std::vector<std::pair<i32, i32>> pairs;
  std::vector<size_t> cuts;
  for (size_t cut = 1; cut < token.size(); ++cut) {
    const auto left = ranks.find(std::string_view(token).substr(0, cut));
    const auto right = ranks.find(std::string_view(token).substr(cut));
    if (left == ranks.end() || right == ranks.end()) continue;
    pairs.emplace_back(left->second, right->second);
    cuts.push_back(cut);
  }
  std::vector<size_t> order(pairs.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return pairs[a] < pairs[b]; });
  for (size_t i : order)
    merges.push_back(to_byte_alphabet(std::string_view(token).substr(0, cuts[i])) + " " +
                     to_byte_alphabet(std::string_view(token).substr(cuts[i])));
}

}  // namespace

bool is_tiktoken(std::string_view bytes) {
  const std::string_view line = bytes.substr(0, std::min<size_t>(bytes.find('\n'), 400));
  const size_t space = line.find(' ');
  return space != line.npos && space > 0 && line.find_first_not_of("0123456789\r", space + 1) == line.npos;
}

Vocabulary read_tiktoken_vocabulary(std::string_view bytes, std::string_view where) {
  std::vector<std::pair<std::string, i32>> entries;
  for (size_t begin = 0, number = 1; begin < bytes.size(); ++number) {
    const size_t end = std::min(bytes.find('\n', begin), bytes.size());
    std::string_view line = bytes.substr(begin, end - begin);
    begin = end + 1;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    const std::string place = fmt::format("{}: line {}", where, number);
    const size_t space = std::min(line.find(' '), line.size());
    i32 rank = -1;
    const auto [last, error] =
        std::from_chars(line.data() + std::min(space + 1, line.size()), line.data() + line.size(), rank);
    if (error != std::errc() || last != line.data() + line.size() || rank < 0 || rank >= largest_vocabulary)
      fail("{}: found '{}', expected a token in base64 and its rank", place, printable(line));
    entries.emplace_back(from_base64(line.substr(0, space), place), rank);
    constexpr size_t longest = 1024;  // bytes: the search for merges is quadratic
    if (const size_t size = entries.back().first.size(); size == 0 || size > longest)
      fail("{}: a token of {} bytes, expected 1 to {}", place, size, longest);
  }
  const Published file = published(entries.size(), where);
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.second < b.second; });

  Vocabulary v{};
  v.model = "gpt2", v.pre = file.pre;
  const i32 largest = std::max(entries.back().second, file.special.back().first);
  if (largest > 2 * static_cast<i32>(entries.size())) fail("{}: the largest rank is {}", where, largest);
  for (i32 id = 0; id <= largest; ++id) v.tokens.push_back(fmt::format("[PAD{}]", id));
  v.types.assign(v.tokens.size(), TokenType::unused);
  Ranks ranks;
  const auto place = [&](i32 id, std::string text, TokenType type) {
    if (v.types[static_cast<size_t>(id)] != TokenType::unused) fail("{}: two tokens have the rank {}", where, id);
    v.tokens[static_cast<size_t>(id)] = std::move(text);
    v.types[static_cast<size_t>(id)] = type;
  };
  for (const auto& [token, rank] : entries) {
    place(rank, to_byte_alphabet(token), TokenType::normal);
    if (!ranks.emplace(token, rank).second) fail("{}: the token of rank {} stands twice", where, rank);
  }
  for (const auto& [id, text] : file.special) place(id, text, TokenType::control);
  for (const auto& [token, rank] : entries) append_merges(token, ranks, v.merges);
  v.bos = file.bos, v.eos = file.eos;
  v.add_bos = v.bos.has_value();
  return v;
}

}  // namespace sparsam
