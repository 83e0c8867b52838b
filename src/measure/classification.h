// Labelled texts as samples of a classifier, and how well it does.
#pragma once

#include <string>
#include <vector>

#include "measure/samples.h"
#include "measure/statistics.h"
#include "text/labelled_text.h"
#include "text/tokenizer.h"

namespace sparsam {

struct LabelledTokens {
  std::vector<std::vector<i32>> texts;
  std::vector<i32> labels;  // indices into those of the model
  i64 tokens() const;
};
// Of each text the first `longest` tokens, what the tokenizer puts around a text included. Error naming `where`: a
// label that is none of `labels`; a text without tokens.
LabelledTokens encode_labelled(std::span<const LabelledText> texts, const std::vector<std::string>& labels,
                               const Tokenizer& tokenizer, i64 longest, const std::string& where);
std::vector<i32> encode_for_classifier(std::string_view text, const Tokenizer& tokenizer, i64 longest);
// Text number `text` as a SampleSource gives it.
i64 copy_sample(const LabelledTokens& texts, i64 text, std::span<i32> ids, std::span<i32> targets);

class ConfusionMatrix {
 public:
  explicit ConfusionMatrix(i64 classes = 0);
  void add(i32 label, i32 predicted);
  void add(const ConfusionMatrix& other);
  i64 count() const;
  i64 at(i64 label, i64 predicted) const { return counts_[static_cast<size_t>(label * classes_ + predicted)]; }
  i64 classes() const { return classes_; }
  double accuracy() const;
  // 2 TP / (2 TP + FP + FN); 0 for a class that neither occurs nor is predicted.
  double f1(i64 label) const;
  // Mean of the classes' F1, without those that neither occur nor are predicted.
  double macro_f1() const;

 private:
  i64 sum(i64 label, bool predicted) const;  // of a row, of a column
  i64 classes_;
  std::vector<i64> counts_;
};

// How a classifier does on texts, each of which is a cluster of one.
struct ClassifierScores {
  ConfusionMatrix confusion;
  std::vector<Cluster> right = {}, nats = {};
  void add(const ClassifierScores& other);
};
// batch_tokens: about how many tokens go through the model at once. Error: a loss that is not finite.
ClassifierScores measure_classifier(const Transformer& model, const LabelledTokens& texts, i64 batch_tokens,
                                    const std::function<void(double)>& progress = {});
// Of each text those of all labels; its own label is not read.
std::vector<std::vector<double>> class_probabilities(const Transformer& model, const LabelledTokens& texts,
                                                     i64 batch_tokens);

// The most probable class of each row of logits (n, classes); the first among equals.
std::vector<i32> most_probable(In<float, 2> logits);

}  // namespace sparsam
