// Matmul: rows times a stored weight, plus a bias. The weight is (out, in), as PyTorch's Linear stores it.
//   forward    y   = x w^T + b
//   backward   dx += dy w              dw += dy^T x              db += sum_rows dy
#pragma once

#include "ops/compute.h"
#include "tensor/matrix.h"
#include "tensor/view.h"

namespace sparsam {

inline void check_matrix(const Matrix& m, i64 rows, i64 cols, const char* what) {
  check(!m.empty() && m.rows == rows && m.cols == cols, "{} is ({}, {}), expected ({}, {})", what, m.rows, m.cols, rows,
        cols);
}

namespace generic {

template <class Real>
struct Matmul {
  static constexpr const char* name = "Matmul";
  Out<Real, 2> y;         // (N, out)
  In<Real, 2> x;          // (N, in)
  Matrix w;               // (out, in)  f32, bf16, f16 or quantised
  In<Real, 1> bias = {};  // (out)      empty: none
  Compute compute;

  static void fields(auto&& f, auto&... op) {
    f("y", op.y...), f("x", op.x...), f("w", op.w...), f("bias", op.bias...), f("compute", op.compute...);
  }
  void validate() const {
    check_matrix(w, y.shape(1), x.shape(1), "Matmul.w");
    check_shape(y, {x.shape(0), w.rows}, "Matmul.y");
    check_optional_shape(bias, {w.rows}, "Matmul.bias");
  }
  i64 flops() const { return 2 * x.shape(0) * w.rows * w.cols; }
};

template <class Real>
struct MatmulBackwardInput {
  static constexpr const char* name = "MatmulBackwardInput";
  Sum<Real, 2> dx;  // (N, in)
  In<Real, 2> dy;   // (N, out)
  Matrix w;         // (out, in)
  Compute compute;

  static void fields(auto&& f, auto&... op) {
    f("dx", op.dx...), f("dy", op.dy...), f("w", op.w...), f("compute", op.compute...);
  }
  void validate() const {
    check_matrix(w, dy.shape(1), dx.shape(1), "MatmulBackwardInput.w");
    check_shape(dx, {dy.shape(0), w.cols}, "MatmulBackwardInput.dx");
  }
  i64 flops() const { return 2 * dy.shape(0) * w.rows * w.cols; }
};

template <class Real>
struct MatmulBackwardWeight {
  static constexpr const char* name = "MatmulBackwardWeight";
  Sum<Real, 2> dw;          // (out, in)
  Sum<Real, 1> dbias = {};  // (out)     empty: no bias
  In<Real, 2> dy;           // (N, out)
  In<Real, 2> x;            // (N, in)
  Compute compute;

  static void fields(auto&& f, auto&... op) {
    f("dw", op.dw...), f("dbias", op.dbias...), f("dy", op.dy...), f("x", op.x...), f("compute", op.compute...);
  }
  void validate() const {
    check_shape(dw, {dy.shape(1), x.shape(1)}, "MatmulBackwardWeight.dw");
    check_shape(dy, {x.shape(0), dw.shape(0)}, "MatmulBackwardWeight.dy");
    check_optional_shape(dbias, {dy.shape(1)}, "MatmulBackwardWeight.dbias");
  }
  i64 flops() const { return 2 * dy.size() * x.shape(1); }
};

}  // namespace generic

using Matmul = generic::Matmul<float>;
using MatmulBackwardInput = generic::MatmulBackwardInput<float>;
using MatmulBackwardWeight = generic::MatmulBackwardWeight<float>;

}  // namespace sparsam
