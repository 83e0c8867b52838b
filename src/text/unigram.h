// The unigram language model (Kudo 2018): of all ways to cut a piece into tokens the one of the highest sum of scores.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/lexicon.h"

namespace sparsam {

class Unigram {
 public:
  // scores[id] of each token: log probabilities. A character that no token covers costs 10 more than the worst token
  // and becomes `unk`, neighbours together one, or, where `bytes` has one for each of its bytes, those.
  Unigram(const Lexicon& lexicon, std::vector<double> scores, i32 unk, std::optional<std::array<i32, 256>> bytes);
  void encode(std::string_view piece, std::vector<i32>& out) const;  // appends
  const std::vector<double>& scores() const { return scores_; }

 private:
  struct Node {  // its children stand side by side, their labels ascending
    u32 first_child = 0;
    i32 token = -1;
    u16 children = 0;
    u8 label = 0;
  };
  u32 child(u32 node, u8 label) const;  // 0: none

  const Lexicon& lexicon_;
  std::vector<double> scores_;
  double unknown_score_;
  i32 unk_;
  std::optional<std::array<i32, 256>> bytes_;
  std::vector<Node> nodes_;      // the first is the root
  std::array<u32, 256> root_{};  // its children by label
};

}  // namespace sparsam
