// The speed of everything but the matrix products, as a fraction of this machine's limit, measured in turns with it:
// bench_attention [rows|attention|decode]...
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/random.h"
#include "base/threads.h"
#include "ops/cpu/peak.h"
#include "ops/ops.h"
#include "tensor/arena.h"

namespace sparsam {
namespace {

constexpr int turns = 5;

template <class... Sizes>
auto random_view(Arena& arena, Sizes... sizes) {
  const auto x = arena.allocate<float>(sizes...);
  Random random(static_cast<u64>(x.size()));
  for (float& value : x) value = 2.0f * static_cast<float>(random.uniform()) - 1.0f;
  return x;
}

// Calls `body` for at least 50 ms a turn: the shortest time of a call, and its speed beside the limit of the same turn.
void measure(const std::string& name, const char* unit, double work, const std::function<void()>& body,
             const std::function<double()>& limit) {
  body();
  double best = 1e9, best_limit = 0, fraction = 0;
  for (int turn = 0; turn < turns; ++turn) {
    const double before = limit();
    double shortest = 1e9;
    const Stopwatch all;
    do {
      const Stopwatch one;
      body();
      shortest = std::min(shortest, one.seconds());
    } while (all.seconds() < 0.05);
    const double peak = std::max(before, limit());
    best = std::min(best, shortest), best_limit = std::max(best_limit, peak);
    fraction = std::max(fraction, 1e-9 * work / shortest / peak);
  }
  fmt::print("{:<62} {:9.3f} ms {:9.1f} {:<7} {:9.1f} {:6.0f} %\n", name, 1e3 * best, 1e-9 * work / best, unit,
             best_limit, 100 * fraction);
  std::fflush(stdout);
}

double bandwidth() { return cpu::measure_bandwidth(0.05); }

void measure_rows(Backend& backend, const std::string& name, const Op& op) {
  measure(
      name, "GB/s", static_cast<double>(bytes(op)), [&] { backend.run(op); }, bandwidth);
}

void rows(Backend& backend) {
  Arena arena;
  constexpr i64 n = 4096, c = 768, f = 3072, heads = 12, size = 64, parameters = 50'000'000;
  const auto x = random_view(arena, n, c), dy = random_view(arena, n, c), y = random_view(arena, n, c);
  const auto gain = random_view(arena, c), bias = random_view(arena, c), dgain = random_view(arena, c);
  const auto dbias = random_view(arena, c), r = random_view(arena, n), mean = random_view(arena, n);
  measure_rows(backend, "RmsNorm (4096, 768)", RmsNorm{y, r, x, gain, 1e-5f});
  measure_rows(backend, "RmsNormBackward", RmsNormBackward{y, dgain, dy, x, gain, r});
  measure_rows(backend, "LayerNorm (4096, 768)", LayerNorm{y, mean, r, x, gain, bias, 1e-5f});
  measure_rows(backend, "LayerNormBackward", LayerNormBackward{y, dgain, dbias, dy, x, gain, mean, r});
  measure_rows(backend, "Add (4096, 768)", Add{y, x, dy});
  const auto positions = arena.zeros<i32>(n);
  const auto cosine = random_view(arena, 1, size / 2), sine = random_view(arena, 1, size / 2);
  for (const Pairing pairing : {Pairing::halves, Pairing::interleaved})
    measure_rows(backend, pairing == Pairing::halves ? "Rope (4096, 12, 64) halves" : "Rope interleaved",
                 Rope{y.as(n, heads, size), x.as(n, heads, size), positions, cosine, sine, pairing, false});
  const auto gate = random_view(arena, n, f), up = random_view(arena, n, f), h = random_view(arena, n, f);
  const auto dh = random_view(arena, n, f), dgate = random_view(arena, n, f), dup = random_view(arena, n, f);
  for (const Function function :
       {Function::relu, Function::relu2, Function::gelu, Function::gelu_tanh, Function::silu}) {
    const std::string shape = fmt::format("(4096, 3072) {}", name_of(function));
    measure_rows(backend, "Activation " + shape, Activation{h, gate, function});
    measure_rows(backend, "ActivationBackward " + shape, ActivationBackward{dgate, dh, gate, function});
  }
  measure_rows(backend, "GatedProduct (4096, 3072) silu", GatedProduct{h, gate, up, Function::silu});
  measure_rows(backend, "GatedProductBackward", GatedProductBackward{dgate, dup, dh, gate, up, Function::silu});
  const auto w = random_view(arena, parameters), m = random_view(arena, parameters), v = arena.zeros<float>(parameters);
  const auto dw = random_view(arena, parameters);
  measure_rows(backend, "AdamW 50 M", AdamW{w, m, v, dw, 1e-3f, 0.9f, 0.95f, 1e-8f, 0.1f, 1.0f, 10});
  double norm = 0;
  measure_rows(backend, "SquaredNorm 50 M", SquaredNorm{{&norm, {1}}, dw});
}

void attention(Backend& backend, i64 batch, i64 time, i64 heads, i64 groups, i64 size) {
  Arena arena;
  const auto q = random_view(arena, batch, time, heads, size), y = random_view(arena, batch, time, heads, size);
  const auto dy = random_view(arena, batch, time, heads, size), dq = random_view(arena, batch, time, heads, size);
  const auto k = random_view(arena, batch, time, groups, size), v = random_view(arena, batch, time, groups, size);
  const auto dk = random_view(arena, batch, time, groups, size), dv = random_view(arena, batch, time, groups, size);
  const auto lse = random_view(arena, batch, heads, time);
  const float scale = 1.0f / std::sqrt(static_cast<float>(size));
  for (const Compute compute : {Compute::bf16, Compute::f32}) {
    const std::string shape = fmt::format("B {} T {} H {} G {} D {} {}", batch, time, heads, groups, size,
                                          compute == Compute::f32 ? "f32" : "bf16");
    const auto peak = [compute] { return cpu::measure_gemm_peak(compute, 0.02); };
    const Attention forward{y, lse, q, k, v, scale, true, compute};
    const AttentionBackward backward{dq, dk, dv, dy, y, q, k, v, lse, scale, true, compute};
    measure(
        "Attention " + shape, "GFLOP/s", static_cast<double>(forward.flops()), [&] { backend.run(forward); }, peak);
    measure(
        "AttentionBackward " + shape, "GFLOP/s", static_cast<double>(backward.flops()), [&] { backend.run(backward); },
        peak);
  }
}

// The caches of as many layers as exceed the processor's caches, in turn.
void decoding(Backend& backend, i64 heads, i64 groups, i64 size, i64 positions, DType dtype) {
  Arena arena;
  const i64 values = groups * positions * size, cache_bytes = 2 * values * size_of(dtype);
  const i64 layers = (i64{600} << 20) / cache_bytes + 1;
  const auto q = random_view(arena, i64{1}, heads, size), y = random_view(arena, i64{1}, heads, size);
  const auto new_rows = random_view(arena, positions, groups, size);
  std::vector<CachedAttention> steps;
  for (i64 layer = 0; layer < layers; ++layer) {
    const auto matrix = [&] {
      const auto memory = arena.allocate<std::byte>(values * size_of(dtype));
      return MutableMatrix{dtype, groups * positions, size, memory.span()};
    };
    const CacheAppend append{matrix(), matrix(), new_rows, new_rows, 0};
    backend.run(append);
    steps.push_back({y, q, append.keys, append.values, groups, positions - 1, 0.125f, Compute::f32});
  }
  const std::string name =
      fmt::format("decode H {} G {} D {} {} positions {}, per layer", heads, groups, size, positions, name_of(dtype));
  size_t next = 0;
  measure(
      name, "GB/s", static_cast<double>(cache_bytes), [&] { backend.run(steps[next++ % steps.size()]); }, bandwidth);
}

void prefill(Backend& backend, i64 heads, i64 groups, i64 size, i64 start, i64 time, DType dtype) {
  Arena arena;
  const i64 positions = start + time;
  const auto new_rows = random_view(arena, positions, groups, size);
  const auto matrix = [&] {
    const auto memory = arena.allocate<std::byte>(groups * positions * size * size_of(dtype));
    return MutableMatrix{dtype, groups * positions, size, memory.span()};
  };
  const CacheAppend append{matrix(), matrix(), new_rows, new_rows, 0};
  backend.run(append);
  const auto q = random_view(arena, time, heads, size), y = random_view(arena, time, heads, size);
  const CachedAttention op{y, q, append.keys, append.values, groups, start, 0.125f, Compute::bf16};
  measure(
      fmt::format("prefill H {} G {} D {} {} after {} {}", heads, groups, size, time, start, name_of(dtype)), "GFLOP/s",
      static_cast<double>(op.flops()), [&] { backend.run(op); },
      [] { return cpu::measure_gemm_peak(Compute::bf16, 0.02); });
}

void run_all(const std::vector<std::string_view>& wanted) {
  const auto backend = make_backend("cpu");
  const auto asked = [&](std::string_view name) {
    return wanted.empty() || std::find(wanted.begin(), wanted.end(), name) != wanted.end();
  };
  fmt::print("{} threads\n{:<62} {:>12} {:>17} {:>9} {:>8}\n", threads(), "", "best", "speed", "limit", "of limit");
  if (asked("rows")) rows(*backend);
  if (asked("attention")) {
    attention(*backend, 8, 512, 12, 12, 64), attention(*backend, 32, 256, 6, 6, 64);
    attention(*backend, 2, 2048, 32, 4, 64), attention(*backend, 1, 4096, 16, 8, 128);
  }
  if (asked("decode")) {
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      decoding(*backend, 12, 12, 64, 1024, dtype), decoding(*backend, 32, 4, 64, 2048, dtype);
      decoding(*backend, 14, 2, 64, 32768, dtype), decoding(*backend, 16, 8, 128, 8192, dtype);
    }
    prefill(*backend, 32, 4, 64, 0, 512, DType::bf16), prefill(*backend, 32, 4, 64, 1536, 512, DType::f16);
  }
}

}  // namespace
}  // namespace sparsam

int main(int count, char** arguments) { sparsam::run_all({arguments + 1, arguments + count}); }
