#include "ops/choose_blocks.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "ops/reference/arithmetic.h"
#include "ops/reference/reference.h"

namespace sparsam::reference {

// A decision has no error bound: it is made on the values.
template <class Real>
void run(const generic::ChooseBlocks<Real>& op) {
  const i64 blocks = op.c.shape(1);
  std::vector<i64> order(static_cast<size_t>(blocks));
  for (i64 n = 0; n < op.y.shape(0); ++n) {
    std::iota(order.begin(), order.end(), i64{0});
    std::sort(order.begin(), order.end(), [&](i64 i, i64 j) { return op.before(op.c[n], i, j); });
    std::vector<bool> chosen(static_cast<size_t>(blocks));
    for (i64 i = 0; i < std::min(op.keep, blocks); ++i)
      chosen[static_cast<size_t>(order[static_cast<size_t>(i)])] = true;
    for (i64 p = 0; p < op.y.shape(1); ++p)
      op.y(n, p) = !chosen[static_cast<size_t>(p / op.size)] ? Real(0) : op.h.empty() ? Real(1) : op.h(n, p);
  }
}

template void run(const generic::ChooseBlocks<float>&);
template void run(const generic::ChooseBlocks<double>&);
template void run(const generic::ChooseBlocks<Bounded>&);

}  // namespace sparsam::reference
