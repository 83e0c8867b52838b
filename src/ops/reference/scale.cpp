#include "ops/reference/bounded.h"
#include "ops/reference/reference.h"

namespace sparsam::reference {

template <class Real>
void run(const generic::Scale<Real>& op) {
  for (i64 i = 0; i < op.x.size(); ++i) op.y.data()[i] = op.factor * op.x.data()[i];
}

template void run(const generic::Scale<float>&);
template void run(const generic::Scale<double>&);
template void run(const generic::Scale<Bounded>&);

}  // namespace sparsam::reference
