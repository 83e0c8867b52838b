// Scratch memory of the cpu backend: kept between operations, contents meaningless between them.
#pragma once

#include "ops/cpu/gemm.h"
#include "tensor/arena.h"

namespace sparsam::cpu {

struct Workspace {
  Arena arena;  // each operation marks it at its beginning and releases it at its end
  GemmCache gemms;
};

}  // namespace sparsam::cpu
