// The instruction sets that the kernels of this folder are compiled for.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace sparsam::cpu {

// Those that this processor has, best first: "AVX3_DL", "AVX3", "AVX2", ...
std::vector<std::string> targets();
// The one that kernels use: the first of targets(), unless restricted.
std::string target();
// From now on kernels use `name`, one of targets(); empty: the best again. For tests and measurements.
void restrict_to(std::string_view name);

}  // namespace sparsam::cpu
