// The laboratory of the sparsing law (Luo et al. 2024, arXiv 2411.02335, section 4): models of several activations and
// shapes trained alike, and at checkpoints how few neurons of their MLPs a text needs (PPL-p %). Silent: the events
// report.
#pragma once

#include "measure/law_points.h"
#include "train/run.h"

namespace sparsam {

// SPEC, a JSON object. Unknown fields are refused by name.
//   data, calibration, held_out
//       texts: trained on (several), thresholds fitted to, judged by; paths as a shell has them
//   architecture
//       fields of Architecture that all models share; head-dim gives the number of heads, hidden is 2.5 dim unless
//       given
//   models
//       fields of Architecture over these, one object a model: {"dim": 64, "layers": 2}
//   activations
//       each model is trained with each: ["silu", "relu"]
//   checkpoints
//       tokens trained at which a model is measured, ascending; the last one ends its training
//   recipe
//       fields of Recipe; the rate stays at its peak after the warm-up, since the law is about the stable stage of
//       warm-up-stable-decay
//   percent, calibration_tokens, held_out_tokens
//       1, 8192, 16384
struct LadderSpec {
  std::vector<std::string> data;
  std::string calibration, held_out;
  std::vector<Architecture> models;  // shapes times activations, those of a shape side by side
  Recipe recipe;
  std::vector<i64> checkpoints;
  double percent = 1;
  i64 calibration_tokens = 8192, held_out_tokens = 16384;
};
LadderSpec ladder_from_json(const Json& json, const std::string& where);
std::string ladder_model_name(const Architecture& model);  // "relu-64x2"

struct LadderEvents {
  std::function<void(std::string_view note)> on_note;
  std::function<void(double fraction, std::string_view detail)> on_progress;
  std::function<void(const LawPoint&)> on_point;
  std::function<bool()> stop;  // true: save and return
};

// Trains and measures what DIR/points.jsonl does not hold yet; each point is there whole or not at all. Models lie in
// DIR/<name>/. Returns whether all is done. Errors: a DIR made with another SPEC (models and activations may be added);
// calibration and held-out text alike; those of a training run.
bool run_ladder(const Json& json, const std::string& where, const fs::path& out, const LadderEvents& events);

}  // namespace sparsam
