// Short depthwise convolution over the past: each channel adds a mixture of its own last K inputs (as in Mamba and its
// successors, Gu & Dao 2023, arXiv 2312.00752, whose weight here is w + [i = K - 1]: zeros pass the input on).
//   forward    y_tc = x_tc + sum_i w_ci x_{t-K+1+i, c}     i = 0 ... K - 1; before the first position: the state, or 0
//   state      the last K - 1 inputs, read first and then replaced: what a session carries from piece to piece
//   backward   dx_tc = dy_tc + sum_i w_ci dy_{t+K-1-i, c}  dw_ci += sum_t dy_tc x_{t-K+1+i, c}      (without a state)
// And its plainest relative, a delay by W positions:
//   forward    y_t = x_{t-W}                               before the first position: the state, or `fill`
//   state      a ring of the last W inputs: that of position p in row p mod W, so that a step moves one row
//   backward   dx_t = dy_{t+W}, 0 at the last W            (without a state)
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

template <class Real>
struct Delay {
  static constexpr const char* name = "Delay";
  Out<Real, 3> y;             // (B, T, C)  not x
  In<Real, 3> x;              // (B, T, C)
  i64 delay;                  // W
  Real fill = 0;              // without a state
  InOut<Real, 3> state = {};  // (B, W, C)
  i64 start = 0;              // with a state: position of the first input

  static void fields(auto&& f, auto&... op) {
    f("y", op.y...), f("x", op.x...), f("delay", op.delay...), f("fill", op.fill...), f("state", op.state...);
    f("start", op.start...);
  }
  void validate() const {
    check(delay > 0 && start >= 0, "Delay of {} from position {}", delay, start);
    check_shape(y, x.shape(), "Delay.y");
    check_optional_shape(state, {x.shape(0), delay, x.shape(2)}, "Delay.state");
  }
  i64 flops() const { return 0; }
};

template <class Real>
struct DelayBackward {
  static constexpr const char* name = "DelayBackward";
  Out<Real, 3> dx;  // (B, T, C)  overwritten; not dy
  In<Real, 3> dy;
  i64 delay;

  static void fields(auto&& f, auto&... op) { f("dx", op.dx...), f("dy", op.dy...), f("delay", op.delay...); }
  void validate() const {
    check(delay > 0, "DelayBackward of {}", delay);
    check_shape(dx, dy.shape(), "DelayBackward.dx");
  }
  i64 flops() const { return 0; }
};

}  // namespace generic

using CausalConvolution = generic::CausalConvolution<float>;
using CausalConvolutionBackward = generic::CausalConvolutionBackward<float>;
using Delay = generic::Delay<float>;
using DelayBackward = generic::DelayBackward<float>;

}  // namespace sparsam
