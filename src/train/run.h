// A whole training run: data, tokenizer, model, steps, evaluations, checkpoints, metrics.jsonl, run.json. Silent: the
// events report.
#pragma once

#include "train/checkpoint.h"
#include "train/options.h"
#include "train/trainer.h"

namespace sparsam {

struct RunInfo {  // known before the first step
  i64 parameters = 0, train_tokens = 0, valid_tokens = 0, vocab = 0;
  i64 first_step = 0, steps = 0, step_tokens = 0;
  double peak_flops = 0, flops_per_token = 0;
  Config config;
};

struct RunEvents {
  std::function<void(std::string_view stage)> on_stage;  // "tokenizing", ...
  std::function<void(std::string_view note)> on_note;
  std::function<void(const RunInfo&)> on_start;
  std::function<void(const StepMetrics&)> on_step;
  std::function<void(i64 step, const Evaluation&)> on_evaluation;
  std::function<void(const fs::path&)> on_checkpoint;
  std::function<bool()> stop;  // asked after each step; true: save and return
};

struct RunResult {
  bool stopped = false;  // before the last step
  i64 step = 0, steps = 0, tokens = 0;
  Task task = Task::language;
  double loss = 0;                                     // of the last step
  double initial_loss = 0;                             // held-out, of the model that training began from; 0: of none
  std::optional<Evaluation> evaluation;                // of the last weights
  double seconds = 0;                                  // of training, in all calls
  double tokens_per_second = 0, fraction_of_peak = 0;  // steps of this call, without evaluations and checkpoints
  i64 parameters = 0, peak_bytes = 0;
  std::optional<fs::path> checkpoint;  // the newest
};

Json to_json(const RunResult& result);

RunResult start_run(const RunOptions& options, const RunEvents& events);
// Goes on from the newest checkpoint in options.out. `options` are those of stored_options(), some perhaps given again.
RunResult resume_run(const RunOptions& options, const RunEvents& events);
// The options of the run in `out`. Error when it holds no checkpoint.
RunOptions stored_options(const fs::path& out);
// Error (usage) that names every option that must agree with the run's and does not.
void refuse_differences(const RunOptions& asked, const RunOptions& stored);

}  // namespace sparsam
