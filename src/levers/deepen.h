// Growing in depth: the layers over again, until there are enough (stacking: Gong et al. 2019; G_stack: Du et al. 2024,
// arXiv 2405.15319). With zeros for the last matrix of each new sublayer (o, down, values) it adds nothing to the
// residual stream, and the function stays bit for bit; that matrix learns first. Whole copies, the published way, are
// another function.
#pragma once

#include "levers/growth.h"

namespace sparsam {

enum class Stacking : u8 { zeros, copies };

// Layer i is a copy of layer i mod L. Errors (usage): fewer layers than before; thresholds that leave something out.
Config deepened(const Config& config, i64 layers);
// The model with the layers of `to`, made by deepened(). Copies share their weights; moments of new layers are 0.
Model deepen(const Model& model, const Config& to, Stacking how, Numbers numbers = Numbers::weights);

}  // namespace sparsam
