// The data of a run by its task: texts from files, and the samples made of them.
#pragma once

#include "measure/samples.h"
#include "text/labelled_text.h"
#include "train/data.h"
#include "train/options.h"

namespace sparsam {

struct TaskTexts {
  Split documents;                            // language, masked
  std::vector<LabelledText> train, held_out;  // classify

  std::vector<std::string_view> training_texts() const;  // to learn a tokenizer from
  std::vector<std::string> labels() const;               // of the training texts, sorted
};
// Of the files, or of the embedded corpus. Without files of held-out texts, they are the end of the documents, and a
// random part of labelled texts. `stage` is told what takes time.
TaskTexts read_task_texts(const Sources& sources, const Recipe& recipe,
                          const std::function<void(std::string_view stage)>& stage);

struct TaskData {
  SampleSource samples = {};                           // sample 0, 1, 2, ... of the run
  i64 epoch = 0;                                       // samples in a pass over the data
  std::function<SampleSet(i64 tokens)> held_out = {};  // about so many tokens of it; empty: nothing is held out
  i64 train_tokens = 0, held_out_tokens = 0;           // of the data
  u64 train_hash = 0, held_out_hash = 0;               // of texts and tokenizer
  std::vector<i32> token_bytes = {};                   // of each token (language)
};
// recipe.sequence must be resolved. Tokenised documents are kept in `directory`. `labels` are the model's.
TaskData make_task_data(const TaskTexts& texts, const Recipe& recipe, const Tokenizer& tokenizer,
                        const std::vector<std::string>& labels, const fs::path& directory);

}  // namespace sparsam
