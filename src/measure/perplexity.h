// Perplexity and bits per byte of a text under a model.
#pragma once

#include "measure/statistics.h"
#include "measure/windows.h"
#include "text/tokenizer.h"

namespace sparsam {

// What the scored tokens of one or more texts cost. Texts add up: add() joins another's.
struct Losses {
  std::vector<Cluster> nats;  // one cluster a window
  i64 bytes = 0;              // of the scored tokens' text
  double seconds = 0;
  void add(const Losses& other);
};

struct Perplexity {
  i64 tokens = 0, bytes = 0, windows = 0;
  Estimate nats_per_token;                   // clustered by window, see clustered_mean()
  double perplexity = 0, low = 0, high = 0;  // exp of it; 95 % confidence interval
  double bits_per_byte = 0;
  double seconds = 0;
};
Perplexity summarize(const Losses& losses);

// Error naming the text and the place when a loss is not finite.
Losses measure_losses(const Transformer& model, const Tokenizer& tokenizer, const TokenText& text,
                      const WindowOptions& resolved, const std::function<void(double)>& progress = {});

}  // namespace sparsam
