// Scores of sublayers: made by `score`, used by `drop`.
#pragma once

#include "cli/common.h"
#include "measure/finite.h"
#include "measure/redundancy.h"

namespace sparsam {

struct ScoringFlags {
  std::vector<std::string> data;  // empty: the embedded corpus
  RedundancyOptions options;
};
void add_scoring_flags(CLI::App* verb, ScoringFlags& flags);

Redundancy score_model(const OpenModel& open, const std::string& backend, const ScoringFlags& flags,
                       const Common& common);

// {"sublayers": [{"layer": 0, "kind": "attention", "score": 0.1}, ...], "tokens": ..., "context": ...}
Json scores_json(const Redundancy& redundancy);
std::vector<SublayerScore> scores_from_json(const Json& json, const std::string& where);

}  // namespace sparsam
