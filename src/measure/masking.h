// Masked-token prediction: tokens are hidden from an encoder, which predicts them from all others (BERT: Devlin et al.
// 2019, arXiv 1810.04805, section 3.1). Of the tokens that are chosen, 80 % become the mask token, 10 % any token, and
// 10 % stay; the loss is of all chosen ones.
#pragma once

#include "base/random.h"
#include "measure/samples.h"
#include "measure/statistics.h"
#include "text/tokenizer.h"

namespace sparsam {

struct Masking {
  i32 mask = 0;                // the token that stands for a hidden one
  std::vector<bool> hideable;  // (V)  all but those that begin, end and mask
  double share = 0.15;         // of tokens that are chosen, each on its own
};
// Error naming `where`: the tokenizer has no mask token.
Masking masking_of(const Tokenizer& tokenizer, double share, const std::string& where);

// Hides tokens in place; targets become what stood there, or -1.
void hide_tokens(const Masking& masking, Random random, std::span<i32> ids, std::span<i32> targets);
// The same sequences with tokens hidden, of which the sources' targets are not read. Which ones is a pure function of
// seed and number.
SampleSource hidden_tokens(SampleSource sequences, Masking masking, u64 seed);

// Losses of a text's hidden tokens in windows of `context` side by side, one cluster for each that hides any. Error: a
// loss that is not finite.
std::vector<Cluster> measure_masked(const Transformer& model, std::span<const i32> tokens, const Masking& masking,
                                    u64 seed, i64 context, i64 batch_tokens,
                                    const std::function<void(double)>& progress = {});

}  // namespace sparsam
