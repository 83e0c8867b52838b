// Dropping sublayers: the residual stream passes where they were (He et al. 2024, arXiv 2406.15786). Their parameters,
// compute and cache are gone from the result; a layer without either sublayer is gone itself, and later ones move up.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "measure/redundancy.h"

namespace sparsam {

// Layers whose attention, whose MLP is dropped, by index in the model that they are dropped from. A block is both.
struct Drops {
  std::vector<i64> attention = {}, mlp = {};
  bool operator==(const Drops&) const = default;
};

// The result reads the same weights: nothing is copied. Errors: a layer out of range, a sublayer that is not there or
// is named twice.
Model drop(const Model& model, const Drops& drops);

// "attn:3,mlp:5,block:2" (also "attention:3"); a block drops what is left of it. Error (usage) quoting the part that is
// wrong.
Drops parse_drops(std::string_view list, const Config& config);

// How many of each kind to drop, the lowest scores first; among equals the later layer. Pools are drawn independently.
struct DropCounts {
  i64 attention = 0, mlp = 0, block = 0;
  i64 joint = 0;  // from attention and MLP sublayers together
};
// Errors (usage): more than there are; --joint beside --attention or --mlp, --block beside any other.
void check_counts(const Config& config, const DropCounts& counts);
// Also: a sublayer of the model without a score.
Drops select_drops(const Config& config, std::span<const SublayerScore> scores, const DropCounts& counts);

}  // namespace sparsam
