// Width-independent training ("maximal update parametrisation", Yang et al. 2022, arXiv 2203.03466) as MiniCPM does it
// (Hu et al. 2024, arXiv 2404.06395, appendix A), so that one learning rate serves models of all widths and depths.
// With the width C, the base width B at which nothing is scaled, and L layers:
//   embeddings 12 e      sublayers x + 1.4 / sqrt(L) branch(x)      logits B / C z
//   initial deviations   0.1 of embeddings, 0.1 sqrt(256 / C) of hidden matrices
//   learning rate        lr of embeddings and vectors, lr B / C of hidden matrices
// The published models have B = 256.
#pragma once

#include "model/params.h"

namespace sparsam {

void apply_mup_scales(Config& config, i64 base);
void apply_mup_deviations(Params<ParameterSpec>& specs, i64 dim);
// What a parameter's learning rate is multiplied by; base 0: 1.
double mup_rate(const std::string& name, const ParameterSpec& spec, i64 dim, i64 base);

}  // namespace sparsam
