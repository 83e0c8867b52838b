#include "ops/log_recurrence.h"

#include "ops/reference/arithmetic.h"
#include "ops/reference/reference.h"

namespace sparsam::reference {

namespace {

// log sigmoid(c) = min(c, 0) - log(1 + exp(-|c|))
template <class W>
W log_sigmoid(const W& c) {
  const W zero = 0.0;
  const bool negative = c < zero;
  return (negative ? c : zero) - log(1.0 + exp(negative ? c : -c));
}

}  // namespace

// y_t = log(exp(l_t + y_{t-1}) + exp(x_t))
template <class Real>
void run(const generic::LogRecurrence<Real>& op) {
  for (i64 b = 0; b < op.y.shape(0); ++b)
    for (i64 c = 0; c < op.y.shape(2); ++c) {
      Wide<Real> y = op.state.empty() ? 0.0 : wide(op.state(b, c));
      for (i64 t = 0; t < op.y.shape(1); ++t) {
        y = log_sum_exp<Wide<Real>>({log_sigmoid(wide(op.coefficient(b, t, c))) + y, wide(op.x(b, t, c))});
        op.y(b, t, c) = static_cast<Real>(y);
      }
      if (!op.state.empty()) op.state(b, c) = static_cast<Real>(y);
    }
}

template <class Real>
void run(const generic::LogRecurrenceBackward<Real>& op) {
  for (i64 b = 0; b < op.y.shape(0); ++b)
    for (i64 c = 0; c < op.y.shape(2); ++c) {
      Wide<Real> later = 0;  // w_{t+1} D_{t+1}
      for (i64 t = op.y.shape(1); t-- > 0;) {
        const Wide<Real> logit = wide(op.coefficient(b, t, c)), y = wide(op.y(b, t, c));
        const Wide<Real> before = t == 0 ? 0.0 : wide(op.y(b, t - 1, c)), D = wide(op.dy(b, t, c)) + later;
        later = exp(log_sigmoid(logit) + before - y) * D;
        op.dx(b, t, c) = static_cast<Real>(exp(wide(op.x(b, t, c)) - y) * D);
        op.dcoefficient(b, t, c) = static_cast<Real>(later / (1.0 + exp(logit)));
      }
    }
}

template void run(const generic::LogRecurrence<float>&);
template void run(const generic::LogRecurrence<double>&);
template void run(const generic::LogRecurrence<Bounded>&);
template void run(const generic::LogRecurrenceBackward<float>&);
template void run(const generic::LogRecurrenceBackward<double>&);
template void run(const generic::LogRecurrenceBackward<Bounded>&);

}  // namespace sparsam::reference
