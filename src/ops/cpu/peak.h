// The limits of the machine, each the best of the repetitions that fit into `seconds` (at least one), on all threads.
#pragma once

#include "ops/compute.h"

namespace sparsam::cpu {

double measure_gemm_peak(Compute compute, double seconds);  // GFLOP/s
double measure_bandwidth(double seconds);                   // GB/s, reading

}  // namespace sparsam::cpu
