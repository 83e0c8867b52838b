// What this machine can do, measured: the limits of which speeds are given as fractions.
#pragma once

namespace sparsam {

struct MachinePeaks {
  double f32_gflops, bf16_gflops;  // matrix products of random factors, the weight packed beforehand
  double bandwidth_gbytes;         // reading memory far beyond the caches
};

// Best of repeated measurements on all threads, within about `seconds` (or once each).
MachinePeaks measure_machine(double seconds);

}  // namespace sparsam
