#include "text/added_tokens.h"

#include <algorithm>

#include "base/error.h"
#include "text/splitter.h"

namespace sparsam {

AddedTokens::AddedTokens(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    check(!tokens_[i].content.empty(), "added token {} is empty", tokens_[i].id);
    Group& group = tokens_[i].early ? early_ : late_;
    auto& list = group.by_first_byte[static_cast<u8>(tokens_[i].content[0])];
    if (list.empty()) group.first_bytes.push_back(tokens_[i].content[0]);
    list.push_back(static_cast<i32>(i));
  }
  for (Group* group : {&early_, &late_})
    for (auto& list : group->by_first_byte)
      std::stable_sort(list.begin(), list.end(),
                       [&](i32 a, i32 b) { return tokens_[a].content.size() > tokens_[b].content.size(); });
}

bool AddedTokens::find(const Group& group, std::string_view text, size_t from, bool with_special, Found& found) const {
  using detail::Kind;
  if (group.first_bytes.empty()) return false;
  const auto next = [&](size_t i) {
    return group.first_bytes.size() == 1 ? text.find(group.first_bytes[0], i)
                                         : text.find_first_of(group.first_bytes, i);
  };
  for (size_t i = next(from); i != std::string_view::npos; i = next(i + 1)) {
    for (i32 index : group.by_first_byte[static_cast<u8>(text[i])]) {
      const AddedToken& token = tokens_[index];
      if ((token.special && !with_special) || text.substr(i, token.content.size()) != token.content) continue;
      found = {i, i + token.content.size(), token.id};
      if (token.strip_right) found.end = detail::run_end(text, found.end, Kind::space);
      if (token.strip_left) {
        const auto begins_char = [&](size_t k) { return (static_cast<u8>(text[k]) & 0xC0) != 0x80; };
        for (size_t k = i; k > from;) {
          size_t start = k - 1;
          while (start > from && !begins_char(start)) --start;
          if (detail::char_at(text, start).kind != Kind::space) break;
          found.begin = k = start;
        }
      }
      return true;
    }
  }
  return false;
}

}  // namespace sparsam
