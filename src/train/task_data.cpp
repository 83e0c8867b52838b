#include "train/task_data.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <set>

#include "measure/classification.h"
#include "measure/masking.h"
#include "train/trainer.h"

namespace sparsam {

namespace {

// Streams of random numbers apart from those of the weights and of each other.
constexpr u64 order_of_data = 0x6f72646572, split_of_data = 0x73706c6974, hidden_of_data = 0x68696465;

std::vector<LabelledText> read_labelled(const std::vector<Document>& documents) {
  std::vector<LabelledText> texts;
  for (const Document& document : documents) {
    const auto read = read_labelled_texts(document.text, document.name);
    texts.insert(texts.end(), read.begin(), read.end());
  }
  return texts;
}

// The last of the shuffled texts are held out: files are often sorted by label.
void hold_out_labelled(TaskTexts& texts, double fraction, u64 seed) {
  const size_t count = texts.train.size();
  const std::vector<u32> order = shuffled(static_cast<i64>(count), Random(seed ^ split_of_data));
  const size_t kept = count - static_cast<size_t>(fraction * static_cast<double>(count));
  std::vector<LabelledText> train;
  for (size_t i = 0; i < count; ++i) (i < kept ? train : texts.held_out).push_back(std::move(texts.train[order[i]]));
  texts.train = std::move(train);
}

u64 hash_of(std::span<const LabelledText> texts, const Tokenizer& tokenizer) {
  u64 hash = 0;
  for (const LabelledText& text : texts) hash = hash_text(text.text, hash_text(text.label, hash));
  return hash_text(tokenizer.to_json(), hash);
}

// Which text comes when: each epoch has its own order, a pure function of (seed, epoch).
class EpochOrder {
 public:
  EpochOrder(i64 count, u64 seed) : count_(count), seed_(seed) {}
  i64 operator()(i64 sample) {
    if (sample / count_ != epoch_) {
      epoch_ = sample / count_;
      order_ = shuffled(count_, Random(seed_, static_cast<u64>(epoch_)));
    }
    return order_[static_cast<size_t>(sample % count_)];
  }

 private:
  i64 count_, epoch_ = -1;
  u64 seed_;
  std::vector<u32> order_;
};

TaskData labelled_data(const TaskTexts& texts, const Recipe& recipe, const Tokenizer& tokenizer,
                       const std::vector<std::string>& labels) {
  const auto encoded = [&](std::span<const LabelledText> of, const char* where) {
    return std::make_shared<const LabelledTokens>(encode_labelled(of, labels, tokenizer, recipe.sequence, where));
  };
  const auto train = encoded(texts.train, "training texts"), held_out = encoded(texts.held_out, "held-out texts");
  TaskData data{.epoch = static_cast<i64>(train->texts.size()),
                .train_tokens = train->tokens(),
                .held_out_tokens = held_out->tokens(),
                .train_hash = hash_of(texts.train, tokenizer),
                .held_out_hash = texts.held_out.empty() ? 0 : hash_of(texts.held_out, tokenizer)};
  const auto order = std::make_shared<EpochOrder>(data.epoch, static_cast<u64>(recipe.seed) ^ order_of_data);
  data.samples = [train, order](i64 sample, std::span<i32> ids, std::span<i32> targets) {
    return copy_sample(*train, (*order)(sample), ids, targets);
  };
  if (texts.held_out.empty()) return data;
  data.held_out = [held_out](i64 tokens) {
    // Always the same ones, whatever the order of the file.
    std::vector<u32> some = shuffled(static_cast<i64>(held_out->texts.size()), Random(split_of_data));
    size_t count = 0;
    for (i64 read = 0; count < some.size() && (tokens == 0 || read < tokens); ++count)
      read += static_cast<i64>(held_out->texts[some[count]].size());
    some.resize(count);
    return SampleSet{[held_out, some](i64 sample, std::span<i32> ids, std::span<i32> targets) {
                       return copy_sample(*held_out, some[static_cast<size_t>(sample)], ids, targets);
                     },
                     static_cast<i64>(count)};
  };
  return data;
}

TaskData window_data(const Split& documents, const Recipe& recipe, const Tokenizer& tokenizer,
                     const fs::path& directory) {
  const i64 T = recipe.sequence;
  const u64 seed = static_cast<u64>(recipe.seed);
  const auto train = std::make_shared<const TokenFile>(tokenize(documents.train, tokenizer, directory, "train"));
  std::shared_ptr<const TokenFile> held_out;
  if (!documents.held_out.empty())
    held_out = std::make_shared<const TokenFile>(tokenize(documents.held_out, tokenizer, directory, "valid"));
  if (held_out && held_out->size() < 2) held_out.reset();  // nothing to predict
  const auto sampler = std::make_shared<Sampler>(*train, T, seed ^ order_of_data);
  TaskData data{
      .samples = samples_of([train, sampler](i64 sample, std::span<i32> window) { sampler->copy(sample, window); }, T),
      .epoch = sampler->windows(),
      .train_tokens = train->size(),
      .held_out_tokens = held_out ? held_out->size() : 0,
      .train_hash = train->hash(),
      .held_out_hash = held_out ? held_out->hash() : 0};
  if (recipe.task == Task::language) data.token_bytes = token_bytes(tokenizer);
  std::optional<Masking> masking;
  if (recipe.task == Task::masked) masking = masking_of(tokenizer, recipe.mask, "train");
  if (masking) data.samples = hidden_tokens(data.samples, *masking, seed ^ hidden_of_data);
  if (!held_out) return data;
  data.held_out = [held_out, masking, T](i64 tokens) {
    SampleSet samples = next_tokens(*held_out, T, tokens);
    samples.read = [held_out, read = samples.read](i64 sample, std::span<i32> ids, std::span<i32> targets) {
      return read(sample, ids, targets);
    };
    if (masking) samples.read = hidden_tokens(samples.read, *masking, 0);  // the same for every run
    return samples;
  };
  return data;
}

}  // namespace

std::vector<std::string_view> TaskTexts::training_texts() const {
  std::vector<std::string_view> texts;
  for (const Document& document : documents.train) texts.push_back(document.text);
  for (const LabelledText& text : train) texts.push_back(text.text);
  return texts;
}

std::vector<std::string> TaskTexts::labels() const {
  std::set<std::string> labels;
  for (const LabelledText& text : train) labels.insert(text.label);
  return {labels.begin(), labels.end()};
}

TaskTexts read_task_texts(const Sources& sources, const Recipe& recipe,
                          const std::function<void(std::string_view stage)>& stage) {
  std::vector<Document> documents;
  if (sources.data.empty()) {
    if (stage) stage("writing the embedded corpus");
    documents.push_back(corpus_document(sources.corpus_bytes, static_cast<u64>(recipe.seed)));
  } else {
    documents = open_documents(sources.data);
  }
  TaskTexts texts;
  if (recipe.task == Task::classify) {
    texts.train = read_labelled(documents);
    if (sources.valid.empty())
      hold_out_labelled(texts, sources.valid_fraction, static_cast<u64>(recipe.seed));
    else
      texts.held_out = read_labelled(open_documents(sources.valid));
    if (texts.train.empty()) fail("train: no labelled texts, expected some in --data");
  } else if (sources.valid.empty()) {
    texts.documents = hold_out(std::move(documents), sources.valid_fraction);
  } else {
    texts.documents = {std::move(documents), open_documents(sources.valid)};
  }
  return texts;
}

TaskData make_task_data(const TaskTexts& texts, const Recipe& recipe, const Tokenizer& tokenizer,
                        const std::vector<std::string>& labels, const fs::path& directory) {
  return recipe.task == Task::classify ? labelled_data(texts, recipe, tokenizer, labels)
                                       : window_data(texts.documents, recipe, tokenizer, directory);
}

}  // namespace sparsam
