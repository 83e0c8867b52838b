// Add: the residual connection.
//   forward    y = a + b                (y may be a)
//   backward   both branches receive dy: the sum is made by the operations that accumulate into dx
#pragma once

#include "tensor/view.h"

namespace sparsam {
namespace generic {

template <class Real>
struct Add {
  static constexpr const char* name = "Add";
  Out<Real, 2> y;    // (N, C)
  In<Real, 2> a, b;  // (N, C)

  static void fields(auto&& f, auto&... op) { f("y", op.y...), f("a", op.a...), f("b", op.b...); }
  void validate() const {
    check_shape(y, a.shape(), "Add.y");
    check_shape(b, a.shape(), "Add.b");
  }
  i64 flops() const { return a.size(); }
};

}  // namespace generic

using Add = generic::Add<float>;

}  // namespace sparsam
