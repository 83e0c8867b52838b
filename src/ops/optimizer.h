// The optimizer's arithmetic: the squared norm of the gradient (for clipping) and the AdamW step.
// AdamW with decoupled weight decay (Loshchilov & Hutter 2019, arXiv 1711.05101), step t = 1, 2, ...:
//   g = gradient_scale dw      m = b1 m + (1 - b1) g      v = b2 v + (1 - b2) g^2
//   w = w - lr (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + weight_decay w)
#pragma once

#include "tensor/view.h"

namespace sparsam {
namespace generic {

// sum_i x_i^2, in double. The result is the same for any number of threads' timing, not for any number of threads.
template <class Real>
struct SquaredNorm {
  static constexpr const char* name = "SquaredNorm";
  Out<double, 1> sum;  // (1)
  In<Real, 1> x;       // (n)

  static void fields(auto&& f, auto&... op) { f("sum", op.sum...), f("x", op.x...); }
  void validate() const { check_shape(sum, {1}, "SquaredNorm.sum"); }
  i64 flops() const { return 2 * x.size(); }
};

template <class Real>
struct AdamW {
  static constexpr const char* name = "AdamW";
  InOut<Real, 1> w, m, v;  // (n)
  In<Real, 1> dw;          // (n)
  Real learning_rate, beta1, beta2, eps, weight_decay;
  Real gradient_scale;  // 1, or less where the gradient is clipped
  i64 step;             // t, from 1

  static void fields(auto&& f, auto&... op) {
    f("w", op.w...), f("m", op.m...), f("v", op.v...), f("dw", op.dw...), f("learning_rate", op.learning_rate...),
        f("beta1", op.beta1...), f("beta2", op.beta2...), f("eps", op.eps...), f("weight_decay", op.weight_decay...),
        f("gradient_scale", op.gradient_scale...), f("step", op.step...);
  }
  void validate() const {
    check_shape(m, w.shape(), "AdamW.m");
    check_shape(v, w.shape(), "AdamW.v");
    check_shape(dw, w.shape(), "AdamW.dw");
    check(step >= 1, "AdamW.step is {}, expected 1 or more", step);
  }
  i64 flops() const { return 14 * w.size(); }
};

}  // namespace generic

using SquaredNorm = generic::SquaredNorm<float>;
using AdamW = generic::AdamW<float>;

}  // namespace sparsam
