#include "measure/redundancy.h"

#include <algorithm>
#include <cmath>

#include "base/clock.h"
#include "base/threads.h"
#include "measure/windows.h"

namespace sparsam {

namespace {

std::vector<std::string> kind_names() { return {"attention", "mlp", "block"}; }

// Sum over rows of cos(before, after); one sum a row first, so that the result does not depend on the threads.
double sum_of_cosines(In<float, 2> before, In<float, 2> after) {
  std::vector<double> each(static_cast<size_t>(before.shape(0)));
  parallel_ranges(before.shape(0), 16, [&](int, i64 begin, i64 end) {
    for (i64 n = begin; n < end; ++n) each[static_cast<size_t>(n)] = cosine(before[n], after[n]);
  });
  double sum = 0;
  for (const double c : each) sum += c;
  return sum;
}

}  // namespace

std::string_view name_of(Sublayer kind) {
  constexpr std::string_view names[] = {"attention", "mlp", "block"};
  return names[static_cast<size_t>(kind)];
}

Sublayer sublayer_from_name(std::string_view name, std::string_view where) {
  const auto names = kind_names();
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) fail_unknown("kind of sublayer", name, names, where);
  return static_cast<Sublayer>(found - names.begin());
}

double cosine(In<float, 1> u, In<float, 1> v) {
  double uv = 0, uu = 0, vv = 0;
  for (i64 i = 0; i < u.size(); ++i) {
    const double a = u[i], b = v[i];
    uv += a * b, uu += a * a, vv += b * b;
  }
  return uv / std::max(std::sqrt(uu * vv), 1e-8);
}

Redundancy measure_redundancy(const Transformer& model, std::span<const i32> tokens, const RedundancyOptions& options,
                              const std::function<void(double)>& progress) {
  const Stopwatch clock;
  const size_t layers = model.model().config.layers.size();
  Redundancy result;
  result.context = resolve_context(options.context, model.model().config);
  const i64 size = static_cast<i64>(tokens.size());
  result.tokens = options.tokens > 0 ? std::min(options.tokens, size) : size;
  if (result.tokens == 0) fail("score: no tokens, expected 1 or more");

  std::vector<double> sums(3 * layers, 0.0);
  std::vector<bool> present(3 * layers, false);
  const Observer observe = [&](i64 layer, Sublayer kind, In<float, 2> before, In<float, 2> after) {
    const size_t place = 3 * static_cast<size_t>(layer) + static_cast<size_t>(kind);
    sums[place] += sum_of_cosines(before, after);
    present[place] = true;
  };
  Arena arena;
  for_each_batch(
      tokens.first(static_cast<size_t>(result.tokens)), result.context, options.batch_tokens,
      [&](const Tokens& batch) {
        arena.reset();
        model.forward(batch, arena, nullptr, {}, observe);
      },
      progress);
  for (size_t place = 0; place < sums.size(); ++place) {
    if (!present[place]) continue;
    const SublayerScore score{static_cast<i64>(place / 3), static_cast<Sublayer>(place % 3),
                              1 - sums[place] / static_cast<double>(result.tokens)};
    if (!std::isfinite(score.score))
      fail("score: {} {} scores {}, expected a finite number", name_of(score.kind), score.layer, score.score);
    result.scores.push_back(score);
  }
  result.seconds = clock.seconds();
  return result;
}

}  // namespace sparsam
