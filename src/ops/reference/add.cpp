#include "ops/reference/bounded.h"
#include "ops/reference/reference.h"

namespace sparsam::reference {

template <class Real>
void run(const generic::Add<Real>& op) {
  for (i64 i = 0; i < op.a.size(); ++i) op.y.data()[i] = op.a.data()[i] + op.b.data()[i];
}

template void run(const generic::Add<float>&);
template void run(const generic::Add<double>&);
template void run(const generic::Add<Bounded>&);

}  // namespace sparsam::reference
