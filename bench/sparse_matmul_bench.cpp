// Sparse products beside the dense one, in turns, over matrices that together lie far beyond the caches:
// bench_sparse_matmul [f32|bf16|q8_0|q4_0]... Of several rows, `active` is the union.
#include <fmt/core.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/random.h"
#include "base/threads.h"
#include "ops/ops.h"
#include "tensor/arena.h"
#include "tensor/blocks.h"

namespace sparsam {
namespace {

// Random bits that are finite numbers: what the weights are does not matter.
Matrix random_weight(Arena& arena, DType dtype, i64 rows, i64 cols, u64 seed) {
  const auto bytes = arena.allocate<std::byte>(rows * bytes_for(dtype, cols));
  Random random(seed);
  std::vector<float> row(static_cast<size_t>(cols));
  const i64 row_bytes = bytes_for(dtype, cols);
  for (i64 r = 0; r < rows; ++r) {
    std::byte* at = bytes.data() + r * row_bytes;
    if (r >= 8) {
      std::copy(at - 8 * row_bytes, at - 7 * row_bytes, at);
      continue;
    }
    for (float& value : row) value = static_cast<float>(random.normal());
    if (is_quantised(dtype)) {
      quantize_row(dtype, row, {}, at);
    } else {
      const MutableMatrix m{dtype, 1, cols, {at, static_cast<size_t>(row_bytes)}};
      for (i64 c = 0; c < cols; ++c) m.set(0, c, row[static_cast<size_t>(c)]);
    }
  }
  return {dtype, rows, cols, bytes.span()};
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

double seconds(Backend& backend, const Op& op) {
  const Stopwatch clock;
  backend.run(op);
  return clock.seconds();
}

void compare(Backend& backend, DType dtype, i64 in, i64 out, i64 rows) {
  Arena arena;
  const i64 copies = (i64{500} << 20) / (out * bytes_for(dtype, in)) + 1;
  std::vector<Matrix> w;
  std::vector<InputMajor> t;
  for (i64 c = 0; c < copies; ++c) {
    w.push_back(random_weight(arena, dtype, out, in, 1));
    const auto bytes = arena.allocate<std::byte>(InputMajor::bytes_for(dtype, in, out));
    t.push_back(input_major(w.back(), bytes.span()));
  }
  const auto x = arena.allocate<float>(rows, in), y = arena.allocate<float>(rows, out),
             s = arena.allocate<float>(rows, out);
  const auto z = arena.allocate<float>(rows, in);
  Random random(3);
  for (float& value : x) value = static_cast<float>(random.normal());
  for (const double active : {0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0}) {
    std::vector<double> dense, selected, skipping;
    i64 at = 0;
    const auto next = [&] { return static_cast<size_t>(at++ % copies); };
    for (int turn = 0; turn < 40; ++turn) {
      for (i64 i = 0; i < in; ++i) {
        const bool live = random.uniform() < active;
        for (i64 n = 0; n < rows; ++n) z(n, i) = live ? x(n, i) : 0;
      }
      for (i64 i = 0; i < out; ++i) {
        const float live = random.uniform() < active ? 1.0f : 0.0f;
        for (i64 n = 0; n < rows; ++n) s(n, i) = live;
      }
      dense.push_back(seconds(backend, Matmul{.y = y, .x = z, .w = w[next()], .bias = {}, .compute = Compute::f32}));
      selected.push_back(seconds(backend, SelectedMatmul{.y = y, .x = x, .w = w[next()], .s = s}));
      dense.push_back(seconds(backend, Matmul{.y = y, .x = z, .w = w[next()], .bias = {}, .compute = Compute::f32}));
      skipping.push_back(seconds(backend, SkippingMatmul{.y = y, .x = z, .t = t[next()]}));
    }
    const double whole = median(dense), bytes = static_cast<double>(w[0].bytes.size());
    fmt::print(
        "{:<5} {} x {} N {} active {:.2f}: dense {:6.2f} GB/s, selected {:5.2f}x ({:4.0f} % of the bound), "
        "skipping {:5.2f}x ({:4.0f} %)\n",
        name_of(dtype), in, out, rows, active, 1e-9 * bytes / whole, whole / median(selected),
        100 * active * whole / median(selected), whole / median(skipping), 100 * active * whole / median(skipping));
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace sparsam

int main(int count, char** arguments) {
  using namespace sparsam;
  const auto backend = make_backend("cpu");
  std::vector<std::string_view> types(arguments + 1, arguments + count);
  if (types.empty()) types = {"f32", "bf16", "q8_0", "q4_0"};
  for (const std::string_view type : types) {
    for (const i64 rows : {1, 4, 8}) {
      compare(*backend, *dtype_from_name(type), 2048, 5632, rows);
      compare(*backend, *dtype_from_name(type), 5632, 2048, rows);
    }
  }
}
