#include "model/crossover.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>

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

// Where sparse(fraction) stops being faster than dense(): operations that read the next weight each time.
float crossover(const std::function<Op()>& dense, const std::function<Op(double)>& sparse, Backend& backend) {
  constexpr std::array<double, 5> fractions{0.2, 0.4, 0.6, 0.8, 1.0};
  constexpr size_t turns = 5;
  // The least of each: what else the machine does only ever adds.
  double whole = INFINITY;
  std::array<double, fractions.size()> part;
  part.fill(INFINITY);
  for (size_t turn = 0; turn < turns; ++turn)
    for (size_t f = 0; f < fractions.size(); ++f) {
      const Op op = sparse(fractions[f]);
      whole = std::min(whole, seconds_of(backend, dense()));
      part[f] = std::min(part[f], seconds_of(backend, op));
    }
  double below = 0, below_ratio = 0;
  for (size_t f = 0; f < fractions.size(); ++f) {
    const double ratio = part[f] / whole;
    if (ratio > 1)
      return static_cast<float>(below + (fractions[f] - below) * (1 - below_ratio) / (ratio - below_ratio));
    below = fractions[f], below_ratio = ratio;
  }
  return 1;
}

// Random numbers and, of each column, 1 in all rows or 0.
struct Inputs {
  Arena arena;
  Random random{1};
  Out<float, 2> normal(i64 rows, i64 cols) {
    const auto values = arena.allocate<float>(rows, cols);
    for (float& value : values) value = static_cast<float>(random.normal());
    return values;
  }
  void keep(In<float, 2> from, Out<float, 2> to, double fraction) {
    for (i64 i = 0; i < to.shape(1); ++i) {
      const bool live = random.uniform() < fraction;
      for (i64 n = 0; n < to.shape(0); ++n) to(n, i) = live ? from(n, i) : 0;
    }
  }
};

}  // namespace

float selection_crossover(std::span<const Matrix> weights, i64 rows, Backend& backend) {
  Inputs inputs;
  const i64 in = weights[0].cols, out = weights[0].rows;
  const auto x = inputs.normal(rows, in), y = inputs.arena.allocate<float>(rows, out), all = inputs.normal(rows, out),
             s = inputs.arena.allocate<float>(rows, out);
  size_t at = 0;
  const auto next = [&]() -> const Matrix& { return weights[at++ % weights.size()]; };
  return crossover([&] { return Matmul{.y = y, .x = x, .w = next(), .bias = {}, .compute = Compute::f32}; },
                   [&](double fraction) {
                     inputs.keep(all, s, fraction);
                     return SelectedMatmul{.y = y, .x = x, .w = next(), .s = s};
                   },
                   backend);
}

float skipping_crossover(std::span<const std::pair<Matrix, InputMajor>> weights, i64 rows, Backend& backend) {
  Inputs inputs;
  const i64 in = weights[0].first.cols, out = weights[0].first.rows;
  const auto all = inputs.normal(rows, in), x = inputs.arena.allocate<float>(rows, in),
             y = inputs.arena.allocate<float>(rows, out);
  size_t at = 0;
  const auto next = [&]() -> const std::pair<Matrix, InputMajor>& { return weights[at++ % weights.size()]; };
  return crossover([&] { return Matmul{.y = y, .x = all, .w = next().first, .bias = {}, .compute = Compute::f32}; },
                   [&](double fraction) {
                     inputs.keep(all, x, fraction);
                     return SkippingMatmul{.y = y, .x = x, .t = next().second};
                   },
                   backend);
}

float skipping_crossover(const Config& config, const InputMajor& weight, i64 rows) {
  for (const Crossover& c : config.crossovers)
    if (c.dtype == weight.dtype && c.rows == weight.cols && c.cols == weight.rows) return c.fractions[rows > 1];
  if (weight.dtype == DType::q4_0 || rows > 1) return 1;
  const i64 bytes = weight.row_bytes();
  return bytes < 1024 ? 0.4f : bytes < 4096 ? 0.7f : bytes < 8192 ? 0.85f : 0.95f;
}

}  // namespace sparsam
