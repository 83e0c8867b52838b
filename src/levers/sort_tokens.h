// Sorting parameter tokens: those with like keys become neighbours, so that blocks of them can be left unread
// (model/key_blocks.h). Their order changes nothing of what a projection computes but the order of its sums.
#pragma once

#include <functional>
#include <vector>

#include "base/random.h"
#include "model/model.h"
#include "ops/ops.h"

namespace sparsam {

// The order in which like vectors (P, D) make blocks of `size`, the last of what is left: balanced k-means of their
// directions, where in every round vectors take the nearest centre that has room, those that are nearest to one first.
std::vector<i64> order_in_blocks(In<float, 2> vectors, i64 size, Backend& backend, Random random);

// The model with the tokens of each projection so sorted, whose function has blocks (l2_gelu) and which has `size` of
// them; which tokens came with growth is then not known any more (ParameterTokens::old). Errors: no such projection;
// by site: quantised values; tokens that a growth is still masking.
Model sort_tokens(const Model& model, i64 size, Backend& backend, u64 seed,
                  const std::function<void(double)>& progress = {});

// The description with blocks of which about `fraction` are read, at least one. A projection where that would not save
// bytes is read whole.
Config with_blocks(const Model& sorted, i64 size, double fraction);

}  // namespace sparsam
