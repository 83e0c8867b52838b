// What a training run is told, in four lists. Each is listed once; flags, help, the state of a checkpoint and the
// manifest are made from the lists.
#pragma once

#include "base/files.h"
#include "model/config.h"
#include "ops/compute.h"
#include "train/schedule.h"

namespace sparsam {

template <>
std::vector<std::string> enum_names<Compute>();

enum class Task : u8 {
  language,  // each token from those before it
  masked,    // tokens hidden from an encoder, from all others (BERT: Devlin et al. 2019, arXiv 1810.04805)
  classify,  // the label of a text
};
template <>
std::vector<std::string> enum_names<Task>();
enum class Freeze : u8 { none, old };
enum class OptimizerStart : u8 { reset, keep };
template <>
std::vector<std::string> enum_names<Freeze>();
template <>
std::vector<std::string> enum_names<OptimizerStart>();

// What decides the bits of the result, beside model and data. A resumed run must agree in all of it.
struct Recipe {
  Task task = Task::language;
  double mask = 0.15;
  i64 tokens = 0, steps = 0;  // the budget: one of the four
  double minutes = 0, epochs = 0;
  i64 batch = 32, accumulate = 1, sequence = 0;
  ScheduleKind schedule = ScheduleKind::cosine;
  double lr = 1e-3, final_lr = 0.1;
  i64 warmup = -1, decay = -1;
  double weight_decay = 0.1, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, clip = 1;
  i64 mup_base = 0;
  std::string l1 = "0";
  OptimizerStart optimizer = OptimizerStart::reset;
  Freeze freeze = Freeze::none;
  i64 ramp = -1;
  double distill_weight = 0.5, distill_temperature = 1;
  Compute precision = Compute::bf16;
  i64 seed = 0;

  static void fields(auto&& f, auto&... r) {
    f("task", "what is learnt: language (the next token), masked (an encoder: hidden tokens), classify (texts)",
      r.task...);
    f("mask", "masked: share of tokens that are predicted", r.mask...);
    f("tokens", "budget in tokens", r.tokens...);
    f("steps", "budget in optimizer steps", r.steps...);
    f("epochs", "budget in passes over the data", r.epochs...);
    f("minutes", "budget in minutes: the speed is measured first and fixes the number of steps", r.minutes...);
    f("batch", "sequences that are computed at once, B (0: of about 4096 tokens together)", r.batch...);
    f("accumulate", "batches whose gradients are summed for one step", r.accumulate...);
    f("sequence", "tokens of a training sequence, T (0: the context)", r.sequence...);
    f("schedule", "learning rate over the run", r.schedule...);
    f("lr", "peak learning rate", r.lr...);
    f("final-lr", "learning rate of the last step as a fraction of the peak", r.final_lr...);
    f("warmup", "steps of the linear warm-up (-1: a twentieth of the run, 1000 at most)", r.warmup...);
    f("wsd-decay", "steps of wsd's decay (-1: a fifth of the run)", r.decay...);
    f("weight-decay", "AdamW's decoupled weight decay, of matrices only", r.weight_decay...);
    f("beta1", "AdamW's average of gradients", r.beta1...);
    f("beta2", "AdamW's average of squared gradients", r.beta2...);
    f("eps", "AdamW's epsilon", r.eps...);
    f("clip", "largest norm of the gradient (0: any)", r.clip...);
    f("mup-base", "width for which --lr is given: models of other widths are scaled to learn alike (muP; 0: not)",
      r.mup_base...);
    f("l1",
      "weight of the L1 penalty on the MLPs' hidden activations: WEIGHT, or stages WEIGHT@STEP,... (or @PERCENT%) with "
      "a sine ramp from one to the next",
      r.l1...);
    f("optimizer", "moments of AdamW: from zero, or kept with those of --from (grow --optimizer keep, a checkpoint)",
      r.optimizer...);
    f("freeze", "with old, only the parameter tokens that came with growth are trained, beside those of before",
      r.freeze...);
    f("ramp", "steps in which masked tokens (grow --new ramp) come in (-1: a tenth of the run)", r.ramp...);
    f("distill-weight", "with --teacher, weight of the divergence from it; the cross-entropy has the rest",
      r.distill_weight...);
    f("distill-temperature", "with --teacher, what both models' logits are divided by for the divergence",
      r.distill_temperature...);
    f("precision", "factors of matrix products", r.precision...);
    f("seed", "of the weights and of the order of the data", r.seed...);
  }
};

// The recipe's learning rates over a run of so many steps.
Schedule schedule_of(const Recipe& recipe, i64 steps);

// Where model and data come from. Paths may change between a run and its resumption; their contents may not.
struct Sources {
  std::string preset, from, tokenizer;   // from: a model directory to go on from
  std::string teacher;                   // a model directory whose predictions are learnt too
  std::vector<std::string> data, valid;  // none: the embedded corpus; the end of the data
  double valid_fraction = 0.05;
  i64 corpus_bytes = 20'000'000;

  static void fields(auto&& f, auto&... s) {
    f("preset", "shape of a new model", s.preset...);
    f("from", "train the weights of this model directory further, with its tokenizer", s.from...);
    f("teacher", "distillation: learn the predictions of this model on the same text too", s.teacher...);
    f("tokenizer", "tokenizer.json or its directory (none: byte pairs are learnt from the data)", s.tokenizer...);
    f("data",
      "text files, each a document (none: the embedded corpus); classify: lines LABEL<TAB>TEXT, or .jsonl with "
      "\"text\" and \"label\"",
      s.data...);
    f("valid", "held-out text files (none: the end of the data)", s.valid...);
    f("valid-fraction", "held-out part of the data", s.valid_fraction...);
    f("corpus-bytes", "size of the embedded corpus", s.corpus_bytes...);
  }
};

// What changes neither weights nor losses.
struct Upkeep {
  i64 eval_every = 0, eval_tokens = 65'536, save_every = 500, keep = 2, log_every = 1, stop_after = 0;

  static void fields(auto&& f, auto&... u) {
    f("eval-every", "steps between held-out evaluations (0: ten in a run, or fewer that take a twentieth of it)",
      u.eval_every...);
    f("eval-tokens", "held-out tokens of an evaluation (0: all)", u.eval_tokens...);
    f("save-every", "steps between checkpoints", u.save_every...);
    f("keep", "checkpoints that are kept", u.keep...);
    f("log-every", "steps between lines of metrics.jsonl", u.log_every...);
    f("stop-after", "stop with a checkpoint after this many steps of this call (0: never)", u.stop_after...);
  }
};

struct RunOptions {
  Sources sources;
  Architecture architecture;
  Recipe recipe;
  Upkeep upkeep;
  std::string activation = {};  // of the MLPs of sources.from from now on, as in LoadOptions; empty: unchanged
  fs::path out;
  bool overwrite = false;     // an earlier run in `out` is deleted
  fs::path token_files = {};  // where tokenised texts are kept; empty: `out`
  bool measure_peak = true;   // of the machine's matrix products, for the fraction of it that is reached

  static RunOptions of_preset(std::string_view name);  // Error (usage) on an unknown name
  static RunOptions of_model(std::string_view directory);
};

// Error (usage) that names the flag, what it is and what it may be.
void validate(const RunOptions& options);

}  // namespace sparsam
