// How well a model recalls: multi-query associative recall (text/recall.h) as samples, and the answers that are right.
#pragma once

#include "measure/samples.h"

namespace sparsam {

// Sequences of T tokens with so many pairs each. Those of several numbers take turns.
SampleSet recall_samples(u64 seed, std::vector<i64> pairs, i64 length, i64 count);

struct RecallAccuracy {
  i64 pairs = 0, asked = 0, right = 0;
  double accuracy() const { return static_cast<double>(right) / static_cast<double>(asked); }
};
// An answer is right where the value is the most probable of all tokens.
RecallAccuracy measure_recall(const Transformer& model, u64 seed, i64 pairs, i64 length, i64 sequences);

}  // namespace sparsam
