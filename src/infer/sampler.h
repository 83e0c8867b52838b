// Choosing the next token from logits.
//   1. repetition penalty r (Keskar et al. 2019, CTRL): the logit of each token among the last n becomes z / r where
//      z > 0, else z r
//   2. temperature: p = softmax(z / T); T = 0 takes the greatest logit (the lowest id among equals)
//   3. top-k: the k most probable          4. top-p (Holtzman et al. 2020): of these the fewest that hold p of the mass
//   5. min-p (Nguyen et al. 2024): of these the ones at least min_p times as probable as the most probable
// in the order of Hugging Face's generate().
#pragma once

#include <span>
#include <vector>

#include "base/random.h"
#include "tensor/view.h"

namespace sparsam {

struct Sampling {
  double temperature = 0;
  i64 top_k = 0;                  // 0: off
  double top_p = 1;               // 1: off
  double min_p = 0;               // 0: off
  double repetition_penalty = 1;  // 1: off
  i64 repetition_window = 64;     // n; 0: off
  u64 seed = 0;
};
// Error (usage) naming the flag whose value is out of its range.
void validate(const Sampling& sampling);

struct Candidate {
  i32 token = 0;
  double probability = 0;  // those of all candidates sum to one
};
// The distribution that is drawn from, given logits (V) and the tokens so far. Sorted by falling probability when top-p
// or min-p cut it, else in no particular order. Error: a logit that is NaN or infinite.
std::vector<Candidate> candidates(In<float, 1> logits, std::span<const i32> history, const Sampling& sampling);

class Sampler {
 public:
  explicit Sampler(const Sampling& sampling) : sampling_(sampling), random_(sampling.seed) { validate(sampling); }
  i32 sample(In<float, 1> logits, std::span<const i32> history);

 private:
  Sampling sampling_;
  Random random_;
};

}  // namespace sparsam
