#include "ops/machine.h"

#include "ops/cpu/peak.h"

namespace sparsam {

MachinePeaks measure_machine(double seconds) {
  return {cpu::measure_gemm_peak(Compute::f32, seconds / 3), cpu::measure_gemm_peak(Compute::bf16, seconds / 3),
          cpu::measure_bandwidth(seconds / 3)};
}

}  // namespace sparsam
