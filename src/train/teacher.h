// Distillation: a second model, which stays as it is, whose predictions for the same tokens are learnt beside the text
// (ops/distillation.h).
#pragma once

#include "model/transformer.h"
#include "text/tokenizer.h"
#include "train/options.h"

namespace sparsam {

// Of all weights and the description: what a resumed run must find again.
u64 hash_of(const Model& model);

class Teacher {
 public:
  // `backend` must outlive this. recipe has the loss's weight and temperature.
  Teacher(Model model, const Recipe& recipe, Backend& backend);
  // What `plain` does, whose members must be of a language model on `tokens`, with the loss of distillation.
  void run(const Tokens& tokens, const LinearCrossEntropyBackward& plain, Arena& arena) const;
  const Model& model() const { return model_; }

 private:
  Model model_;
  Backend& backend_;
  float weight_, temperature_;
  Transformer transformer_;
};

// Error unless the teacher in `directory` predicts the same tokens as a model of `config` with this tokenizer.
void require_same_vocabulary(const Model& teacher, const std::string& directory, const Config& config,
                             const Tokenizer& tokenizer);

}  // namespace sparsam
