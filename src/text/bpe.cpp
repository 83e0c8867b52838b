#include "text/bpe.h"

#include <algorithm>
#include <array>
#include <bit>
#include <queue>
#include <tuple>

#include "base/error.h"
#include "base/random.h"
#include "text/byte_level.h"

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

Bpe::Bpe(const Lexicon& lexicon, MergeTable merges, const Options& options)
    : lexicon_(lexicon), merges_(std::move(merges)), options_(options) {
  for (int byte = 0; byte < 256; ++byte)
    bytes_[byte] = options_.byte_level ? lexicon_.find(std::string(1, static_cast<char>(byte)))
                                       : lexicon_.find(fmt::format("<0x{:02X}>", byte));
  constexpr std::string_view space = "\u2581";
  joined_.fill(lexicon_.find(space) < 0);
  for (i32 id = 0; !options_.byte_level && id < lexicon_.size(); ++id) {
    if (!lexicon_[id]) continue;
    const std::string_view text = *lexicon_[id];
    for (size_t at = text.find(space, 1); at < text.size(); at = text.find(space, at + 1)) {
      const bool after_space = at >= space.size() && text.substr(at - space.size(), space.size()) == space;
      if (!after_space) joined_[static_cast<u8>(text[at - 1])] = true;
    }
  }
}

void Bpe::symbols_of(std::string_view piece, std::vector<i32>& symbols) const {
  const bool fallback = options_.byte_level || options_.byte_fallback;
  bool unknown = false;  // the symbol before is `unk`
  for (size_t i = 0, length = 1; i < piece.size(); i += length) {
    if (!options_.byte_level) {
      length = std::max<size_t>(1, static_cast<size_t>(utf8_at(piece, i).length));
      if (const i32 id = lexicon_.find(piece.substr(i, length)); id >= 0) {
        symbols.push_back(id);
        unknown = false;
        continue;
      }
    }
    const std::string_view bytes = piece.substr(i, length);
    const auto known = [&](char c) { return bytes_[static_cast<u8>(c)] >= 0; };
    if (fallback && std::all_of(bytes.begin(), bytes.end(), known)) {
      for (char c : bytes) symbols.push_back(bytes_[static_cast<u8>(c)]);
      unknown = false;
    } else if (options_.unk) {
      if (!unknown || !options_.fuse_unk) symbols.push_back(*options_.unk);
      unknown = true;
    } else {
      std::string hex;
      for (char c : bytes) hex += fmt::format(" {:02x}", static_cast<u8>(c));
      fail("cannot encode the bytes{}: the tokenizer has no token for them", hex);
    }
  }
}

void Bpe::encode(std::string_view piece, std::vector<i32>& out) const {
  if (options_.ignore_merges)
    if (const i32 whole = lexicon_.find(piece); whole >= 0) return out.push_back(whole);
  std::vector<i32> symbols;
  symbols.reserve(piece.size());
  symbols_of(piece, symbols);
  merges_.apply(symbols);
  out.insert(out.end(), symbols.begin(), symbols.end());
}

}  // namespace sparsam
