#include "ops/reference/arithmetic.h"
#include "ops/reference/reference.h"

namespace sparsam::reference {

template <class Real>
void run(const generic::CausalConvolution<Real>& op) {
  const i64 time = op.x.shape(1), channels = op.x.shape(2), taps = op.w.shape(1);
  for (i64 b = 0; b < op.x.shape(0); ++b)
    for (i64 c = 0; c < channels; ++c) {
      // The inputs, after those of the state: the input of position t - K + 1 + i is inputs[t + i].
      std::vector<Real> inputs(static_cast<size_t>(taps - 1), Real(0));
      if (!op.state.empty())
        for (i64 i = 0; i < taps - 1; ++i) inputs[static_cast<size_t>(i)] = op.state(b, i, c);
      for (i64 t = 0; t < time; ++t) inputs.push_back(op.x(b, t, c));
      // y_tc = x_tc + sum_i w_ci x_{t-K+1+i, c}
      for (i64 t = 0; t < time; ++t)
        op.y(b, t, c) =
            static_cast<Real>(wide(op.x(b, t, c)) + dot(&op.w(c, 0), &inputs[static_cast<size_t>(t)], taps));
      if (!op.state.empty())
        for (i64 i = 0; i < taps - 1; ++i) op.state(b, i, c) = inputs[static_cast<size_t>(time + i)];
    }
}

template <class Real>
void run(const generic::CausalConvolutionBackward<Real>& op) {
  const i64 batch = op.x.shape(0), time = op.x.shape(1), channels = op.x.shape(2), taps = op.w.shape(1);
  for (i64 c = 0; c < channels; ++c) {
    Sums<Real> dw(static_cast<size_t>(taps));
    for (i64 b = 0; b < batch; ++b)
      for (i64 t = 0; t < time; ++t) {
        // y_tc = x_tc + sum_i w_ci x_{t-K+1+i, c}
        //   ->  dx_tc = dy_tc + sum_i w_ci dy_{t+K-1-i, c}     dw_ci += sum_t dy_tc x_{t-K+1+i, c}
        Wide<Real> dx = wide(op.dy(b, t, c));
        for (i64 i = 0; i < taps; ++i) {
          const i64 later = t + taps - 1 - i, earlier = t - taps + 1 + i;
          if (later < time) dx += wide(op.w(c, i)) * wide(op.dy(b, later, c));
          if (earlier >= 0) dw[static_cast<size_t>(i)] += wide(op.dy(b, t, c)) * wide(op.x(b, earlier, c));
        }
        op.dx(b, t, c) = static_cast<Real>(dx);
      }
    accumulate(dw, &op.dw(c, 0));
  }
}

template <class Real>
void run(const generic::Delay<Real>& op) {
  for (i64 b = 0; b < op.x.shape(0); ++b)
    for (i64 t = 0; t < op.x.shape(1); ++t)
      for (i64 c = 0; c < op.x.shape(2); ++c) {
        if (op.state.empty()) {
          op.y(b, t, c) = t < op.delay ? op.fill : op.x(b, t - op.delay, c);
          continue;
        }
        Real& oldest = op.state(b, (op.start + t) % op.delay, c);
        op.y(b, t, c) = oldest;
        oldest = op.x(b, t, c);
      }
}

template <class Real>
void run(const generic::DelayBackward<Real>& op) {
  for (i64 b = 0; b < op.dy.shape(0); ++b)
    for (i64 t = 0; t < op.dy.shape(1); ++t)
      for (i64 c = 0; c < op.dy.shape(2); ++c)
        op.dx(b, t, c) = t + op.delay < op.dy.shape(1) ? op.dy(b, t + op.delay, c) : Real(0);
}

template void run(const generic::Delay<float>&);
template void run(const generic::Delay<double>&);
template void run(const generic::Delay<Bounded>&);
template void run(const generic::DelayBackward<float>&);
template void run(const generic::DelayBackward<double>&);
template void run(const generic::DelayBackward<Bounded>&);
template void run(const generic::CausalConvolution<float>&);
template void run(const generic::CausalConvolution<double>&);
template void run(const generic::CausalConvolution<Bounded>&);
template void run(const generic::CausalConvolutionBackward<float>&);
template void run(const generic::CausalConvolutionBackward<double>&);
template void run(const generic::CausalConvolutionBackward<Bounded>&);

}  // namespace sparsam::reference
