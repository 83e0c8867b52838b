#include "model/neuron_sites.h"

#include <algorithm>

namespace sparsam {

std::string name_of(NeuronSite site) {
  return fmt::format("{}.{}", site.layer, token_kinds[static_cast<size_t>(site.place)]);
}

NeuronSite site_from_name(std::string_view name, const Config& config, std::string_view where) {
  const auto sites = neuron_sites(config);
  const auto found = std::find_if(sites.begin(), sites.end(), [&](NeuronSite site) { return name_of(site) == name; });
  if (found != sites.end()) return *found;
  fail_usage("{}: the model has no neurons at '{}', expected LAYER.PLACE as in {}", where, name,
             sites.empty() ? "0.mlp" : name_of(sites.back()));
}

std::vector<NeuronSite> neuron_sites(const Config& config) {
  std::vector<NeuronSite> sites;
  for (size_t l = 0; l < config.layers.size(); ++l) {
    const auto tokens = tokens_of(config.layers[l]);
    for (size_t p = 0; p < places; ++p) {
      const NeuronSite site{static_cast<i64>(l), static_cast<SitePlace>(p)};
      if (tokens[p] || (site.place == SitePlace::mlp && has_mlp(config.layers[l]))) sites.push_back(site);
    }
  }
  return sites;
}

const ParameterTokens* tokens_at(const Config& config, NeuronSite site) {
  return tokens_of(config.layers[static_cast<size_t>(site.layer)])[static_cast<size_t>(site.place)];
}

i64 neurons_at(const Config& config, NeuronSite site) {
  if (const ParameterTokens* tokens = tokens_at(config, site)) return tokens->tokens;
  const Layer& layer = config.layers[static_cast<size_t>(site.layer)];
  if (const auto* m = std::get_if<Mlp>(&layer.mlp)) return m->hidden;
  return std::get<GatedMlp>(layer.mlp).hidden;
}

const Matrix& outputs_at(const Params<Matrix>& weights, const Config& config, NeuronSite site) {
  const auto& layer = weights.layers[static_cast<size_t>(site.layer)];
  if (!tokens_at(config, site)) return layer.mlp.down.weight;
  return token_params_of(layer)[static_cast<size_t>(site.place)]->values;
}

Truncation truncation_at(const Config& config, NeuronSite site) {
  if (const ParameterTokens* tokens = tokens_at(config, site)) return tokens->truncation;
  return config.truncation.empty() ? Truncation{} : config.truncation[static_cast<size_t>(site.layer)];
}

void set_truncation(Config& config, NeuronSite site, const Truncation& truncation) {
  if (ParameterTokens* tokens =
          tokens_of(config.layers[static_cast<size_t>(site.layer)])[static_cast<size_t>(site.place)]) {
    tokens->truncation = truncation;
    return;
  }
  config.truncation.resize(config.layers.size());
  config.truncation[static_cast<size_t>(site.layer)] = truncation;
}

}  // namespace sparsam
