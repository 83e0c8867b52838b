// The cpu backend's kernels. Its overloads of run() are the list of what was worth speeding up: an operation without
// one runs in the reference. oneDNN does the matrix products (gemm.cpp alone), Highway the rest, on all threads.
#pragma once

#include "ops/cpu/workspace.h"
#include "ops/ops.h"

namespace sparsam::cpu {

void run(const Add& op, Workspace& workspace);

}  // namespace sparsam::cpu
