#include "infer/sampler.h"

#include <algorithm>
#include <cmath>
#include <unordered_set>

#include "base/error.h"

namespace sparsam {

void validate(const Sampling& s) {
  const auto in_range = [](const char* flag, double value, double least, double most) {
    if (!(value >= least && value <= most)) fail_usage("--{} is {}, expected {} to {}", flag, value, least, most);
  };
  in_range("temperature", s.temperature, 0, 100);
  in_range("top-k", static_cast<double>(s.top_k), 0, 1e9);
  in_range("top-p", s.top_p, 0, 1);
  in_range("min-p", s.min_p, 0, 1);
  in_range("repetition-penalty", s.repetition_penalty, 0.01, 100);
  in_range("repetition-window", static_cast<double>(s.repetition_window), 0, 1e9);
}

namespace {

// Logits as candidates' weights, penalty applied.
std::vector<Candidate> penalized(In<float, 1> logits, std::span<const i32> history, const Sampling& sampling) {
  std::vector<Candidate> all(static_cast<size_t>(logits.size()));
  for (size_t i = 0; i < all.size(); ++i) {
    const double logit = logits[static_cast<i64>(i)];
    if (!std::isfinite(logit)) fail("sampler: the logit of token {} is {}, expected a finite number", i, logit);
    all[i] = {static_cast<i32>(i), logit};
  }
  if (sampling.repetition_penalty == 1) return all;
  const size_t window = std::min(history.size(), static_cast<size_t>(sampling.repetition_window));
  const auto recent = history.last(window);
  for (const i32 token : std::unordered_set<i32>(recent.begin(), recent.end())) {
    double& logit = all[static_cast<size_t>(token)].probability;
    logit = logit > 0 ? logit / sampling.repetition_penalty : logit * sampling.repetition_penalty;
  }
  return all;
}

bool more_probable(const Candidate& a, const Candidate& b) {
  return a.probability != b.probability ? a.probability > b.probability : a.token < b.token;
}
bool less_probable(const Candidate& a, const Candidate& b) { return more_probable(b, a); }

double mass(std::span<const Candidate> all) {
  double sum = 0;
  for (const Candidate& c : all) sum += c.probability;
  return sum;
}

// Top-p and min-p: the shortest prefix of the falling order that both allow. A heap yields that order only as far as it
// is needed: a vocabulary is large, a nucleus small.
std::vector<Candidate> nucleus(std::vector<Candidate> all, const Sampling& sampling) {
  const double wanted = sampling.top_p * mass(all);
  std::make_heap(all.begin(), all.end(), less_probable);
  std::vector<Candidate> kept;
  double sum = 0;
  auto end = all.end();
  while (end != all.begin()) {
    std::pop_heap(all.begin(), end--, less_probable);
    if (!kept.empty() && (sum >= wanted || end->probability < sampling.min_p * kept.front().probability)) break;
    kept.push_back(*end);
    sum += end->probability;
  }
  return kept;
}

}  // namespace

std::vector<Candidate> candidates(In<float, 1> logits, std::span<const i32> history, const Sampling& sampling) {
  std::vector<Candidate> all = penalized(logits, history, sampling);
  check(!all.empty(), "sampler: no logits");
  const Candidate best = *std::min_element(all.begin(), all.end(), more_probable);
  if (sampling.temperature == 0) return {{best.token, 1}};
  for (Candidate& c : all) c.probability = std::exp((c.probability - best.probability) / sampling.temperature);
  if (sampling.top_k > 0 && sampling.top_k < static_cast<i64>(all.size())) {
    std::nth_element(all.begin(), all.begin() + (sampling.top_k - 1), all.end(), more_probable);
    all.resize(static_cast<size_t>(sampling.top_k));
  }
  if (sampling.top_p < 1 || sampling.min_p > 0) all = nucleus(std::move(all), sampling);
  const double sum = mass(all);
  for (Candidate& c : all) c.probability /= sum;
  return all;
}

i32 Sampler::sample(In<float, 1> logits, std::span<const i32> history) {
  const std::vector<Candidate> all = candidates(logits, history, sampling_);
  double left = random_.uniform();
  for (const Candidate& c : all) {
    left -= c.probability;
    if (left < 0) return c.token;
  }
  // Rounding left a remainder: the last candidate that can occur at all.
  return std::find_if(all.rbegin(), all.rend(), [](const Candidate& c) { return c.probability > 0; })->token;
}

}  // namespace sparsam
