#include <algorithm>
#include <cmath>

#include "base/threads.h"
#include "ops/reference/factors.h"
#include "ops/reference/reference.h"

namespace sparsam::reference {

namespace {

// z_n = x_n head^T
template <class Real>
std::vector<double> logits(const Real* x, const Factors<Real, 2>& head) {
  std::vector<double> z(static_cast<size_t>(head.shape(0)));
  for (size_t v = 0; v < z.size(); ++v) z[v] = dot(x, head[static_cast<i64>(v)].data(), head.shape(1));
  return z;
}

double log_sum_exp(const std::vector<double>& z) {
  const double largest = *std::max_element(z.begin(), z.end());
  double sum = 0;
  for (double logit : z) sum += std::exp(logit - largest);
  return largest + std::log(sum);
}

}  // namespace

template <class Real>
void run(const generic::LinearCrossEntropy<Real>& op) {
  const Factors<Real, 2> x(op.x, op.compute), head(op.head, op.compute);
  parallel_ranges(op.x.shape(0), 1, [&](int, i64 begin, i64 end) {
    for (i64 n = begin; n < end; ++n) {
      op.loss[n] = 0;
      if (op.targets[n] < 0) continue;
      // loss_n = log sum_v exp(z_nv) - z_n,target
      const std::vector<double> z = logits(x[n].data(), head);
      op.loss[n] = static_cast<Real>(log_sum_exp(z) - z[static_cast<size_t>(op.targets[n])]);
    }
  });
}

template <class Real>
void run(const generic::LinearCrossEntropyBackward<Real>& op) {
  const Factors<Real, 2> x(op.x, op.compute), head(op.head, op.compute);
  const i64 rows = op.x.shape(0), channels = op.x.shape(1), vocabulary = op.head.rows, chunk = 64;
  for (i64 first = 0; first < rows; first += chunk) {
    const i64 count = std::min(chunk, rows - first);
    std::vector<std::vector<double>> dz(static_cast<size_t>(count));  // of the chunk's rows; empty: ignored
    parallel_ranges(count, 1, [&](int, i64 begin, i64 end) {
      for (i64 n = first + begin; n < first + end; ++n) {
        op.loss[n] = 0;
        std::fill(op.dx[n].begin(), op.dx[n].end(), Real{0});
        if (op.targets[n] < 0) continue;
        std::vector<double> z = logits(x[n].data(), head);
        const double lse = log_sum_exp(z);
        const size_t target = static_cast<size_t>(op.targets[n]);
        op.loss[n] = static_cast<Real>(lse - z[target]);
        // loss_n = log sum_v exp(z_nv) - z_n,target  ->  dz_nv = scale (softmax(z_n)_v - [v = target])
        for (size_t v = 0; v < z.size(); ++v)
          z[v] = static_cast<double>(op.scale) * (std::exp(z[v] - lse) - (v == target ? 1 : 0));
        // z_n = x_n head^T  ->  dx_n = dz_n head
        std::vector<double> dx(static_cast<size_t>(channels));
        for (i64 v = 0; v < vocabulary; ++v) add_scaled(dx, z[static_cast<size_t>(v)], head[v].data());
        for (i64 c = 0; c < channels; ++c) op.dx(n, c) = static_cast<Real>(dx[static_cast<size_t>(c)]);
        dz[static_cast<size_t>(n - first)] = std::move(z);
      }
    });
    parallel_ranges(vocabulary, 1, [&](int, i64 begin, i64 end) {
      for (i64 v = begin; v < end; ++v) {
        // z_n = x_n head^T  ->  dhead += sum_n dz_n^T x_n
        std::vector<double> dhead(static_cast<size_t>(channels));
        for (i64 n = 0; n < count; ++n) {
          const std::vector<double>& row = dz[static_cast<size_t>(n)];
          if (!row.empty()) add_scaled(dhead, row[static_cast<size_t>(v)], x[first + n].data());
        }
        for (i64 c = 0; c < channels; ++c) op.dhead(v, c) += static_cast<Real>(dhead[static_cast<size_t>(c)]);
      }
    });
  }
}

template void run(const generic::LinearCrossEntropy<float>&);
template void run(const generic::LinearCrossEntropy<double>&);
template void run(const generic::LinearCrossEntropyBackward<float>&);
template void run(const generic::LinearCrossEntropyBackward<double>&);

}  // namespace sparsam::reference
