// Mean over the tokens of each sequence, without its padding: what the head of a classifier reads.
//   forward    y_b = 1 / n_b sum_{t < n_b} x_bt
//   backward   dx_bt = dy_b / n_b for t < n_b, 0 for padding
#pragma once

#include "tensor/view.h"

namespace sparsam {
namespace generic {

template <class Real>
struct SequenceMean {
  static constexpr const char* name = "SequenceMean";
  Out<Real, 2> y;           // (B, C)
  In<Real, 3> x;            // (B, T, C)
  In<i32, 1> lengths = {};  // (B)  n, each in [1, T]; empty: T

  static void fields(auto&& f, auto&... op) { f("y", op.y...), f("x", op.x...), f("lengths", op.lengths...); }
  void validate() const {
    check_shape(y, {x.shape(0), x.shape(2)}, "SequenceMean.y");
    check_optional_shape(lengths, {x.shape(0)}, "SequenceMean.lengths");
  }
  i64 flops() const { return x.size(); }
};

template <class Real>
struct SequenceMeanBackward {
  static constexpr const char* name = "SequenceMeanBackward";
  Out<Real, 3> dx;          // (B, T, C)  overwritten: x has no other reader
  In<Real, 2> dy;           // (B, C)
  In<i32, 1> lengths = {};  // (B)

  static void fields(auto&& f, auto&... op) { f("dx", op.dx...), f("dy", op.dy...), f("lengths", op.lengths...); }
  void validate() const {
    check_shape(dy, {dx.shape(0), dx.shape(2)}, "SequenceMeanBackward.dy");
    check_optional_shape(lengths, {dx.shape(0)}, "SequenceMeanBackward.lengths");
  }
  i64 flops() const { return dx.size(); }
};

}  // namespace generic

using SequenceMean = generic::SequenceMean<float>;
using SequenceMeanBackward = generic::SequenceMeanBackward<float>;

}  // namespace sparsam
