// What can be left out of a model one by one: the hidden neurons of an MLP and the parameter tokens of a projection.
// Both are values h_i (of tokens the scores s_i), each of which adds h_i times one column of the matrix (out, P) that
// reads them: MLPs and attention to parameter tokens are one operator (Geva et al. 2021, arXiv 2012.14913).
#pragma once

#include <array>
#include <string>
#include <vector>

#include "model/params.h"

namespace sparsam {

enum class SitePlace : u8 { q, k, v, o, mlp };
constexpr std::array<const char*, 5> token_kinds{"q", "k", "v", "o", "mlp"};
constexpr size_t places = token_kinds.size();

struct NeuronSite {
  i64 layer = 0;
  SitePlace place = SitePlace::mlp;
  bool operator==(const NeuronSite&) const = default;
};
std::string name_of(NeuronSite site);  // "3.mlp"
// "3.mlp" -> the site. Error (usage) for one that the model does not have.
NeuronSite site_from_name(std::string_view name, const Config& config, std::string_view where);

// All of a model, in the order in which they are computed.
std::vector<NeuronSite> neuron_sites(const Config& config);

// The parameter tokens of a layer by place; null where there are none. L: Layer or const Layer.
template <class L>
auto tokens_of(L& layer) {
  using Tokens = std::conditional_t<std::is_const_v<L>, const ParameterTokens, ParameterTokens>;
  std::array<Tokens*, places> tokens{};
  if (auto* a = std::get_if<SoftmaxAttention>(&layer.mixer)) tokens = {&a->q, &a->k, &a->v, &a->o, nullptr};
  tokens.back() = std::get_if<ParameterTokens>(&layer.mlp);
  for (Tokens*& t : tokens)
    if (t && !t->present()) t = nullptr;
  return tokens;
}
// LayerParams of anything, in the same order.
template <class P>
auto token_params_of(P& layer) {
  auto& a = layer.attention;
  return std::array{&a.q.tokens, &a.k.tokens, &a.v.tokens, &a.o.tokens, &layer.mlp.tokens};
}

// Null for an MLP.
const ParameterTokens* tokens_at(const Config& config, NeuronSite site);
i64 neurons_at(const Config& config, NeuronSite site);
// The matrix that reads the neurons, (out, P).
const Matrix& outputs_at(const Params<Matrix>& weights, const Config& config, NeuronSite site);

Truncation truncation_at(const Config& config, NeuronSite site);
void set_truncation(Config& config, NeuronSite site, const Truncation& truncation);

}  // namespace sparsam
