// The probe of what a mixer can recall: a model of a given shape learns associative recall from sequences that never
// come again, and is asked for as many pairs as it has seen, and fewer.
#pragma once

#include <functional>

#include "measure/recall.h"
#include "train/trainer.h"

namespace sparsam {

struct RecallProbe {
  Architecture architecture = {};  // its vocabulary is the task's
  Recipe recipe = {};              // steps or tokens; sequence 0: as short as the most pairs allow
  i64 pairs = 64;                  // at most: training mixes 4, 8, ... and these
  i64 sequences = 256;             // of each number of pairs, to judge by
  // Training begins with the fewest pairs in the shortest sequences; in equal parts of the steps more come.
  bool curriculum = false;
};
struct RecallResult {
  i64 parameters = 0, steps = 0, tokens = 0, length = 0;
  double loss = 0;  // of the last step
  std::vector<RecallAccuracy> accuracies = {};
  double seconds = 0;
};
// Errors (usage): values that do not fit together, by flag.
RecallResult probe_recall(const RecallProbe& probe, Backend& backend,
                          const std::function<void(const StepMetrics&, i64 steps)>& progress = {});

}  // namespace sparsam
