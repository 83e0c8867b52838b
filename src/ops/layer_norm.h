// Layer norm: each row to zero mean and unit variance (Ba et al. 2016, arXiv 1607.06450).
//   forward    m = mean(x)   r = 1 / sqrt(mean((x - m)^2) + eps)   n = (x - m) r   y = n g + b
//   backward   dg += sum_rows dy n     db += sum_rows dy
//              dx += r (dy g - mean(dy g) - n mean(dy g n))
#pragma once

#include "tensor/view.h"

namespace sparsam {
namespace generic {

template <class Real>
struct LayerNorm {
  static constexpr const char* name = "LayerNorm";
  Out<Real, 2> y;                    // (N, C)
  Out<Real, 1> mean = {}, r = {};    // (N)     kept for the backward; empty: not wanted
  In<Real, 2> x;                     // (N, C)
  In<Real, 1> gain = {}, bias = {};  // (C)     empty: 1 and 0
  Real eps;

  static void fields(auto&& f, auto&... op) {
    f("y", op.y...), f("mean", op.mean...), f("r", op.r...), f("x", op.x...), f("gain", op.gain...),
        f("bias", op.bias...), f("eps", op.eps...);
  }
  void validate() const {
    check_shape(y, x.shape(), "LayerNorm.y");
    check_optional_shape(mean, {x.shape(0)}, "LayerNorm.mean");
    check_optional_shape(r, {x.shape(0)}, "LayerNorm.r");
    check_optional_shape(gain, {x.shape(1)}, "LayerNorm.gain");
    check_optional_shape(bias, {x.shape(1)}, "LayerNorm.bias");
  }
  i64 flops() const { return 7 * x.size(); }
};

template <class Real>
struct LayerNormBackward {
  static constexpr const char* name = "LayerNormBackward";
  Sum<Real, 2> dx;                      // (N, C)
  Sum<Real, 1> dgain = {}, dbias = {};  // (C)     empty: absent
  In<Real, 2> dy, x;                    // (N, C)
  In<Real, 1> gain = {};                // (C)     empty: 1
  In<Real, 1> mean, r;                  // (N)

  static void fields(auto&& f, auto&... op) {
    f("dx", op.dx...), f("dgain", op.dgain...), f("dbias", op.dbias...), f("dy", op.dy...), f("x", op.x...);
    f("gain", op.gain...), f("mean", op.mean...), f("r", op.r...);
  }
  void validate() const {
    check_shape(dx, x.shape(), "LayerNormBackward.dx");
    check_shape(dy, x.shape(), "LayerNormBackward.dy");
    check_shape(mean, {x.shape(0)}, "LayerNormBackward.mean");
    check_shape(r, {x.shape(0)}, "LayerNormBackward.r");
    check_optional_shape(gain, {x.shape(1)}, "LayerNormBackward.gain");
    check_optional_shape(dgain, {x.shape(1)}, "LayerNormBackward.dgain");
    check_optional_shape(dbias, {x.shape(1)}, "LayerNormBackward.dbias");
  }
  i64 flops() const { return 14 * x.size(); }
};

}  // namespace generic

using LayerNorm = generic::LayerNorm<float>;
using LayerNormBackward = generic::LayerNormBackward<float>;

}  // namespace sparsam
