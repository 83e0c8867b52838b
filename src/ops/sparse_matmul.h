// Products of few rows that do not read what zeros make useless: decoding with sparse activations.
//   SelectedMatmul   y_ni = x_n . w_i + b_i  where s_ni != 0, else 0        rows of w that no n selects are not read
//   SkippingMatmul   y_n  = sum_i x_ni t_i + b                              rows of t where all x_ni = 0 are not read
// t is the weight stored input by input (tensor/input_major.h). With s = f(gate) the first is the up projection and the
// second the down projection of a gated MLP (ProSparse, Song et al. 2024, arXiv 2402.13516, section 3.4); with inputs
// below a threshold set to zero the second is any projection (TEAL, Liu et al. 2024, arXiv 2408.14690). Where the
// fraction of rows that count exceeds `crossover`, SelectedMatmul reads all in their order, which is then faster. That
// changes no bit: an element's are those of Matmul with Compute::f32. SkippingMatmul adds row after row, in float32; of
// a quantised weight, the rows of 32 inputs first, whose sum is then multiplied by their scale: leaving zeros out
// changes no bit either. Where the fraction of live inputs exceeds its crossover, it is Matmul with `w`, whose sums
// have another order: that fraction must not be measured anew. No backward: not for training.
#pragma once

#include <algorithm>

#include "ops/matmul.h"
#include "tensor/input_major.h"

namespace sparsam {
namespace generic {

template <class Real>
struct SelectedMatmul {
  static constexpr const char* name = "SelectedMatmul";
  Out<Real, 2> y;         // (N, out)
  In<Real, 2> x;          // (N, in)
  Matrix w;               // (out, in)  f32, bf16, f16 or quantised
  In<Real, 1> bias = {};  // (out)      empty: none
  In<Real, 2> s;          // (N, out)
  float crossover = 1;

  static void fields(auto&& f, auto&... op) {
    f("y", op.y...), f("x", op.x...), f("w", op.w...), f("bias", op.bias...), f("s", op.s...);
    f("crossover", op.crossover...);
  }
  void validate() const {
    check_matrix(w, y.shape(1), x.shape(1), "SelectedMatmul.w");
    check_shape(y, {x.shape(0), w.rows}, "SelectedMatmul.y");
    check_shape(s, y.shape(), "SelectedMatmul.s");
    check_optional_shape(bias, {w.rows}, "SelectedMatmul.bias");
  }
  i64 flops() const { return 2 * (s.size() - std::count(s.begin(), s.end(), Real(0))) * w.cols; }
};

template <class Real>
struct SkippingMatmul {
  static constexpr const char* name = "SkippingMatmul";
  Out<Real, 2> y;         // (N, out)
  In<Real, 2> x;          // (N, in)
  InputMajor t;           // (in, out)
  In<Real, 1> bias = {};  // (out)      empty: none
  Matrix w = {};          // (out, in)  the same weight; wanted where crossover < 1
  float crossover = 1;

  static void fields(auto&& f, auto&... op) {
    f("y", op.y...), f("x", op.x...), f("t", op.t...), f("bias", op.bias...), f("w", op.w...);
    f("crossover", op.crossover...);
  }
  void validate() const {
    check(!t.empty() && t.rows == x.shape(1), "SkippingMatmul.t has {} inputs, expected {}", t.rows, x.shape(1));
    check_shape(y, {x.shape(0), t.cols}, "SkippingMatmul.y");
    check_optional_shape(bias, {t.cols}, "SkippingMatmul.bias");
    if (crossover < 1) check_matrix(w, t.cols, t.rows, "SkippingMatmul.w");
  }
  i64 flops() const { return 2 * (x.size() - std::count(x.begin(), x.end(), Real(0))) * t.cols; }
};

}  // namespace generic

using SelectedMatmul = generic::SelectedMatmul<float>;
using SkippingMatmul = generic::SkippingMatmul<float>;

}  // namespace sparsam
