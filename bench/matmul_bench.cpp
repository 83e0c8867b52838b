// The speed of the products of a transformer as a fraction of the machine's: bench_matmul [gpt2|mini|decode|peak]...
// Peak and operation are measured in turns, since the speed of a shared machine changes from second to second.
#include <fmt/core.h>

#include <algorithm>
#include <functional>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/random.h"
#include "base/threads.h"
#include "ops/cpu/peak.h"
#include "ops/machine.h"
#include "ops/ops.h"
#include "tensor/arena.h"

namespace sparsam {
namespace {

constexpr int turns = 5;

View<float, 2> random_rows(Arena& arena, i64 rows, i64 cols, u64 seed) {
  const View<float, 2> x = arena.allocate<float>(rows, cols);
  Random random(seed);
  for (float& value : x) value = 2.0f * static_cast<float>(random.uniform()) - 1.0f;
  return x;
}

Matrix stored(const View<float, 2>& x, DType dtype, Arena& arena) {
  if (dtype == DType::f32) return as_matrix(x);
  const View<std::byte, 1> bytes = arena.allocate<std::byte>(x.size() * size_of(dtype));
  const MutableMatrix m{dtype, x.shape(0), x.shape(1), bytes.span()};
  for (i64 i = 0; i < m.rows; ++i)
    for (i64 j = 0; j < m.cols; ++j) m.set(i, j, x(i, j));
  return m;
}

// The best speed of `op` and the best fraction of the limit measured in the same turn.
void measure(Backend& backend, const std::string& name, const char* unit, double work, const Op& op,
             const std::function<double()>& limit) {
  backend.run(op);
  double best = 0.0, best_fraction = 0.0, best_limit = 0.0;
  for (int turn = 0; turn < turns; ++turn) {
    const double peak = limit();
    double shortest = 1e9;
    const Stopwatch all;
    do {
      const Stopwatch one;
      backend.run(op);
      shortest = std::min(shortest, one.seconds());
    } while (all.seconds() < 0.05);
    const double speed = 1e-9 * work / shortest;
    best = std::max(best, speed), best_limit = std::max(best_limit, peak);
    best_fraction = std::max(best_fraction, speed / std::max(peak, limit()));
  }
  fmt::print("{:<58} {:8.1f} {:<8} {:8.1f} {:7.0f} % {:7.0f} %\n", name, best, unit, best_limit, 100 * best_fraction,
             100 * best / best_limit);
  std::fflush(stdout);
}

std::function<double()> peak_of(Compute compute) {
  return [compute] { return cpu::measure_gemm_peak(compute, 0.02); };
}

void training(Backend& backend, i64 rows, i64 in, i64 out) {
  Arena arena;
  const auto x = random_rows(arena, rows, in, 1), dy = random_rows(arena, rows, out, 2);
  const auto w = random_rows(arena, out, in, 3);
  const auto y = arena.zeros<float>(rows, out), dx = arena.zeros<float>(rows, in), dw = arena.zeros<float>(out, in);
  const auto bias = arena.zeros<float>(out), dbias = arena.zeros<float>(out);
  for (const Compute compute : {Compute::f32, Compute::bf16}) {
    const std::string shape = fmt::format("N {} {} -> {} {}", rows, in, out, compute == Compute::f32 ? "f32" : "bf16");
    const double work = 2.0 * static_cast<double>(rows * in * out);
    const auto peak = peak_of(compute);
    measure(backend, "forward " + shape, "GFLOP/s", work,
            Matmul{.y = y, .x = x, .w = as_matrix(w), .bias = bias, .compute = compute}, peak);
    measure(backend, "dx      " + shape, "GFLOP/s", work,
            MatmulBackwardInput{.dx = dx, .dy = dy, .w = as_matrix(w), .compute = compute}, peak);
    measure(backend, "dw      " + shape, "GFLOP/s", work,
            MatmulBackwardWeight{.dw = dw, .dbias = dbias, .dy = dy, .x = x, .compute = compute}, peak);
  }
}

void head(Backend& backend, i64 rows, i64 dim, i64 vocab) {
  Arena arena;
  const auto x = random_rows(arena, rows, dim, 1), w = random_rows(arena, vocab, dim, 2);
  const auto dx = arena.zeros<float>(rows, dim), dw = arena.zeros<float>(vocab, dim);
  const auto loss = arena.zeros<float>(rows);
  const auto targets = arena.allocate<i32>(rows);
  for (i64 i = 0; i < rows; ++i) targets[i] = static_cast<i32>((i * 7919) % vocab);
  for (const Compute compute : {Compute::f32, Compute::bf16}) {
    const std::string shape =
        fmt::format("N {} {} -> {} {}", rows, dim, vocab, compute == Compute::f32 ? "f32" : "bf16");
    const double work = 2.0 * static_cast<double>(rows * dim * vocab);
    measure(backend, "cross-entropy          " + shape, "GFLOP/s", work,
            LinearCrossEntropy{.loss = loss, .x = x, .head = as_matrix(w), .targets = targets, .compute = compute},
            peak_of(compute));
    measure(backend, "cross-entropy backward " + shape, "GFLOP/s", 3 * work,
            LinearCrossEntropyBackward{.loss = loss,
                                       .dx = dx,
                                       .dhead = dw,
                                       .x = x,
                                       .head = as_matrix(w),
                                       .targets = targets,
                                       .scale = 1.0f / static_cast<float>(rows),
                                       .compute = compute},
            peak_of(compute));
  }
}

// Many matrices below one another: together far beyond the caches.
void decoding(Backend& backend, i64 in, i64 out, DType dtype, i64 rows, Compute compute) {
  Arena arena;
  const auto x = random_rows(arena, rows, in, 1);
  const i64 copies = (i64{600} << 20) / (in * out * size_of(dtype)) + 1;
  const Matrix all = stored(random_rows(arena, out * copies, in, 2), dtype, arena);
  const auto wide = arena.zeros<float>(rows, out * copies);
  const std::string name =
      fmt::format("decode {} x {} {} N {} {}", in, out, name_of(dtype), rows, compute == Compute::f32 ? "f32" : "bf16");
  measure(backend, name, "GB/s", static_cast<double>(all.bytes.size()),
          Matmul{.y = wide, .x = x, .w = all, .bias = {}, .compute = compute},
          [] { return cpu::measure_bandwidth(0.1); });
}

void run_all(const std::vector<std::string_view>& wanted) {
  const auto backend = make_backend("cpu");
  const auto asked = [&](std::string_view name) {
    return wanted.empty() || std::find(wanted.begin(), wanted.end(), name) != wanted.end();
  };
  const MachinePeaks peaks = measure_machine(3.0);
  fmt::print("{} threads: f32 {:.0f} GFLOP/s, bf16 {:.0f} GFLOP/s, reads {:.1f} GB/s\n", threads(), peaks.f32_gflops,
             peaks.bf16_gflops, peaks.bandwidth_gbytes);
  fmt::print("{:<58} {:>8} {:<8} {:>8} {:>9} {:>9}\n", "", "best", "", "limit", "same turn", "of best");
  if (asked("gpt2"))
    training(*backend, 4096, 768, 768), training(*backend, 4096, 768, 3072), training(*backend, 4096, 3072, 768);
  if (asked("mini"))
    training(*backend, 8192, 384, 1024), training(*backend, 8192, 1024, 384), training(*backend, 8192, 384, 4096);
  if (asked("head")) head(*backend, 4096, 768, 50257), head(*backend, 8192, 384, 4096), head(*backend, 8192, 384, 512);
  if (asked("decode"))
    for (const DType dtype : {DType::bf16, DType::f32, DType::f16})
      for (const i64 rows : {1, 2, 4, 8}) decoding(*backend, 2048, 5632, dtype, rows, Compute::f32);
  if (asked("few"))
    for (const Compute compute : {Compute::f32, Compute::bf16})
      for (const i64 rows : {4, 8, 12, 16, 24, 32, 64, 128, 256, 512})
        decoding(*backend, 2048, 5632, DType::bf16, rows, compute);
}

}  // namespace
}  // namespace sparsam

int main(int count, char** arguments) { sparsam::run_all({arguments + 1, arguments + count}); }
