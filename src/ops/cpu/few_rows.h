#pragma once

#include "base/types.h"

namespace sparsam::cpu {

// Rows that one reading of a weight serves, and from which on oneDNN is faster.
constexpr i64 few = 8;

}  // namespace sparsam::cpu
