#include "measure/classification.h"

#include <algorithm>
#include <cmath>

namespace sparsam {

i64 LabelledTokens::tokens() const {
  i64 total = 0;
  for (const auto& text : texts) total += static_cast<i64>(text.size());
  return total;
}

std::vector<i32> encode_for_classifier(std::string_view text, const Tokenizer& tokenizer, i64 longest) {
  std::vector<i32> ids = tokenizer.prefix();
  tokenizer.encode(text, ids, SpecialTokens::as_text);
  const size_t after = tokenizer.suffix().size(), most = static_cast<size_t>(longest);
  ids.resize(std::min(ids.size(), most - std::min(after, most)));
  ids.insert(ids.end(), tokenizer.suffix().begin(), tokenizer.suffix().end());
  ids.resize(std::min(ids.size(), most));
  return ids;
}

LabelledTokens encode_labelled(std::span<const LabelledText> texts, const std::vector<std::string>& labels,
                               const Tokenizer& tokenizer, i64 longest, const std::string& where) {
  LabelledTokens result;
  for (const LabelledText& text : texts) {
    const auto label = std::find(labels.begin(), labels.end(), text.label);
    if (label == labels.end()) fail_unknown("label", text.label, labels, where);
    result.labels.push_back(static_cast<i32>(label - labels.begin()));
    result.texts.push_back(encode_for_classifier(text.text, tokenizer, longest));
    if (result.texts.back().empty()) fail("{}: '{}' has no tokens", where, printable(text.text));
  }
  return result;
}

i64 copy_sample(const LabelledTokens& texts, i64 text, std::span<i32> ids, std::span<i32> targets) {
  const std::vector<i32>& from = texts.texts[static_cast<size_t>(text)];
  std::copy(from.begin(), from.end(), ids.begin());
  targets[0] = texts.labels[static_cast<size_t>(text)];
  return static_cast<i64>(from.size());
}

ConfusionMatrix::ConfusionMatrix(i64 classes) : classes_(classes), counts_(static_cast<size_t>(classes * classes)) {}

void ConfusionMatrix::add(i32 label, i32 predicted) { ++counts_[static_cast<size_t>(label * classes_ + predicted)]; }

void ConfusionMatrix::add(const ConfusionMatrix& other) {
  for (size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
}

i64 ConfusionMatrix::sum(i64 label, bool predicted) const {
  i64 total = 0;
  for (i64 i = 0; i < classes_; ++i) total += predicted ? at(i, label) : at(label, i);
  return total;
}

i64 ConfusionMatrix::count() const {
  i64 total = 0;
  for (const i64 n : counts_) total += n;
  return total;
}

double ConfusionMatrix::accuracy() const {
  i64 right = 0;
  for (i64 i = 0; i < classes_; ++i) right += at(i, i);
  return static_cast<double>(right) / static_cast<double>(std::max<i64>(count(), 1));
}

double ConfusionMatrix::f1(i64 label) const {
  const i64 all = sum(label, false) + sum(label, true);  // TP + FN and TP + FP
  return all ? 2 * static_cast<double>(at(label, label)) / static_cast<double>(all) : 0;
}

double ConfusionMatrix::macro_f1() const {
  double total = 0;
  i64 seen = 0;
  for (i64 i = 0; i < classes_; ++i) total += f1(i), seen += sum(i, false) + sum(i, true) > 0;
  return total / static_cast<double>(std::max<i64>(seen, 1));
}

void ClassifierScores::add(const ClassifierScores& other) {
  confusion.add(other.confusion);
  right.insert(right.end(), other.right.begin(), other.right.end());
  nats.insert(nats.end(), other.nats.begin(), other.nats.end());
}

namespace {

void for_each_text_batch(const Transformer& model, const LabelledTokens& texts, i64 batch_tokens,
                         const ConsumeBatch& consume) {
  i64 longest = 1;
  for (const auto& text : texts.texts) longest = std::max(longest, static_cast<i64>(text.size()));
  const SampleSet samples{
      [&](i64 sample, std::span<i32> ids, std::span<i32> targets) { return copy_sample(texts, sample, ids, targets); },
      static_cast<i64>(texts.texts.size())};
  Arena arena;
  for_each_batch(model, samples, std::max<i64>(1, batch_tokens / longest), longest, consume, arena);
}

}  // namespace

ClassifierScores measure_classifier(const Transformer& model, const LabelledTokens& texts, i64 batch_tokens,
                                    const std::function<void(double)>& progress) {
  ClassifierScores scores{ConfusionMatrix(static_cast<i64>(model.model().config.labels.size()))};
  for_each_text_batch(
      model, texts, batch_tokens,
      [&](i64 first, const Batch& batch, In<float, 2> rows, In<float, 1> losses, Arena& arena) {
        const std::vector<i32> predicted = most_probable(model.logits(rows, arena));
        for (size_t i = 0; i < predicted.size(); ++i) {
          const double nats = static_cast<double>(losses[static_cast<i64>(i)]);
          if (!std::isfinite(nats))
            fail("the loss of text {} is {}, expected a finite number", first + static_cast<i64>(i) + 1, nats);
          scores.confusion.add(batch.targets[i], predicted[i]);
          scores.right.push_back({static_cast<double>(predicted[i] == batch.targets[i]), 1});
          scores.nats.push_back({nats, 1});
        }
        if (progress) progress(static_cast<double>(first + batch.sequences) / static_cast<double>(texts.texts.size()));
      });
  return scores;
}

std::vector<std::vector<double>> class_probabilities(const Transformer& model, const LabelledTokens& texts,
                                                     i64 batch_tokens) {
  std::vector<std::vector<double>> all;
  for_each_text_batch(model, texts, batch_tokens,
                      [&](i64, const Batch&, In<float, 2> rows, In<float, 1>, Arena& arena) {
                        const Out<float, 2> logits = model.logits(rows, arena);
                        for (i64 n = 0; n < logits.shape(0); ++n) {
                          std::vector<double>& p = all.emplace_back();
                          const auto row = logits[n].span();
                          const float largest = *std::max_element(row.begin(), row.end());
                          double sum = 0;
                          for (const float z : row) sum += p.emplace_back(std::exp(static_cast<double>(z - largest)));
                          for (double& value : p) value /= sum;
                        }
                      });
  return all;
}

std::vector<i32> most_probable(In<float, 2> logits) {
  std::vector<i32> best;
  for (i64 n = 0; n < logits.shape(0); ++n) {
    const auto row = logits[n].span();
    best.push_back(static_cast<i32>(std::max_element(row.begin(), row.end()) - row.begin()));
  }
  return best;
}

}  // namespace sparsam
