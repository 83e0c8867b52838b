#include "text/recall.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/random.h"

namespace sparsam {

namespace {

// `count` different numbers below `limit`, in random order.
std::vector<i32> draw_different(Random& random, i64 count, i64 limit) {
  std::vector<i32> all(static_cast<size_t>(limit));
  std::iota(all.begin(), all.end(), 0);
  for (size_t i = 0; i < static_cast<size_t>(count); ++i)
    std::swap(all[i], all[i + random.below(all.size() - i)]);  // Fisher-Yates
  all.resize(static_cast<size_t>(count));
  return all;
}

}  // namespace

void draw_recall(u64 seed, i64 sample, i64 pairs, std::span<i32> ids, std::span<i32> targets) {
  const i64 T = static_cast<i64>(ids.size());
  check(pairs >= 1 && pairs <= most_recall_pairs && T >= recall_length(pairs) && targets.size() == ids.size(),
        "recall of {} pairs in {} tokens, {} targets", pairs, T, targets.size());
  Random random(seed, static_cast<u64>(sample));
  std::fill(ids.begin(), ids.end(), 0);
  std::fill(targets.begin(), targets.end(), -1);
  const std::vector<i32> keys = draw_different(random, pairs, recall_keys);
  std::vector<i32> values(keys.size());
  const auto put = [&](size_t place, size_t pair) {
    ids[place] = 1 + keys[pair];
    ids[place + 1] = values[pair];
  };
  for (size_t pair = 0; pair < keys.size(); ++pair) {
    values[pair] = static_cast<i32>(1 + recall_keys) + static_cast<i32>(random.below(recall_values));
    put(2 * pair, pair);
  }
  std::vector<i32> slots = draw_different(random, pairs, (T - 2 * pairs) / 2);  // of two tokens each
  for (size_t pair = 0; pair < keys.size(); ++pair) {
    const size_t place = 2 * keys.size() + 2 * static_cast<size_t>(slots[pair]);
    put(place, pair);
    targets[place] = values[pair];
  }
}

std::vector<i64> recall_mixture(i64 most) {
  std::vector<i64> pairs;
  for (i64 p = least_recall_pairs; p < most; p *= 2) pairs.push_back(p);
  pairs.push_back(most);
  return pairs;
}

}  // namespace sparsam
