// How the inner products of an operation are computed. Sums are float32 (or wider) either way.
#pragma once

#include "base/types.h"

namespace sparsam {

enum class Compute : u8 {
  f32,   // factors as they are, float32
  bf16,  // both factors rounded to bfloat16 first: relative error 2^-8 a product; or neither, where that is not slower
};

}  // namespace sparsam
