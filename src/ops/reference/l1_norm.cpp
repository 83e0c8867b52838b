#include "ops/l1_norm.h"

#include "ops/reference/arithmetic.h"
#include "ops/reference/reference.h"

namespace sparsam::reference {

// norm = sum_ni |h_ni|       active_i += #{n : h_ni != 0}
template <class Real>
void run(const generic::L1Norm<Real>& op) {
  Wide<Real> norm = 0;
  for (i64 n = 0; n < op.h.shape(0); ++n)
    for (i64 i = 0; i < op.h.shape(1); ++i) {
      const Wide<Real> h = wide(op.h(n, i));
      norm += h < 0.0 ? -h : h;
      if (static_cast<double>(h) != 0) op.active[i] += Real(1);
    }
  op.norm[0] = static_cast<Real>(norm);
}

// norm = sum |h|  ->  dh += scale sign(h)
template <class Real>
void run(const generic::L1NormBackward<Real>& op) {
  for (i64 i = 0; i < op.h.size(); ++i) {
    const double h = static_cast<double>(op.h.data()[i]);
    if (h > 0) op.dh.data()[i] += op.scale;
    if (h < 0) op.dh.data()[i] += -op.scale;
  }
}

template void run(const generic::L1Norm<float>&);
template void run(const generic::L1Norm<double>&);
template void run(const generic::L1Norm<Bounded>&);
template void run(const generic::L1NormBackward<float>&);
template void run(const generic::L1NormBackward<double>&);
template void run(const generic::L1NormBackward<Bounded>&);

}  // namespace sparsam::reference
