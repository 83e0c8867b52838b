#include "model/params.h"

#include <cmath>

namespace sparsam {

namespace {

using Init = ParameterSpec::Init;

ParameterSpec vector_of(bool present, i64 size, Init init) {
  return present ? ParameterSpec{1, size, true, init, 0} : ParameterSpec{};
}
ParameterSpec matrix_of(i64 rows, i64 cols, double deviation) {
  return {rows, cols, false, Init::normal, static_cast<float>(deviation)};
}
NormParams<ParameterSpec> norm_specs(const Norm& norm, i64 channels) {
  return {vector_of(norm.gain, channels, Init::ones), vector_of(norm.bias, channels, Init::zeros)};
}
// Unit variance is kept through the product: deviation 1 / sqrt(in), times `scale`.
LinearParams<ParameterSpec> linear_specs(i64 out, i64 in, bool bias, double scale = 1) {
  return {matrix_of(out, in, scale / std::sqrt(static_cast<double>(in))), vector_of(bias, out, Init::zeros)};
}

}  // namespace

Params<ParameterSpec> parameter_specs(const Config& config) {
  constexpr double embedding_deviation = 0.02;  // as GPT-2
  Params<ParameterSpec> specs = empty_params<ParameterSpec>(config);
  const i64 dim = config.dim;
  specs.token_embedding = matrix_of(config.vocab, dim, embedding_deviation);
  if (config.positions == Positions::learned)
    specs.position_embedding = matrix_of(config.context, dim, embedding_deviation);
  // 2 L branches add into the residual stream: each begins with 1 / sqrt(2 L) of the variance's root (GPT-2).
  const double branch = 1 / std::sqrt(2.0 * static_cast<double>(std::max<size_t>(config.layers.size(), 1)));
  for (size_t i = 0; i < config.layers.size(); ++i) {
    if (const auto* a = std::get_if<SoftmaxAttention>(&config.layers[i].mixer)) {
      auto& p = specs.layers[i].attention;
      const i64 queries = a->heads * a->head_dim, keys = a->kv_heads * a->head_dim;
      p.norm = norm_specs(config.norm, dim);
      p.q = linear_specs(queries, dim, a->qkv_bias);
      p.k = linear_specs(keys, dim, a->qkv_bias);
      p.v = linear_specs(keys, dim, a->qkv_bias);
      p.o = linear_specs(dim, queries, a->out_bias, branch);
      if (a->inner_norm) p.inner_norm = norm_specs(config.norm, queries);
      p.q_norm.gain = p.k_norm.gain = vector_of(a->qk_norm, a->head_dim, Init::ones);
    }
    const auto mlp_specs = [&](const auto& m, bool gated) {
      auto& p = specs.layers[i].mlp;
      p.norm = norm_specs(config.norm, dim);
      if (gated) p.gate = linear_specs(m.hidden, dim, m.bias);
      p.up = linear_specs(m.hidden, dim, m.bias);
      p.down = linear_specs(dim, m.hidden, m.bias, branch);
    };
    if (const auto* m = std::get_if<Mlp>(&config.layers[i].mlp)) mlp_specs(*m, false);
    if (const auto* m = std::get_if<GatedMlp>(&config.layers[i].mlp)) {
      mlp_specs(*m, true);
      if (m->inner_norm) specs.layers[i].mlp.inner_norm = norm_specs(config.norm, m->hidden);
    }
  }
  specs.final_norm = norm_specs(config.norm, dim);
  if (!config.tied) specs.head = matrix_of(config.vocab, dim, embedding_deviation);
  return specs;
}

}  // namespace sparsam
