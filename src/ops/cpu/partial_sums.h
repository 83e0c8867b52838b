// Gradients that every row adds to: each thread sums its own copy, and the copies are added in the order of the
// threads.
#pragma once

#include "base/threads.h"
#include "ops/cpu/workspace.h"

namespace sparsam::cpu {

class PartialSums {
 public:
  // Copies of `total`, all zero; none if `total` is empty.
  PartialSums(Sum<float, 1> total, Workspace& workspace) : arena_(workspace.arena), mark_(arena_.mark()) {
    if (!total.empty()) sums_ = arena_.zeros<float>(threads(), total.shape(0));
  }
  ~PartialSums() { arena_.release(mark_); }
  PartialSums(const PartialSums&) = delete;
  PartialSums& operator=(const PartialSums&) = delete;

  float* of(int thread) const { return sums_.empty() ? nullptr : sums_[thread].data(); }
  void add_to(Sum<float, 1> total) const {
    for (i64 t = 0; !sums_.empty() && t < sums_.shape(0); ++t)
      for (i64 c = 0; c < total.shape(0); ++c) total[c] += sums_(t, c);
  }

 private:
  Arena& arena_;
  Arena::Mark mark_;
  View<float, 2> sums_;  // (threads, C)
};

// Rows of `columns` floats that are worth a thread's start.
inline i64 rows_per_task(i64 columns) { return std::max<i64>(1, 4096 / std::max<i64>(columns, 1)); }

}  // namespace sparsam::cpu
