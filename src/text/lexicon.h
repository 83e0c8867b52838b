// Token texts by id and ids by text. Neither copied nor moved: the map refers to the texts.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/types.h"

namespace sparsam {

class Lexicon {
 public:
  Lexicon() = default;
  Lexicon(const Lexicon&) = delete;
  Lexicon& operator=(const Lexicon&) = delete;

  // Texts by id; nothing where an id is not in use. Of equal texts the first counts.
  void assign(std::vector<std::optional<std::string>> texts) {
    texts_ = std::move(texts);
    ids_.reserve(texts_.size());
    for (size_t i = 0; i < texts_.size(); ++i)
      if (texts_[i]) ids_.emplace(*texts_[i], static_cast<i32>(i)), longest_ = std::max(longest_, texts_[i]->size());
  }
  i64 size() const { return static_cast<i64>(texts_.size()); }  // largest id + 1
  const std::optional<std::string>& operator[](i32 id) const { return texts_[static_cast<size_t>(id)]; }
  i32 find(std::string_view text) const {  // -1: none
    const auto found = ids_.find(text);
    return found == ids_.end() ? -1 : found->second;
  }
  size_t longest() const { return longest_; }  // bytes

 private:
  std::vector<std::optional<std::string>> texts_;
  std::unordered_map<std::string_view, i32> ids_;
  size_t longest_ = 0;
};

}  // namespace sparsam
