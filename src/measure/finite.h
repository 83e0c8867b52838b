// Whether a model's weights are numbers.
#pragma once

#include <string_view>

#include "model/model.h"

namespace sparsam {

// Error naming `where`, the tensor and the place of the first weight that is NaN or infinite. Reads every weight once.
void check_finite(const Model& model, std::string_view where);

}  // namespace sparsam
