// How fast training runs: full optimizer steps on random tokens.
#pragma once

#include "ops/decorators.h"
#include "train/trainer.h"

namespace sparsam {

struct TrainSpeed {
  double seconds_per_step = 0;  // median of the steps after the first, which also allocates
  double tokens_per_second = 0;
  double peak_flops = 0;  // multiply-adds counted twice, of the matrix product measured in the same run
  double fraction_of_peak = 0;
  i64 peak_bytes = 0;             // weights, gradients, moments, activations
  std::vector<Usage> operations;  // what the measured steps spent on each operation
  i64 peak_resident_bytes = 0;    // of the whole process (VmHWM); 0 where the system does not tell
};

// Forward and backward floating-point operations of one trained token: three times the forward's, at the mean context.
double training_flops_per_token(const Config& config, i64 sequence);

// Measures at least `steps` steps, and more until `seconds` have passed, with the recipe's batch, length and precision.
TrainSpeed measure_training(const Config& config, const Recipe& recipe, Backend& backend, i64 steps,
                            double seconds = 0);
TrainSpeed measure_training(const Architecture& architecture, i64 batch, i64 length, Compute compute, int steps);

// Operations per second of large matrix products on all threads, measured for about half a second.
double measure_peak_flops(Compute compute);

}  // namespace sparsam
