#include "text/bpe.h"

#include <array>
#include <bit>
#include <queue>
#include <tuple>

#include "base/random.h"

namespace sparsam {
namespace {
constexpr size_t short_piece = 48;  // symbols; up to here, scanning all pairs for each merge is faster than a queue
}  // namespace

MergeTable::MergeTable(i64 merges) : slots_(std::bit_ceil(static_cast<size_t>(merges) * 2 + 2)) {}

size_t MergeTable::slot_of(u64 pair) const {
  const size_t mask = slots_.size() - 1;
  size_t i = mix64(pair) & mask;
  while (slots_[i].pair != empty && slots_[i].pair != pair) i = (i + 1) & mask;
  return i;
}

const MergeTable::Merge* MergeTable::find(i32 left, i32 right) const {
  const Slot& slot = slots_[slot_of(pack(left, right))];
  return slot.pair == empty ? nullptr : &slot.merge;
}

void MergeTable::add(i32 left, i32 right, Merge merge) {
  if (2 * (used_ + 1) > slots_.size()) {
    MergeTable larger(static_cast<i64>(slots_.size()));
    for (const Slot& slot : slots_)
      if (slot.pair != empty) larger.slots_[larger.slot_of(slot.pair)] = slot;
    slots_ = std::move(larger.slots_);
  }
  Slot& slot = slots_[slot_of(pack(left, right))];
  used_ += slot.pair == empty;
  slot = {pack(left, right), merge};
}

void MergeTable::apply(std::vector<i32>& symbols) const {
  symbols.size() <= short_piece ? apply_scanning(symbols) : apply_queueing(symbols);
}

void MergeTable::apply_scanning(std::vector<i32>& symbols) const {
  constexpr Merge none{INT32_MAX, -1};
  size_t count = symbols.size();
  std::array<Merge, short_piece> merges;  // merges[i]: of symbols i and i + 1
  const auto look_up = [&](size_t i) {
    const Merge* merge = i + 1 < count ? find(symbols[i], symbols[i + 1]) : nullptr;
    merges[i] = merge == nullptr ? none : *merge;
  };
  for (size_t i = 0; i < count; ++i) look_up(i);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i < count; ++i)
      if (merges[i].rank < merges[best].rank) best = i;
    if (merges[best].id < 0) break;
    symbols[best] = merges[best].id;
    --count;
    for (size_t i = best + 1; i < count; ++i) symbols[i] = symbols[i + 1], merges[i] = merges[i + 1];
    look_up(best);
    if (best > 0) look_up(best - 1);
  }
  symbols.resize(count);
}

void MergeTable::apply_queueing(std::vector<i32>& symbols) const {
  struct Candidate {
    i32 rank, id;
    size_t position;
    i32 left, right;  // the symbols it was made for: if they have changed since, it is void
    bool operator<(const Candidate& other) const {
      return std::tie(rank, position) > std::tie(other.rank, other.position);
    }
  };
  const size_t count = symbols.size();
  std::vector<size_t> next(count), previous(count);  // linked list over the positions; `count` ends it
  std::priority_queue<Candidate> queue;
  const auto offer = [&](size_t i) {
    if (i == count || next[i] == count) return;
    const i32 left = symbols[i], right = symbols[next[i]];
    if (const Merge* merge = find(left, right)) queue.push({merge->rank, merge->id, i, left, right});
  };
  for (size_t i = 0; i < count; ++i) next[i] = i + 1, previous[i] = i == 0 ? count : i - 1;
  for (size_t i = 0; i < count; ++i) offer(i);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    const size_t i = best.position, j = next[i];
    if (symbols[i] != best.left || j == count || symbols[j] != best.right) continue;
    symbols[i] = best.id;
    symbols[j] = -1;  // gone
    next[i] = next[j];
    if (next[j] != count) previous[next[j]] = i;
    offer(previous[i]);
    offer(i);
  }
  std::erase(symbols, -1);
}

}  // namespace sparsam
