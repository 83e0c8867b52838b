#include "measure/sparsity_search.h"

#include <algorithm>
#include <cmath>

namespace sparsam {

namespace {

// Counts the neurons that pass, site by site: a pass truncates them in their order.
class CountPassing final : public Backend {
 public:
  CountPassing(Backend& inner, const std::vector<Truncation>& sites) : inner_(inner), passed_(sites.size()) {
    for (size_t i = 0; i < sites.size(); ++i)
      if (sites[i].active()) order_.push_back(i);
  }
  void run(const Op& op) override {
    inner_.run(op);
    const auto* truncate = std::get_if<Truncate>(&op);
    if (!truncate) return;
    auto& [passed, all] = passed_[order_[next_]];
    next_ = (next_ + 1) % order_.size();
    for (const float count : truncate->active) passed += count;
    all += static_cast<double>(truncate->h.size());
  }
  std::vector<double> sparsity() const {
    std::vector<double> result;
    for (const auto& [passed, all] : passed_) result.push_back(all > 0 ? 1 - passed / all : 0);
    return result;
  }

 private:
  Backend& inner_;
  std::vector<size_t> order_;
  size_t next_ = 0;
  std::vector<std::pair<double, double>> passed_;
};

}  // namespace

TruncationRule cett_rule(const ActivationProfile& profile) {
  return {"cett", [profile](double cett) {
            std::vector<Truncation> all;
            for (const LayerCurve& curve : profile.layers)
              all.push_back({.measure = Truncation::Measure::output, .threshold = curve.threshold_at(cett), .keep = 0});
            return all;
          }};
}

TruncationRule top_k_rule(const Config& config) {
  return {"top-k", [config](double left_out) {
            std::vector<Truncation> all;
            for (const NeuronSite site : neuron_sites(config)) {
              const double kept = (1 - left_out) * static_cast<double>(neurons_at(config, site));
              all.push_back(
                  {.measure = Truncation::Measure::gate, .threshold = 0, .keep = std::max<i64>(std::llround(kept), 1)});
            }
            return all;
          }};
}

TruncationRule fat_rule(const Config& config) {
  return {"fat", [sites = neuron_sites(config).size()](double number) {
            const float threshold = static_cast<float>(std::exp2(-20 + 24 * number));
            return std::vector<Truncation>(sites,
                                           {.measure = Truncation::Measure::gate, .threshold = threshold, .keep = 0});
          }};
}

Model truncated(const Model& model, const std::vector<Truncation>& sites) {
  Model result = model;
  const auto all = neuron_sites(model.config);
  check(all.size() == sites.size(), "{} truncations of {} sites", sites.size(), all.size());
  for (size_t i = 0; i < all.size(); ++i) set_truncation(result.config, all[i], sites[i]);
  return result;
}

SparsitySearch::SparsitySearch(const Model& model, Backend& backend, Compute compute, i64 positions,
                               Loss nats_per_token)
    : model_(model),
      backend_(backend),
      compute_(compute),
      positions_(positions),
      loss_(std::move(nats_per_token)),
      dense_(std::exp(loss_(Transformer(model, backend, compute, positions)))) {}

SparsityPoint SparsitySearch::measure(const std::vector<Truncation>& sites) const {
  const Model thinner = truncated(model_, sites);
  CountPassing counting(backend_, sites);
  SparsityPoint point{.sites = sites, .site_sparsity = {}};
  point.perplexity = std::exp(loss_(Transformer(thinner, counting, compute_, positions_)));
  point.site_sparsity = counting.sparsity();
  for (const double sparsity : point.site_sparsity) point.sparsity += sparsity / static_cast<double>(sites.size());
  return point;
}

const SparsityPoint& SparsitySearch::measure_at(const TruncationRule& rule, double number) {
  auto& tried = tried_[rule.name];
  const auto found = tried.find(number);
  if (found != tried.end()) return found->second;
  SparsityPoint point = measure(rule.at(number));
  point.at = number;
  return tried.emplace(number, std::move(point)).first->second;
}

SparsityPoint SparsitySearch::at_rise(const TruncationRule& rule, double percent, double resolution) {
  const double limit = dense_ * (1 + percent / 100);
  double low = 0, high = 1;
  measure_at(rule, low);
  for (const auto& [at, point] : tried_[rule.name]) {  // what is known narrows the search
    if (point.perplexity <= limit)
      low = std::max(low, at);
    else
      high = std::min(high, at);
  }
  // Perplexity need not rise everywhere with the number: a bracket is kept, not an order.
  if (low > high) low = 0;
  while (high - low > resolution) {
    const double middle = (low + high) / 2;
    (measure_at(rule, middle).perplexity <= limit ? low : high) = middle;
  }
  SparsityPoint point = measure_at(rule, low);
  point.percent = percent;
  return point;
}

}  // namespace sparsam
