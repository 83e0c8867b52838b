// RMS norm: scales each row to unit root mean square (Zhang & Sennrich 2019, arXiv 1910.07467).
//   forward    r = 1 / sqrt(mean(x^2) + eps)            y   = x r g
//   backward   dg += sum_rows dy x r                    dx += r (dy g - x r^2 mean(dy g x))
#pragma once

#include "tensor/view.h"

namespace sparsam {
namespace generic {

template <class Real>
struct RmsNorm {
  static constexpr const char* name = "RmsNorm";
  Out<Real, 2> y;         // (N, C)
  Out<Real, 1> r = {};    // (N)     kept for the backward; empty: not wanted
  In<Real, 2> x;          // (N, C)
  In<Real, 1> gain = {};  // (C)     empty: 1
  Real eps;

  static void fields(auto&& f, auto&... op) {
    f("y", op.y...), f("r", op.r...), f("x", op.x...), f("gain", op.gain...), f("eps", op.eps...);
  }
  void validate() const {
    check_shape(y, x.shape(), "RmsNorm.y");
    check_optional_shape(r, {x.shape(0)}, "RmsNorm.r");
    check_optional_shape(gain, {x.shape(1)}, "RmsNorm.gain");
  }
  i64 flops() const { return 4 * x.size(); }
};

template <class Real>
struct RmsNormBackward {
  static constexpr const char* name = "RmsNormBackward";
  Sum<Real, 2> dx;          // (N, C)
  Sum<Real, 1> dgain = {};  // (C)     empty: no gain
  In<Real, 2> dy, x;        // (N, C)
  In<Real, 1> gain = {};    // (C)     empty: 1
  In<Real, 1> r;            // (N)

  static void fields(auto&& f, auto&... op) {
    f("dx", op.dx...), f("dgain", op.dgain...), f("dy", op.dy...), f("x", op.x...), f("gain", op.gain...),
        f("r", op.r...);
  }
  void validate() const {
    check_shape(dx, x.shape(), "RmsNormBackward.dx");
    check_shape(dy, x.shape(), "RmsNormBackward.dy");
    check_shape(r, {x.shape(0)}, "RmsNormBackward.r");
    check_optional_shape(gain, {x.shape(1)}, "RmsNormBackward.gain");
    check_optional_shape(dgain, {x.shape(1)}, "RmsNormBackward.dgain");
  }
  i64 flops() const { return 11 * x.size(); }
};

}  // namespace generic

using RmsNorm = generic::RmsNorm<float>;
using RmsNormBackward = generic::RmsNormBackward<float>;

}  // namespace sparsam
