#include "text/unigram.h"

#include <algorithm>
#include <limits>

#include "text/byte_level.h"

namespace sparsam {

Unigram::Unigram(const Lexicon& lexicon, std::vector<double> scores, i32 unk, std::optional<std::array<i32, 256>> bytes)
    : lexicon_(lexicon), scores_(std::move(scores)), unk_(unk), bytes_(bytes) {
  constexpr double unknown_penalty = 10.0;
  unknown_score_ = *std::min_element(scores_.begin(), scores_.end()) - unknown_penalty;
  struct Entry {
    std::string_view text;
    i32 id;
  };
  std::vector<Entry> entries;
  for (i32 id = 0; id < static_cast<i32>(scores_.size()); ++id)
    if (lexicon[id] && !lexicon[id]->empty() && lexicon.find(*lexicon[id]) == id) entries.push_back({*lexicon[id], id});
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.text < b.text; });

  // Breadth first, so that the children of a node stand side by side. A node's entries share its depth in bytes.
  struct Range {
    size_t begin, end, depth;
  };
  nodes_.emplace_back();
  std::vector<Range> ranges = {{0, entries.size(), 0}};
  for (size_t n = 0; n < nodes_.size(); ++n) {
    auto [begin, end, depth] = ranges[n];
    if (begin < end && entries[begin].text.size() == depth) nodes_[n].token = entries[begin++].id;
    nodes_[n].first_child = static_cast<u32>(nodes_.size());
    while (begin < end) {
      const char label = entries[begin].text[depth];
      size_t next = begin;
      while (next < end && entries[next].text[depth] == label) ++next;
      nodes_.push_back({.label = static_cast<u8>(label)});
      ranges.push_back({begin, next, depth + 1});
      ++nodes_[n].children;
      begin = next;
    }
  }
  for (u32 c = nodes_[0].first_child; c < nodes_[0].first_child + nodes_[0].children; ++c) root_[nodes_[c].label] = c;
}

u32 Unigram::child(u32 node, u8 label) const {
  const Node& parent = nodes_[node];
  const auto begin = nodes_.begin() + parent.first_child, end = begin + parent.children;
  const auto found = parent.children <= 8
                         ? std::find_if(begin, end, [&](const Node& n) { return n.label >= label; })
                         : std::lower_bound(begin, end, label, [](const Node& n, u8 l) { return n.label < l; });
  return found == end || found->label != label ? 0 : static_cast<u32>(found - nodes_.begin());
}

void Unigram::encode(std::string_view piece, std::vector<i32>& out) const {
  struct Best {  // of the ways to cut the text up to here: its sum, the last token, where that begins
    double score = -std::numeric_limits<double>::infinity();
    i32 token = -1;
    size_t begin = 0;
  };
  std::vector<Best> best(piece.size() + 1);
  best[0].score = 0;
  for (size_t i = 0; i < piece.size();) {
    const size_t length = static_cast<size_t>(std::max(1, utf8_at(piece, i).length));
    bool covered = false;
    const auto offer = [&](size_t end, double score, i32 token) {
      if (best[end].token < 0 || best[i].score + score > best[end].score) best[end] = {best[i].score + score, token, i};
    };
    u32 node = root_[static_cast<u8>(piece[i])];
    for (size_t end = i + 1; node != 0; ++end) {
      if (const i32 token = nodes_[node].token; token >= 0) {
        offer(end, scores_[token], token);
        covered |= end == i + length;
      }
      if (end == piece.size()) break;
      node = child(node, static_cast<u8>(piece[end]));
    }
    if (!covered) offer(i + length, unknown_score_, unk_);
    i += length;
  }

  const size_t before = out.size();
  for (size_t end = piece.size(); end > 0;) {
    const i32 token = best[end].token;
    size_t begin = best[end].begin;
    if (token != unk_) {
      out.push_back(token);
    } else {
      while (begin > 0 && best[begin].token == unk_) begin = best[begin].begin;
      const std::string_view unknown = piece.substr(begin, end - begin);
      const bool by_bytes = bytes_ && std::all_of(unknown.begin(), unknown.end(),
                                                  [&](char c) { return (*bytes_)[static_cast<u8>(c)] >= 0; });
      if (const i32 whole = lexicon_.find(unknown); whole >= 0)
        out.push_back(whole);
      else if (!by_bytes)
        out.push_back(unk_);
      else
        for (size_t i = end; i > begin; --i) out.push_back((*bytes_)[static_cast<u8>(piece[i - 1])]);
    }
    end = begin;
  }
  std::reverse(out.begin() + static_cast<i64>(before), out.end());
}

}  // namespace sparsam
