// Byte-pair encoding of one piece of text (Sennrich et al. 2016; the priority order of GPT-2): while some neighbouring
// pair of symbols has a merge, the one of lowest rank, leftmost among equals, becomes one symbol.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "text/lexicon.h"

namespace sparsam {

class MergeTable {
 public:
  struct Merge {
    i32 rank, id;
  };
  MergeTable() : MergeTable(0) {}
  explicit MergeTable(i64 merges);             // room for so many
  void add(i32 left, i32 right, Merge merge);  // replaces an earlier merge of the pair
  // Calls f(left, right, merge) on all, in no particular order.
  template <class F>
  void each(F&& f) const {
    for (const Slot& slot : slots_)
      if (slot.pair != empty)
        f(static_cast<i32>(slot.pair >> 32), static_cast<i32>(slot.pair & 0xFFFFFFFF), slot.merge);
  }
  // Merges `symbols` until none is left to do; n log n in their number.
  void apply(std::vector<i32>& symbols) const;

 private:
  struct Slot {
    u64 pair = empty;
    Merge merge{};
  };
  static constexpr u64 empty = ~0ull;
  static u64 pack(i32 left, i32 right) {
    return static_cast<u64>(static_cast<u32>(left)) << 32 | static_cast<u32>(right);
  }
  size_t slot_of(u64 pair) const;  // where the pair stands or would stand
  const Merge* find(i32 left, i32 right) const;
  void apply_scanning(std::vector<i32>& symbols) const;
  void apply_queueing(std::vector<i32>& symbols) const;

  std::vector<Slot> slots_;  // open addressing, at most half full
  size_t used_ = 0;
};

// A BPE model over a vocabulary: of bytes, or of characters with what becomes of those that it lacks.
class Bpe {
 public:
  struct Options {
    bool byte_level = true;      // symbols are bytes; else the characters of UTF-8
    bool ignore_merges = false;  // a piece that is a token as a whole is that token
    bool byte_fallback = false;  // a character that is no token becomes the tokens <0x00> to <0xFF> of its bytes
    bool fuse_unk = false;       // neighbours that become `unk` become one
    std::optional<i32> unk = {};
  };
  Bpe(const Lexicon& lexicon, MergeTable merges, const Options& options);

  // Appends the tokens of a piece. Error: a byte or character that nothing can stand for.
  void encode(std::string_view piece, std::vector<i32>& out) const;
  // Calls part(view) on stretches of the text between which no merge is possible: words, where a vocabulary has no
  // token that goes on after the end of one with "\u2581". Together they are the text.
  template <class Part>
  void cut(std::string_view text, Part&& part) const {
    constexpr std::string_view space = "\u2581";
    if (!options_.byte_level && !options_.ignore_merges)
      for (size_t at = text.find(space, 1); at < text.size(); at = text.find(space, at + 1)) {
        const bool after_space = at >= space.size() && text.substr(at - space.size(), space.size()) == space;
        if (after_space || joined_[static_cast<u8>(text[at - 1])]) continue;
        part(text.substr(0, at));
        text.remove_prefix(at);
        at = 0;
      }
    if (!text.empty()) part(text);
  }
  const MergeTable& merges() const { return merges_; }
  const Options& options() const { return options_; }

 private:
  void symbols_of(std::string_view piece, std::vector<i32>& symbols) const;

  const Lexicon& lexicon_;
  MergeTable merges_;
  Options options_;
  std::array<i32, 256> bytes_{};    // of each byte its token, or its fallback; -1: none
  std::array<bool, 256> joined_{};  // some token goes on with "\u2581" after a character that ends with this byte
};

}  // namespace sparsam
