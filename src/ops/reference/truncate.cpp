#include "ops/truncate.h"

#include <algorithm>
#include <functional>
#include <vector>

#include "ops/reference/arithmetic.h"
#include "ops/reference/reference.h"

namespace sparsam::reference {

namespace {
double value_of(double x) { return x; }
double value_of(const Bounded& x) { return x.value; }
}  // namespace

// A decision has no error bound: it is made on the values.
template <class Real>
void run(const generic::Truncate<Real>& op) {
  const i64 N = op.h.shape(0), F = op.h.shape(1);
  std::vector<double> m(static_cast<size_t>(F)), sorted;
  for (i64 n = 0; n < N; ++n) {
    for (i64 i = 0; i < F; ++i)
      m[static_cast<size_t>(i)] = std::abs(value_of(wide(op.s(n, i)))) * (op.w.empty() ? 1.0 : value_of(wide(op.w[i])));
    double least = op.threshold;
    if (op.keep > 0 && op.keep < F) {
      sorted = m;
      // NaN has no place in an order: it counts as the greatest, since it passes.
      for (double& x : sorted)
        if (std::isnan(x)) x = INFINITY;
      const auto last = sorted.begin() + (op.keep - 1);
      std::nth_element(sorted.begin(), last, sorted.end(), std::greater<>());
      least = std::max(least, *last);
    }
    i64 active = 0;
    for (i64 i = 0; i < F; ++i) {
      const bool passes = !(m[static_cast<size_t>(i)] < least);
      active += passes;
      op.y(n, i) = passes ? op.h(n, i) : Real(0);
    }
    op.active[n] = static_cast<Real>(active);
  }
}

template void run(const generic::Truncate<float>&);
template void run(const generic::Truncate<double>&);
template void run(const generic::Truncate<Bounded>&);

}  // namespace sparsam::reference
