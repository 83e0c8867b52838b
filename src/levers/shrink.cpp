#include "levers/shrink.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "levers/growth.h"

namespace sparsam {

namespace {

constexpr i64 multiple = 8;

std::vector<NeuronSite> sites_of(const Config& config) {
  const auto sites = neuron_sites(config);
  if (sites.empty()) fail_usage("shrink: the model has no parameter tokens and no neurons, which are what is removed");
  return sites;
}

void require_fraction(double fraction) {
  if (!(fraction > 0 && fraction <= 1))
    fail_usage("shrink: {:g} % of the tokens and neurons are to stay, expected more than 0, at most 100",
               100 * fraction);
}

i64 rounded(double count, i64 most) {
  const i64 whole = static_cast<i64>(std::llround(count / multiple)) * multiple;
  return std::clamp(whole, std::min(multiple, most), most);
}

// Indices of the greatest scores, ascending; of equal ones the earlier.
std::vector<i64> greatest(const std::vector<double>& scores, i64 count) {
  std::vector<i64> order(scores.size());
  std::iota(order.begin(), order.end(), i64{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](i64 a, i64 b) { return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)]; });
  order.resize(static_cast<size_t>(count));
  std::sort(order.begin(), order.end());
  return order;
}

struct Shrinking {
  const Contributions& of;
  std::vector<i64> kept;
  GrownStorage& storage;
  std::string where;

  void require_plain(std::initializer_list<const Matrix*> matrices) const {
    for (const Matrix* m : matrices)
      if (!m->empty() && is_quantised(m->dtype))
        fail("{}: its weights are quantised ({}); expected f32, bf16 or f16: quantise after shrinking", where,
             name_of(m->dtype));
  }
  i64 count() const { return static_cast<i64>(kept.size()); }

  void operator()(ParameterTokens& tokens, TokenParams<Matrix>& w) const {
    require_plain({&w.keys, &w.values});
    if (tokens.mask != 1)
      fail("{}: its new tokens are masked by {:g}: train until a growth is complete, then shrink", where, tokens.mask);
    if (tokens.blocks.active())
      fail("{}: its keys are read in blocks, which would lose some of their tokens; shrink the model before that",
           where);
    double removed = 0;
    size_t next = 0;
    for (i64 i = 0; i < tokens.tokens; ++i)
      if (next < kept.size() && kept[next] == i)
        ++next;
      else
        removed += of.shares[static_cast<size_t>(i)];
    const i64 old = std::count_if(kept.begin(), kept.end(), [&](i64 i) { return i < tokens.old; });
    tokens.old = old == count() ? 0 : old;
    tokens.tokens = count();
    tokens.tau = static_cast<float>(double{tokens.tau} * std::sqrt(std::max(1 - removed, 0.0)));
    if (!(tokens.tau > 0))
      fail("{}: the {} tokens that would stay score 0 throughout the calibration text", where, count());
    w.keys = storage.rows(w.keys, kept);
    w.values = storage.columns(w.values, kept);
  }

  void operator()(auto& mlp, MlpParams<Matrix>& w) const {  // Mlp or GatedMlp
    require_plain({&w.gate.weight, &w.up.weight, &w.down.weight});
    if constexpr (requires { mlp.inner_norm; })
      if (mlp.inner_norm) fail("{}: a norm over its neurons would change when some are removed", where);
    mlp.hidden = count();
    w.gate = {storage.rows(w.gate.weight, kept), storage.columns(w.gate.bias, kept)};
    w.up = {storage.rows(w.up.weight, kept), storage.columns(w.up.bias, kept)};
    w.down.weight = storage.columns(w.down.weight, kept);
  }
};

}  // namespace

std::vector<i64> counts_for(const Config& config, const TokenTargets& targets) {
  const std::array<i64, places> wanted{targets.q, targets.k, targets.v, targets.o, targets.mlp};
  std::array<bool, places> found{};
  std::vector<i64> counts;
  for (const NeuronSite site : sites_of(config)) {
    const size_t place = static_cast<size_t>(site.place);
    const i64 there = neurons_at(config, site);
    found[place] = true;
    if (wanted[place] > there)
      fail_usage("shrink: {} has {}, fewer than the {} that are to stay", name_of(site), there, wanted[place]);
    counts.push_back(wanted[place] ? wanted[place] : there);
  }
  for (size_t p = 0; p < places; ++p)
    if (wanted[p] && !found[p]) fail_usage("shrink: the model has no parameter tokens in {}", token_kinds[p]);
  return counts;
}

std::vector<i64> counts_for(const Config& config, double fraction) {
  require_fraction(fraction);
  std::vector<i64> counts;
  for (const NeuronSite site : sites_of(config)) {
    const i64 there = neurons_at(config, site);
    counts.push_back(rounded(fraction * static_cast<double>(there), there));
  }
  return counts;
}

std::vector<i64> counts_for(const Config& config, std::span<const Contributions> contributions, double fraction) {
  require_fraction(fraction);
  sites_of(config);
  std::vector<double> all;
  for (const Contributions& c : contributions) all.insert(all.end(), c.scores.begin(), c.scores.end());
  const auto last = all.begin() + std::llround((1 - fraction) * static_cast<double>(all.size()));
  if (last == all.end()) fail_usage("shrink: {:g} % leaves nothing", 100 * fraction);
  std::nth_element(all.begin(), last, all.end());
  std::vector<i64> counts;
  for (const Contributions& c : contributions) {
    const auto staying = std::count_if(c.scores.begin(), c.scores.end(), [&](double s) { return s >= *last; });
    counts.push_back(rounded(static_cast<double>(staying), static_cast<i64>(c.scores.size())));
  }
  return counts;
}

Model shrink(const Model& model, std::span<const Contributions> contributions, std::span<const i64> counts) {
  check(contributions.size() == counts.size(), "{} counts for {} sites", counts.size(), contributions.size());
  auto storage = std::make_shared<GrownStorage>(GrownStorage{model.storage});
  Model result{model.config, model.weights, storage};
  for (size_t i = 0; i < counts.size(); ++i) {
    const Contributions& c = contributions[i];
    if (counts[i] == static_cast<i64>(c.scores.size())) continue;
    const Shrinking shrinking{c, greatest(c.scores, counts[i]), *storage, "shrink: " + name_of(c.site)};
    Layer& layer = result.config.layers[static_cast<size_t>(c.site.layer)];
    auto& weights = result.weights.layers[static_cast<size_t>(c.site.layer)];
    const size_t place = static_cast<size_t>(c.site.place);
    if (ParameterTokens* tokens = tokens_of(layer)[place])
      shrinking(*tokens, *token_params_of(weights)[place]);
    else if (auto* plain = std::get_if<Mlp>(&layer.mlp))
      shrinking(*plain, weights.mlp);
    else
      shrinking(std::get<GatedMlp>(layer.mlp), weights.mlp);
  }
  return result;
}

}  // namespace sparsam
