// metrics.jsonl: one JSON object a line, appended as the run goes: of a step {"step", "tokens", "loss", "lr",
// "grad_norm", "l1", "penalty", "tokens_per_second", "fraction_of_peak", "seconds"}, of an evaluation {"step",
// "tokens", "valid_loss", "perplexity", "bits_per_byte", "seconds"}, of a classifier with "accuracy" and
// "macro_f1" in place of perplexity and bits per byte; of both {"activation_ratio", "dead_neurons",
// "layers"}: means over the layers and each layer's (train/activity.h). The loss is the language model's: the penalty,
// which "l1" weighs, is not in it. Seconds count from the beginning of the run.
#pragma once

#include <fstream>

#include "base/files.h"
#include "formats/json.h"

namespace sparsam {

class MetricsFile {
 public:
  // Drops what an earlier call wrote of steps after `last_step`, and whatever is no line of metrics.
  MetricsFile(const fs::path& path, i64 last_step);
  void write(const Json& metrics);  // Error when the disk is full

 private:
  fs::path path_;
  std::ofstream file_;
};

}  // namespace sparsam
