#include "measure/recall.h"

#include <algorithm>

#include "text/recall.h"

namespace sparsam {

SampleSet recall_samples(u64 seed, std::vector<i64> pairs, i64 length, i64 count) {
  return {.read =
              [seed, pairs = std::move(pairs), length](i64 sample, std::span<i32> ids, std::span<i32> targets) {
                const size_t size = static_cast<size_t>(length);
                draw_recall(seed, sample, pairs[static_cast<size_t>(sample) % pairs.size()], ids.first(size),
                            targets.first(size));
                return length;
              },
          .count = count};
}

RecallAccuracy measure_recall(const Transformer& model, u64 seed, i64 pairs, i64 length, i64 sequences) {
  RecallAccuracy result{.pairs = pairs};
  const auto count = [&](i64, const Batch& batch, In<float, 2> rows, In<float, 1>, Arena& arena) {
    for (i64 n = 0; n < rows.shape(0); ++n) {
      const i32 target = batch.targets[static_cast<size_t>(n)];
      if (target < 0) continue;
      const Arena::Mark mark = arena.mark();
      const In<float, 2> logits = model.logits(rows.slice(n, 1), arena);
      ++result.asked;
      if (std::max_element(logits.begin(), logits.end()) - logits.begin() == target) ++result.right;
      arena.release(mark);
    }
  };
  constexpr i64 tokens_at_once = 8192;
  Arena arena;
  for_each_batch(model, recall_samples(seed, {pairs}, length, sequences),
                 std::clamp<i64>(tokens_at_once / length, 1, sequences), length, count, arena);
  return result;
}

}  // namespace sparsam
