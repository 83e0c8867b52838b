#include "train/mup.h"

#include <cmath>

namespace sparsam {

namespace {

bool is_hidden_matrix(const std::string& name, const ParameterSpec& spec) {
  return !spec.is_vector && name.starts_with("model.layers.");
}

}  // namespace

void apply_mup_scales(Config& config, i64 base) {
  constexpr double embedding = 12, branch = 1.4;
  config.embedding_scale = static_cast<float>(embedding);
  config.branch_scale = static_cast<float>(branch / std::sqrt(static_cast<double>(config.layers.size())));
  config.logit_scale = static_cast<float>(static_cast<double>(base) / static_cast<double>(config.dim));
}

void apply_mup_deviations(Params<ParameterSpec>& specs, i64 dim) {
  constexpr double deviation = 0.1, of_width = 256;
  const double hidden = deviation * std::sqrt(of_width / static_cast<double>(dim));
  for_each_parameter(
      specs,
      [&](const std::string& name, const ParameterSpec&, ParameterSpec& spec) {
        if (!spec.is_vector) spec.deviation = static_cast<float>(is_hidden_matrix(name, spec) ? hidden : deviation);
      },
      specs);
}

double mup_rate(const std::string& name, const ParameterSpec& spec, i64 dim, i64 base) {
  if (base == 0 || !is_hidden_matrix(name, spec)) return 1;
  return static_cast<double>(base) / static_cast<double>(dim);
}

}  // namespace sparsam
