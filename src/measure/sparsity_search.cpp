#include "measure/sparsity_search.h"

#include <algorithm>
#include <cmath>

namespace sparsam {

namespace {

i64 hidden_of(const Layer& layer) {
  if (const auto* m = std::get_if<Mlp>(&layer.mlp)) return m->hidden;
  if (const auto* m = std::get_if<GatedMlp>(&layer.mlp)) return m->hidden;
  return 0;
}

// Counts the neurons that pass, layer by layer: a pass truncates the layers in their order.
class CountPassing final : public Backend {
 public:
  CountPassing(Backend& inner, const Config& config) : inner_(inner), passed_(config.layers.size()) {
    for (size_t l = 0; l < config.layers.size(); ++l)
      if (has_mlp(config.layers[l]) && config.truncation[l].active()) order_.push_back(l);
  }
  void run(const Op& op) override {
    inner_.run(op);
    const auto* truncate = std::get_if<Truncate>(&op);
    if (!truncate) return;
    const size_t layer = order_[next_];
    next_ = (next_ + 1) % order_.size();
    for (const float count : truncate->active) passed_[layer].first += count;
    passed_[layer].second += static_cast<double>(truncate->h.size());
  }
  double sparsity(size_t layer) const {
    const auto& [passed, all] = passed_[layer];
    return all > 0 ? 1 - passed / all : 0;
  }

 private:
  Backend& inner_;
  std::vector<size_t> order_;
  size_t next_ = 0;
  std::vector<std::pair<double, double>> passed_;
};

}  // namespace

TruncationRule cett_rule(const Config& config, const ActivationProfile& profile) {
  return {"cett", [layers = config.layers.size(), profile](double cett) {
            std::vector<Truncation> all(layers);
            for (const LayerCurve& curve : profile.layers)
              all[static_cast<size_t>(curve.layer)].threshold = curve.threshold_at(cett);
            return all;
          }};
}

TruncationRule top_k_rule(const Config& config) {
  return {"top-k", [layers = config.layers](double left_out) {
            std::vector<Truncation> all(layers.size());
            for (size_t l = 0; l < all.size(); ++l) {
              const double kept = (1 - left_out) * static_cast<double>(hidden_of(layers[l]));
              all[l] = {
                  .measure = Truncation::Measure::gate, .threshold = 0, .keep = std::max<i64>(std::llround(kept), 1)};
            }
            return all;
          }};
}

TruncationRule fat_rule(const Config& config) {
  return {"fat", [layers = config.layers.size()](double number) {
            const float threshold = static_cast<float>(std::exp2(-20 + 24 * number));
            return std::vector<Truncation>(layers,
                                           {.measure = Truncation::Measure::gate, .threshold = threshold, .keep = 0});
          }};
}

Model truncated(const Model& model, const std::vector<Truncation>& layers) {
  Model result = model;
  result.config.truncation = layers;
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

SparsityPoint SparsitySearch::measure(const std::vector<Truncation>& layers) const {
  const Model thinner = truncated(model_, layers);
  CountPassing counting(backend_, thinner.config);
  SparsityPoint point{.layers = layers, .layer_sparsity = {}};
  point.perplexity = std::exp(loss_(Transformer(thinner, counting, compute_, positions_)));
  double mlps = 0;
  for (size_t l = 0; l < layers.size(); ++l) {
    point.layer_sparsity.push_back(counting.sparsity(l));
    if (has_mlp(model_.config.layers[l])) point.sparsity += point.layer_sparsity.back(), ++mlps;
  }
  point.sparsity /= std::max(mlps, 1.0);
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
