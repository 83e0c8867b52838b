// How far a changed model's predictions are from its base: both run side by side on the same text.
//   KL_t = sum_v p_t(v) (log p_t(v) - log q_t(v))       p: base, q: other      nats
#pragma once

#include "measure/perplexity.h"

namespace sparsam {

// What was measured on one or more texts. Texts add up: add() joins another's.
struct Divergences {
  std::vector<Cluster> kl, same_top;  // one cluster a window
  std::vector<float> each_kl;         // one a token
  Losses base, other;
  void add(const Divergences& other_text);
};

struct Divergence {
  i64 tokens = 0;
  Estimate kl;                                             // nats per token, clustered by window
  double kl_median = 0, kl_90 = 0, kl_99 = 0, kl_max = 0;  // over tokens
  Estimate top1_agreement;  // fraction of tokens where both find the same one most probable
  Perplexity base, other;
  double seconds = 0;
};
Divergence summarize(const Divergences& divergences);

// Errors: vocabularies of different sizes; a logit that is not finite.
Divergences measure_divergence(const Transformer& base, const Transformer& other, const Tokenizer& tokenizer,
                               const TokenText& text, const WindowOptions& resolved,
                               const std::function<void(double)>& progress = {});

// One row: KL(softmax(p) || softmax(q)), both losses of `target`, and whether the greatest logits agree. Summed in
// double precision.
struct RowDivergence {
  double kl = 0, base_nats = 0, other_nats = 0;
  bool same_top = false;
};
RowDivergence compare_rows(In<float, 1> base_logits, In<float, 1> other_logits, i32 target);

}  // namespace sparsam
