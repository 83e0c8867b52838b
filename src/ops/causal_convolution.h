// Short depthwise convolution over the past: each channel adds a mixture of its own last K inputs (as in Mamba and its
// successors, Gu & Dao 2023, arXiv 2312.00752, whose weight here is w + [i = K - 1]: zeros pass the input on).
//   forward    y_tc = x_tc + sum_i w_ci x_{t-K+1+i, c}     i = 0 ... K - 1; before the first position: the state, or 0
//   state      the last K - 1 inputs, read first and then replaced: what a session carries from piece to piece
//   backward   dx_tc = dy_tc + sum_i w_ci dy_{t+K-1-i, c}  dw_ci += sum_t dy_tc x_{t-K+1+i, c}      (without a state)
#pragma once

#include "tensor/view.h"

namespace sparsam {
namespace generic {

template <class Real>
struct CausalConvolution {
  static constexpr const char* name = "CausalConvolution";
  Out<Real, 3> y;             // (B, T, C)  not x
  In<Real, 3> x;              // (B, T, C)
  In<Real, 2> w;              // (C, K)     the last column meets the input of the same position
  InOut<Real, 3> state = {};  // (B, K - 1, C)  the inputs before, the latest last; empty: zeros

  static void fields(auto&& f, auto&... op) {
    f("y", op.y...), f("x", op.x...), f("w", op.w...), f("state", op.state...);
  }
  void validate() const {
    check_shape(y, x.shape(), "CausalConvolution.y");
    check_shape(w, {x.shape(2), w.shape(1)}, "CausalConvolution.w");
    check_optional_shape(state, {x.shape(0), w.shape(1) - 1, x.shape(2)}, "CausalConvolution.state");
  }
  i64 flops() const { return 2 * x.size() * w.shape(1); }
};

template <class Real>
struct CausalConvolutionBackward {
  static constexpr const char* name = "CausalConvolutionBackward";
  Out<Real, 3> dx;  // (B, T, C)  overwritten: x has no other reader
  Sum<Real, 2> dw;  // (C, K)
  In<Real, 3> dy, x;
  In<Real, 2> w;

  static void fields(auto&& f, auto&... op) {
    f("dx", op.dx...), f("dw", op.dw...), f("dy", op.dy...), f("x", op.x...), f("w", op.w...);
  }
  void validate() const {
    check_shape(dx, x.shape(), "CausalConvolutionBackward.dx");
    check_shape(dy, x.shape(), "CausalConvolutionBackward.dy");
    check_shape(w, {x.shape(2), w.shape(1)}, "CausalConvolutionBackward.w");
    check_shape(dw, w.shape(), "CausalConvolutionBackward.dw");
  }
  i64 flops() const { return 4 * x.size() * w.shape(1); }
};

}  // namespace generic

using CausalConvolution = generic::CausalConvolution<float>;
using CausalConvolutionBackward = generic::CausalConvolutionBackward<float>;

}  // namespace sparsam
