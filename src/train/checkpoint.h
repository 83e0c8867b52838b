// Checkpoints of a run: OUT/checkpoint-000500/ is a Hugging Face model directory (config.json, model.safetensors,
// tokenizer.json) with the state of the training beside it (training/optimizer.safetensors: the moments m.<name> and
// v.<name> of every parameter; training/state.json). A checkpoint is there whole or not at all.
#pragma once

#include <optional>

#include "text/tokenizer.h"
#include "train/trainer.h"

namespace sparsam {

// What state.json holds.
struct RunState {
  i64 step = 0, tokens = 0;
  i64 steps = 0;  // of the whole run, resolved from the budget
  Sources sources;
  Architecture architecture;
  Recipe recipe;
  std::string activation;             // RunOptions::activation
  u64 data_hash = 0, valid_hash = 0;  // of the token files
  u64 teacher_hash = 0;               // of --teacher; 0: none
  int threads = 0;
  double seconds = 0;       // of training so far
  double loss = 0;          // of the step
  double initial_loss = 0;  // held-out, before the first step of training from a model; 0: not evaluated
  double best_loss = 0;     // held-out; 0: not evaluated yet
  i64 best_step = 0;
  i64 evaluated_step = 0;  // the last one whose weights were evaluated
};

// Moments of AdamW, each shaped as the model is (f32), and from how many updates they are, which their correction for
// having begun at zero asks for.
struct OptimizerState {
  Model first, second;
  i64 updates = 0;
};

// The checkpoint with the highest step; nothing when there is none.
std::optional<fs::path> newest_checkpoint(const fs::path& out);
std::string checkpoint_name(i64 step);

// Writes OUT/checkpoint-<step>, lets the model files in OUT itself be those, and removes all but the newest `keep`.
// Returns the checkpoint's path. Errors: the disk; what was there before is untouched.
fs::path save_checkpoint(const fs::path& out, Trainer& trainer, const Tokenizer& tokenizer, const RunState& state,
                         i64 keep);

RunState read_state(const fs::path& checkpoint);
void read_weights(const Model& model, const FlatParams& weights);
// Moments and their number of updates become the trainer's, which goes on after `step`.
void take_up(const OptimizerState& state, Trainer& trainer, i64 step);

// Where the state of a model's optimizer is: in the directory `model`, or in the newest checkpoint of the run there.
// Error when it is in neither.
fs::path directory_with_optimizer(const fs::path& model);
// training/optimizer.safetensors in `directory`, mapped. Errors name file and tensor.
OptimizerState load_optimizer(const fs::path& directory, const Config& config);
void save_optimizer(const OptimizerState& state, const fs::path& directory);  // which is there

// Removes checkpoints and what interrupted writes left; for a run that overwrites.
void remove_checkpoints(const fs::path& out);
void remove_leftovers(const fs::path& out);

}  // namespace sparsam
