// sparsam eval of models that do not predict the next token.
#pragma once

#include "cli/common.h"

namespace sparsam {

struct EncoderEval {
  std::vector<std::string> data;
  std::string backend;
  i64 context = 0;  // tokens of a sequence; 0: the model's
  i64 batch_tokens = 4096;
  double mask = 0.15;  // share of tokens that are hidden
};
// A classifier's accuracy, macro F1 and cross-entropy on labelled texts; an encoder's loss on hidden tokens.
Exit eval_encoder(const OpenModel& open, const EncoderEval& flags, const Common& common);

}  // namespace sparsam
