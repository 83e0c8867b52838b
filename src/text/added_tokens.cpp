#include "text/added_tokens.h"

#include <algorithm>

#include "base/error.h"
#include "text/splitter.h"

namespace sparsam {
namespace {

bool is_word(u32 c) {
  return char_class(c) == CharClass::letter || char_class(c) == CharClass::number || is_nonspacing_mark(c) || c == '_';
}

bool word_before(std::string_view text, size_t end) {
  if (end == 0) return false;
  size_t start = end - 1;
  while (start > 0 && (static_cast<u8>(text[start]) & 0xC0) == 0x80) --start;
  const Utf8Char c = utf8_at(text, start);
  return c.length > 0 && is_word(c.code_point);
}

bool word_after(std::string_view text, size_t begin) {
  const Utf8Char c = utf8_at(text, begin);
  return c.length > 0 && is_word(c.code_point);
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens, const Normalizer& normalizer) : tokens_(std::move(tokens)) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const AddedToken& token = tokens_[i];
    check(!token.content.empty(), "added token {} is empty", token.id);
    Group& group = token.early ? early_ : late_;
    const std::string content = token.early ? token.content : normalizer.apply(token.content);
    if (content.empty()) continue;  // nothing of it is left in a normalized text
    auto& list = group.by_first_byte[static_cast<u8>(content[0])];
    if (list.empty()) group.first_bytes.push_back(content[0]);
    list.push_back({content, static_cast<i32>(i)});
  }
  for (Group* group : {&early_, &late_})
    for (auto& list : group->by_first_byte)
      std::stable_sort(list.begin(), list.end(),
                       [](const Pattern& a, const Pattern& b) { return a.content.size() > b.content.size(); });
}

bool AddedTokens::find(const Group& group, std::string_view text, size_t from, bool with_special, Found& found) const {
  using detail::Kind;
  if (group.first_bytes.empty()) return false;
  const auto next = [&](size_t i) {
    return group.first_bytes.size() == 1 ? text.find(group.first_bytes[0], i)
                                         : text.find_first_of(group.first_bytes, i);
  };
  for (size_t i = next(from); i != std::string_view::npos; i = next(i + 1)) {
    for (const Pattern& pattern : group.by_first_byte[static_cast<u8>(text[i])]) {
      const AddedToken& token = tokens_[pattern.token];
      const size_t end = i + pattern.content.size();
      if ((token.special && !with_special) || text.substr(i, pattern.content.size()) != pattern.content) continue;
      if (token.single_word && (word_before(text, i) || word_after(text, end))) continue;
      found = {token.strip_left ? detail::run_begin(text, from, i, Kind::space) : i,
               token.strip_right ? detail::run_end(text, end, Kind::space) : end, token.id};
      return true;
    }
  }
  return false;
}

}  // namespace sparsam
