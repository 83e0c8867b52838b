// Shrinking: parameter tokens, and neurons of MLPs, that add least are removed (measure/contributions.h), each with all
// that belongs to it: a key and its value; the rows of gate and up, their biases, the column of down. It is grow()
// backwards: of a grown model whose new tokens add nothing, the model that it was grown from.
//
// Tokens share a norm, of which the removed ones had a share: without repair all others would score more than they did.
//   l2_gelu    z_i = tau a_i / |a|    tau'^2 = sum of the kept of mean_t z_ti^2 = tau^2 (1 - sum of the removed shares)
// keeps the mean square of the kept scores as it was: mean_t |z'_t|^2 = tau'^2 for any a'. gelu_l2 and softmax
// likewise, of g and of exp a. Where the removed keys are zeros it is tau itself, bit for bit; where their square
// scores are a fixed part of the norm's, as those of zero_values growth are, every score is as it was, for every input.
#pragma once

#include <span>

#include "levers/grow.h"
#include "measure/contributions.h"

namespace sparsam {

// How many neurons or tokens stay at each site, in the order of neuron_sites(): as `targets` says, of MLPs their
// neurons. Errors (usage): a site has fewer than are to stay; none of a kind that is named.
std::vector<i64> counts_for(const Config& config, const TokenTargets& targets);
// About this fraction of every site, in multiples of 8, so that layers that are alike remain so. Errors (usage): no
// neurons; a fraction that is not above 0 and at most 1.
std::vector<i64> counts_for(const Config& config, double fraction);
// About this fraction of all: the least scores of the whole model go first, but at least 8 stay at each site. Layers
// then differ in size.
std::vector<i64> counts_for(const Config& config, std::span<const Contributions> contributions, double fraction);

// The model with the greatest `counts[i]` contributions of each site, in their order; of equal ones the earlier stay.
// Other matrices are shared, not copied. Errors, by site: quantised weights; tokens that a growth is still masking, or
// that are read in blocks; a norm over the neurons; nothing left of the norm of tokens.
Model shrink(const Model& model, std::span<const Contributions> contributions, std::span<const i64> counts);

}  // namespace sparsam
