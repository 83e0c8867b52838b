#include "model/crossover.h"

#include <algorithm>
#include <array>

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
  double below = 0, below_ratio = 0;
  for (const double fraction : fractions) {
    std::array<double, turns> ratios;
    for (double& ratio : ratios) {
      for (i64 i = 0; i < out; ++i) {
        const float live = random.uniform() < fraction ? 1.0f : 0.0f;
        for (i64 n = 0; n < rows; ++n) s(n, i) = live;
      }
      const double dense =
          seconds_of(backend, Matmul{.y = y, .x = x, .w = next(), .bias = {}, .compute = Compute::f32});
      ratio = seconds_of(backend, SelectedMatmul{.y = y, .x = x, .w = next(), .s = s}) / dense;
    }
    std::nth_element(ratios.begin(), ratios.begin() + turns / 2, ratios.end());
    const double ratio = ratios[turns / 2];
    if (ratio > 1) return static_cast<float>(below + (fraction - below) * (1 - below_ratio) / (ratio - below_ratio));
    below = fraction, below_ratio = ratio;
  }
  return 1;
}

}  // namespace sparsam
