// Byte-pair encoding of one piece of text (Sennrich et al. 2016; the priority order of GPT-2): while some neighbouring
// pair of symbols has a merge, the one of lowest rank, leftmost among equals, becomes one symbol.
#pragma once

#include <span>
#include <vector>

#include "base/types.h"

namespace sparsam {

class MergeTable {
 public:
  struct Merge {
    i32 rank, id;
  };
  MergeTable() : MergeTable(0) {}
  explicit MergeTable(i64 merges);             // room for so many
  void add(i32 left, i32 right, Merge merge);  // replaces an earlier merge of the pair
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

}  // namespace sparsam
