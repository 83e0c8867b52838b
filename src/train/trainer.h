// The arithmetic of training: forward, loss, backward, clipping, AdamW. It reads no files and prints nothing.
#pragma once

#include <functional>
#include <optional>

#include "model/transformer.h"
#include "text/token_file.h"
#include "train/activity.h"
#include "train/options.h"

namespace sparsam {

// Writes the window of T + 1 tokens that is sample number 0, 1, 2, ... of the run.
using WindowSource = std::function<void(i64 sample, std::span<i32> window)>;

struct StepMetrics {
  i64 step = 0, tokens = 0;  // both of the whole run so far
  double loss = 0;           // mean over the step's tokens before the update, nats
  double learning_rate = 0, gradient_norm = 0;
  double l1 = 0;                        // weight of the penalty, which is not in the loss above
  std::vector<LayerActivity> activity;  // of the step's tokens
  double seconds = 0;                   // of this step
  i64 step_tokens = 0;
};

struct Evaluation {
  i64 tokens = 0, bytes = 0;
  double loss = 0;                      // mean, nats a token
  std::vector<LayerActivity> activity;  // of the same tokens
  double perplexity() const;
  double bits_per_byte() const;  // of the text that the predicted tokens stand for
};

class Trainer {
 public:
  // Trains `weights` in place. `backend` must outlive this. recipe.sequence is the length T of each window.
  Trainer(const Config& config, std::shared_ptr<FlatParams> weights, const Recipe& recipe, Backend& backend);

  // One optimizer step over accumulate x batch windows, numbered on from those of the steps before; l1 weighs the
  // penalty of train/l1_schedule.h. Error when loss or gradient norm is not finite; weights and moments are then those
  // after the step before.
  StepMetrics step(const WindowSource& windows, double learning_rate, double l1 = 0);
  // Loss on the first `most` tokens (0: all) in consecutive windows of T; the first token of each window is context
  // only for those after it.
  Evaluation evaluate(const TokenFile& tokens, i64 most, std::span<const i32> token_bytes);

  const Model& model() const { return model_; }
  FlatParams& first_moments() { return m_; }
  FlatParams& second_moments() { return v_; }
  i64 steps_done() const { return step_; }
  void go_on_from(i64 step) { step_ = step; }  // after weights and moments were read
  i64 step_tokens() const { return recipe_.batch * recipe_.accumulate * recipe_.sequence; }
  i64 memory_bytes() const;  // weights, gradients, moments and the peak of the activations

 private:
  double micro_batch(const WindowSource& windows, i64 first_sample, double l1);  // adds gradients; sum of the losses
  double gradient_norm();
  void update(double learning_rate, double gradient_scale);

  Recipe recipe_;
  Backend& backend_;
  std::shared_ptr<FlatParams> weights_;
  Params<ParameterSpec> specs_;
  Model model_;
  Transformer transformer_;
  FlatParams gradients_, m_, v_;
  ActivityCounter activity_;
  Arena arena_;
  i64 step_ = 0;
};

}  // namespace sparsam
