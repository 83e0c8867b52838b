// The arithmetic of training: forward, loss, backward, clipping, AdamW. It reads no files and prints nothing.
#pragma once

#include <functional>
#include <optional>

#include "measure/classification.h"
#include "measure/samples.h"
#include "text/token_file.h"
#include "train/activity.h"
#include "train/freeze.h"
#include "train/options.h"
#include "train/teacher.h"

namespace sparsam {

// Writes the window of T + 1 tokens that is sample number 0, 1, 2, ... of the run: T that each predict the next.
using WindowSource = std::function<void(i64 sample, std::span<i32> window)>;
SampleSource samples_of(WindowSource windows, i64 length);

struct StepMetrics {
  i64 step = 0, tokens = 0;  // both of the whole run so far
  double loss = 0;           // mean over what the step predicts (tokens, labels) before the update, nats
  double learning_rate = 0, gradient_norm = 0;
  double l1 = 0;                        // weight of the penalty, which is not in the loss above
  std::vector<LayerActivity> activity;  // of the step's tokens
  double seconds = 0;                   // of this step
  i64 step_tokens = 0;
};

struct Evaluation {
  i64 tokens = 0, bytes = 0;                      // predicted; of a classifier texts
  double loss = 0;                                // mean, nats a token, of a classifier a text
  std::vector<LayerActivity> activity;            // of the same sequences
  std::optional<ConfusionMatrix> confusion = {};  // of a classifier
  double perplexity() const;
  double bits_per_byte() const;  // of the text that the predicted tokens stand for
};

class Trainer {
 public:
  // Trains `weights` in place. `backend` must outlive this. recipe.sequence is the length T of each window.
  Trainer(const Config& config, std::shared_ptr<FlatParams> weights, const Recipe& recipe, Backend& backend);

  // One optimizer step over accumulate x batch samples, numbered on from those of the steps before; their predictions
  // weigh the same. l1 weighs the penalty of train/l1_schedule.h. Error when loss or gradient norm is not finite;
  // weights and moments are then those after the step before.
  StepMetrics step(const SampleSource& samples, double learning_rate, double l1 = 0);
  StepMetrics step(const WindowSource& windows, double learning_rate, double l1 = 0);
  // token_bytes: of the text that each token stands for; empty: predictions are no running text.
  Evaluation evaluate(const SampleSet& samples, std::span<const i32> token_bytes);
  // Loss on the first `most` tokens (0: all) in consecutive windows of T; the first token of each window is context
  // only for those after it.
  Evaluation evaluate(const TokenFile& tokens, i64 most, std::span<const i32> token_bytes);

  const Model& model() const { return model_; }
  FlatParams& first_moments() { return m_; }
  FlatParams& second_moments() { return v_; }
  i64 steps_done() const { return step_; }
  i64 updates() const { return earlier_updates_ + step_; }  // that made the moments; AdamW's t is one more
  // After weights and moments were read, which come from so many updates.
  void go_on_from(i64 step, i64 updates) { step_ = step, earlier_updates_ = updates - step; }
  // From now on the steps learn from `teacher` too, which must outlive this.
  void learn_from(const Teacher& teacher) { teacher_ = &teacher; }
  // Tokens that came with growth under a mask below 1 get this one (ParameterTokens::mask).
  void mask_new_tokens(float mask);
  i64 step_samples() const { return recipe_.batch * recipe_.accumulate; }
  i64 step_tokens() const { return step_samples() * recipe_.sequence; }  // at most
  i64 memory_bytes() const;  // weights, gradients, moments and the peak of the activations

 private:
  // Adds the gradients of scale sum of the losses + l1 sum of the penalties; returns the sum of the losses.
  double micro_batch(const Batch& batch, double scale, double l1);
  double gradient_norm();
  void clear_frozen_gradients();
  void update(double learning_rate, double gradient_scale);

  Recipe recipe_;
  Backend& backend_;
  std::shared_ptr<FlatParams> weights_;
  Params<ParameterSpec> specs_;
  Params<TrainedPart> trained_;
  Model model_;
  Transformer transformer_;
  FlatParams gradients_, m_, v_;
  ActivityCounter activity_;
  const Teacher* teacher_ = nullptr;
  Arena arena_;
  i64 step_ = 0, earlier_updates_ = 0;
};

}  // namespace sparsam
