// PPL-p% sparsity: how many neurons can be left out before a held-out text's perplexity rises by p % (Luo et al. 2024,
// arXiv 2411.02335, algorithm 1).
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "measure/activation_sparsity.h"

namespace sparsam {

// A way to leave neurons out that is tuned by one number: 0 leaves out least, 1 everything.
struct TruncationRule {
  std::string name;
  std::function<std::vector<Truncation>(double)> at;  // of each site, in the order of neuron_sites()
};
// One CETT for all sites, which decides each one's threshold of |n_i|: the number is the CETT.
TruncationRule cett_rule(const ActivationProfile& profile);
// The published comparisons: the k neurons of each token with the greatest |f(gate)|, and one threshold of |f(gate)|
// for all sites, from 2^-20 to 2^4. A plain MLP's f(up) and the scores of tokens take the place of f(gate).
TruncationRule top_k_rule(const Config& config);
TruncationRule fat_rule(const Config& config);

Model truncated(const Model& model, const std::vector<Truncation>& sites);

struct SparsityPoint {
  double percent = 0;   // asked for; 0: dense
  double at = 0;        // the rule's number
  double sparsity = 0;  // mean over sites
  double perplexity = 0;
  std::vector<Truncation> sites;
  std::vector<double> site_sparsity;
};

class SparsitySearch {
 public:
  // `nats_per_token` measures a held-out text; it is called once for every point tried.
  using Loss = std::function<double(const Transformer&)>;
  SparsitySearch(const Model& model, Backend& backend, Compute compute, i64 positions, Loss nats_per_token);

  double dense_perplexity() const { return dense_; }
  SparsityPoint measure(const std::vector<Truncation>& sites) const;
  // The sparsest point found whose perplexity is at most (1 + percent / 100) times the dense one, by bisection of the
  // rule's number to within `resolution`. Each rule's points are remembered for the next percentage.
  SparsityPoint at_rise(const TruncationRule& rule, double percent, double resolution = 1.0 / 1024);
  const SparsityPoint& measure_at(const TruncationRule& rule, double number);
  // Every point of a rule that was measured by these two, by the rule's number.
  std::map<double, SparsityPoint> tried(const TruncationRule& rule) const {
    const auto found = tried_.find(rule.name);
    return found == tried_.end() ? std::map<double, SparsityPoint>() : found->second;
  }

 private:
  const Model& model_;
  Backend& backend_;
  Compute compute_;
  i64 positions_;
  Loss loss_;
  double dense_ = 0;
  std::map<std::string, std::map<double, SparsityPoint>> tried_;
};

}  // namespace sparsam
