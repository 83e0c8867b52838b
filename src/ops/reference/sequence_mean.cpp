#include "ops/sequence_mean.h"

#include "ops/reference/arithmetic.h"
#include "ops/reference/reference.h"

namespace sparsam::reference {

namespace {

i64 length_of(In<i32, 1> lengths, i64 b, i64 longest) { return lengths.empty() ? longest : i64{lengths[b]}; }

}  // namespace

// y_b = 1 / n_b sum_{t < n_b} x_bt
template <class Real>
void run(const generic::SequenceMean<Real>& op) {
  const i64 channels = op.x.shape(2);
  for (i64 b = 0; b < op.x.shape(0); ++b) {
    const i64 length = length_of(op.lengths, b, op.x.shape(1));
    const Wide<Real> share(1 / static_cast<double>(length));
    Sums<Real> y(static_cast<size_t>(channels));
    for (i64 t = 0; t < length; ++t) add_scaled(y, share, &op.x(b, t, 0));
    store(y, &op.y(b, 0));
  }
}

// y_b = mean x_bt  ->  dx_bt = dy_b / n_b
template <class Real>
void run(const generic::SequenceMeanBackward<Real>& op) {
  for (i64 b = 0; b < op.dx.shape(0); ++b) {
    const i64 length = length_of(op.lengths, b, op.dx.shape(1));
    const Wide<Real> share(1 / static_cast<double>(length));
    for (i64 t = 0; t < op.dx.shape(1); ++t)
      for (i64 c = 0; c < op.dx.shape(2); ++c)
        op.dx(b, t, c) = t < length ? static_cast<Real>(share * wide(op.dy(b, c))) : Real(0);
  }
}

template void run(const generic::SequenceMean<float>&);
template void run(const generic::SequenceMean<double>&);
template void run(const generic::SequenceMean<Bounded>&);
template void run(const generic::SequenceMeanBackward<float>&);
template void run(const generic::SequenceMeanBackward<double>&);
template void run(const generic::SequenceMeanBackward<Bounded>&);

}  // namespace sparsam::reference
