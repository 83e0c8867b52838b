#include "model/convolution.h"

namespace sparsam {

Out<float, 2> convolve(const Execution& e, const Matrix& w, In<float, 2> x, Out<float, 3> past) {
  const i64 N = x.shape(0), channels = x.shape(1), B = e.sequences;
  const auto y = e.arena.allocate<float>(N, channels);
  e.backend.run(CausalConvolution{.y = y.as(B, N / B, channels),
                                  .x = x.as(B, N / B, channels),
                                  .w = as_vector(w).as(channels, w.cols / channels),
                                  .state = past});
  return y;
}

Out<float, 2> convolve_backward(const Execution& e, const Matrix& w, const Out<float, 2>& dw, In<float, 2> x,
                                In<float, 2> dy) {
  const i64 N = x.shape(0), channels = x.shape(1), taps = w.cols / channels, B = e.sequences;
  const auto dx = e.arena.allocate<float>(N, channels);
  e.backend.run(CausalConvolutionBackward{.dx = dx.as(B, N / B, channels),
                                          .dw = Sum<float, 2>(dw.as(channels, taps)),
                                          .dy = dy.as(B, N / B, channels),
                                          .x = x.as(B, N / B, channels),
                                          .w = as_vector(w).as(channels, taps)});
  return dx;
}

}  // namespace sparsam
