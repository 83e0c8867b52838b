#include "train/freeze.h"

#include "model/neuron_sites.h"

namespace sparsam {

Params<TrainedPart> trained_parts(const Config& config, Freeze freeze) {
  auto parts = empty_params<TrainedPart>(config);
  if (freeze == Freeze::none) return parts;
  const auto specs = parameter_specs(config);
  for_each_parameter(
      specs, [](const std::string&, const ParameterSpec& spec, TrainedPart& part) { part.row = spec.rows; }, parts);
  bool any = false;
  for (size_t l = 0; l < config.layers.size(); ++l) {
    const auto tokens = tokens_of(config.layers[l]);
    const auto params = token_params_of(parts.layers[l]);
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (!tokens[i] || tokens[i]->old == 0) continue;
      *params[i] = {.keys = {.row = tokens[i]->old, .col = 0}, .values = {.row = 0, .col = tokens[i]->old}};
      any = true;
    }
  }
  if (!any) fail_usage("--freeze old: no parameter token of the model came with growth (sparsam grow --params 2x)");
  return parts;
}

}  // namespace sparsam
