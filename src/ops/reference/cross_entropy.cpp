#include <algorithm>

#include "base/threads.h"
#include "ops/reference/arithmetic.h"
#include "ops/reference/reference.h"

namespace sparsam::reference {

namespace {

// z_n = x_n head^T
template <class Real>
Sums<Real> logits(In<Real, 1> x, const Factors<Real, 2>& head) {
  Sums<Real> z(static_cast<size_t>(head.shape(0)));
  for (size_t v = 0; v < z.size(); ++v) z[v] = dot(x.data(), head[static_cast<i64>(v)].data(), x.size());
  return z;
}

}  // namespace

template <class Real>
void run(const generic::LinearCrossEntropy<Real>& op) {
  const Factors<Real, 2> x(op.x, op.compute), head(op.head, op.compute);
  parallel_ranges(op.x.shape(0), 1, [&](int, i64 begin, i64 end) {
    for (i64 n = begin; n < end; ++n) {
      op.loss[n] = Real{0};
      if (op.targets[n] < 0) continue;
      // loss_n = log sum_v exp(z_nv) - z_n,target
      const Sums<Real> z = logits(x[n], head);
      op.loss[n] = static_cast<Real>(log_sum_exp(z) - z[static_cast<size_t>(op.targets[n])]);
    }
  });
}

template <class Real>
void run(const generic::LinearCrossEntropyBackward<Real>& op) {
  const Factors<Real, 2> x(op.x, op.compute), head(op.head, op.compute);
  const i64 rows = op.x.shape(0), vocabulary = op.head.rows, chunk = 64;
  const Sums<Real> zeros(static_cast<size_t>(op.x.shape(1)));
  for (i64 first = 0; first < rows; first += chunk) {
    const i64 count = std::min(chunk, rows - first);
    std::vector<Sums<Real>> dz(static_cast<size_t>(count));  // of the chunk's rows; empty: ignored
    parallel_ranges(count, 1, [&](int, i64 begin, i64 end) {
      for (i64 n = first + begin; n < first + end; ++n) {
        Sums<Real> dx = zeros;
        op.loss[n] = Real{0};
        if (op.targets[n] >= 0) {
          Sums<Real> z = logits(x[n], head);
          const Wide<Real> lse = log_sum_exp(z);
          const size_t target = static_cast<size_t>(op.targets[n]);
          op.loss[n] = static_cast<Real>(lse - z[target]);
          // loss_n = log sum_v exp(z_nv) - z_n,target  ->  dz_nv = scale (softmax(z_n)_v - [v = target])
          for (size_t v = 0; v < z.size(); ++v)
            z[v] = freely_rounded(wide(op.scale) * (exp(z[v] - lse) - (v == target ? 1.0 : 0.0)), op.compute);
          // z_n = x_n head^T  ->  dx_n = dz_n head
          for (i64 v = 0; v < vocabulary; ++v) add_scaled(dx, z[static_cast<size_t>(v)], head[v].data());
          dz[static_cast<size_t>(n - first)] = std::move(z);
        }
        store(dx, op.dx[n].data());
      }
    });
    parallel_ranges(vocabulary, 1, [&](int, i64 begin, i64 end) {
      for (i64 v = begin; v < end; ++v) {
        // z_n = x_n head^T  ->  dhead += sum_n dz_n^T x_n
        Sums<Real> dhead = zeros;
        for (i64 n = 0; n < count; ++n) {
          const Sums<Real>& row = dz[static_cast<size_t>(n)];
          if (!row.empty()) add_scaled(dhead, row[static_cast<size_t>(v)], x[first + n].data());
        }
        accumulate(dhead, op.dhead[v].data());
      }
    });
  }
}

template void run(const generic::LinearCrossEntropy<float>&);
template void run(const generic::LinearCrossEntropy<double>&);
template void run(const generic::LinearCrossEntropy<Bounded>&);
template void run(const generic::LinearCrossEntropyBackward<float>&);
template void run(const generic::LinearCrossEntropyBackward<double>&);
template void run(const generic::LinearCrossEntropyBackward<Bounded>&);

}  // namespace sparsam::reference
