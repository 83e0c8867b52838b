// Multi-query associative recall, the probe of what a sequence mixer remembers (Arora et al. 2023, arXiv 2312.04927,
// section 3): P pairs of a key and a value, the keys all different; then each key once more, in another order, at
// random places, where its value is to be predicted; fillers between. Tokens: 0 the filler, keys, values.
#pragma once

#include <span>
#include <vector>

#include "base/types.h"

namespace sparsam {

constexpr i64 recall_keys = 127, recall_values = 128, recall_vocab = 1 + recall_keys + recall_values;
constexpr i64 least_recall_pairs = 4, most_recall_pairs = recall_keys;
constexpr i64 recall_length(i64 pairs) { return 4 * pairs; }  // the shortest sequence of so many

// Sequence number `sample` of `seed`, of T tokens: targets_t is the value after token t where that is a key asked for,
// else -1. T is at least recall_length(pairs).
void draw_recall(u64 seed, i64 sample, i64 pairs, std::span<i32> ids, std::span<i32> targets);

// least_recall_pairs, twice as many, ... and `most`: what training mixes.
std::vector<i64> recall_mixture(i64 most);

}  // namespace sparsam
