// Scale: every element times one number: scaled embeddings, branches and logits.
//   forward    y = factor x                (y may be x)
//   backward   dx = factor dy: the same operation
#pragma once

#include "tensor/view.h"

namespace sparsam {
namespace generic {

template <class Real>
struct Scale {
  static constexpr const char* name = "Scale";
  Out<Real, 2> y;  // (N, C)
  In<Real, 2> x;   // (N, C)
  Real factor;

  static void fields(auto&& f, auto&... op) { f("y", op.y...), f("x", op.x...), f("factor", op.factor...); }
  void validate() const { check_shape(y, x.shape(), "Scale.y"); }
  i64 flops() const { return x.size(); }
};

}  // namespace generic

using Scale = generic::Scale<float>;

}  // namespace sparsam
