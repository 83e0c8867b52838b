#include "model/crossover.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/clock.h"
#include "base/random.h"
#include "tensor/arena.h"

namespace sparsam {

namespace {

double seconds_of(Backend& backend, const Op& op) {
  const Stopwatch clock;
  backend.run(op);
  return clock.seconds();
}

}  // namespace

float selection_crossover(std::span<const Matrix> weights, i64 rows, Backend& backend) {
  constexpr std::array<double, 4> fractions{0.4, 0.6, 0.8, 1.0};
  constexpr size_t turns = 5;
  Arena arena;
  Random random(1);
  const i64 in = weights[0].cols, out = weights[0].rows;
  const auto x = arena.allocate<float>(rows, in), y = arena.allocate<float>(rows, out),
             s = arena.zeros<float>(rows, out);
  for (float& value : x) value = static_cast<float>(random.normal());
  size_t at = 0;
  const auto next = [&]() -> const Matrix& { return weights[at++ % weights.size()]; };
  // The least of each: what else the machine does only ever adds.
  double dense = INFINITY;
  std::array<double, fractions.size()> sparse;
  sparse.fill(INFINITY);
  for (size_t turn = 0; turn < turns; ++turn)
    for (size_t f = 0; f < fractions.size(); ++f) {
      for (i64 i = 0; i < out; ++i) {
        const float live = random.uniform() < fractions[f] ? 1.0f : 0.0f;
        for (i64 n = 0; n < rows; ++n) s(n, i) = live;
      }
      const Matmul all{.y = y, .x = x, .w = next(), .bias = {}, .compute = Compute::f32};
      dense = std::min(dense, seconds_of(backend, all));
      sparse[f] = std::min(sparse[f], seconds_of(backend, SelectedMatmul{.y = y, .x = x, .w = next(), .s = s}));
    }
  double below = 0, below_ratio = 0;
  for (size_t f = 0; f < fractions.size(); ++f) {
    const double ratio = sparse[f] / dense;
    if (ratio > 1)
      return static_cast<float>(below + (fractions[f] - below) * (1 - below_ratio) / (ratio - below_ratio));
    below = fractions[f], below_ratio = ratio;
  }
  return 1;
}

float skipping_crossover(const InputMajor& weight, i64 rows) {
  if (weight.dtype == DType::q4_0 || rows > 1) return 1;
  const i64 bytes = weight.row_bytes();
  return bytes < 1024 ? 0.4f : bytes < 4096 ? 0.7f : bytes < 8192 ? 0.85f : 0.95f;
}

}  // namespace sparsam
