// metrics.jsonl: one JSON object a line, appended as the run goes: of a step {"step", "tokens", "loss", "lr",
// "grad_norm", "tokens_per_second", "fraction_of_peak", "seconds"}, of an evaluation {"step", "tokens", "valid_loss",
// "perplexity", "bits_per_byte", "seconds"}. Seconds count from the beginning of the run.
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
