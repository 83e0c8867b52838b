// Linear head and softmax cross-entropy in one: the logits (N, V) exist a chunk of rows at a time, never as a whole.
//   forward    z_n = x_n head^T     loss_n = log sum_v exp(z_nv) - z_n,target      (nats; 0 where target < 0: ignored)
//   backward   dz_nv = scale (softmax(z_n)_v - [v = target])     dx_n += dz_n head     dhead += sum_n dz_n^T x_n
// The backward makes the logits itself and so gives the loss too: training runs only it.
#pragma once

#include "ops/compute.h"
#include "ops/matmul.h"
#include "tensor/matrix.h"
#include "tensor/view.h"

namespace sparsam {
namespace generic {

template <class Real>
struct LinearCrossEntropy {
  static constexpr const char* name = "LinearCrossEntropy";
  Out<Real, 1> loss;   // (N)
  In<Real, 2> x;       // (N, C)
  Matrix head;         // (V, C)
  In<i32, 1> targets;  // (N)     in [0, V), or negative: ignored
  Compute compute;

  static void fields(auto&& f, auto&... op) {
    f("loss", op.loss...), f("x", op.x...), f("head", op.head...), f("targets", op.targets...),
        f("compute", op.compute...);
  }
  void validate() const {
    check_shape(loss, {x.shape(0)}, "LinearCrossEntropy.loss");
    check_shape(targets, {x.shape(0)}, "LinearCrossEntropy.targets");
    check_matrix(head, head.rows, x.shape(1), "LinearCrossEntropy.head");
  }
  i64 flops() const { return 2 * x.size() * head.rows; }
};

template <class Real>
struct LinearCrossEntropyBackward {
  static constexpr const char* name = "LinearCrossEntropyBackward";
  Out<Real, 1> loss;   // (N)
  Out<Real, 2> dx;     // (N, C)  overwritten: x has no other reader
  Sum<Real, 2> dhead;  // (V, C)
  In<Real, 2> x;       // (N, C)
  Matrix head;         // (V, C)
  In<i32, 1> targets;  // (N)
  Real scale;          // d(total loss) / d(loss_n): 1 / (tokens of the step)
  Compute compute;

  static void fields(auto&& f, auto&... op) {
    f("loss", op.loss...), f("dx", op.dx...), f("dhead", op.dhead...), f("x", op.x...), f("head", op.head...);
    f("targets", op.targets...), f("scale", op.scale...), f("compute", op.compute...);
  }
  void validate() const {
    check_shape(loss, {x.shape(0)}, "LinearCrossEntropyBackward.loss");
    check_shape(dx, x.shape(), "LinearCrossEntropyBackward.dx");
    check_shape(dhead, {head.rows, head.cols}, "LinearCrossEntropyBackward.dhead");
    check_shape(targets, {x.shape(0)}, "LinearCrossEntropyBackward.targets");
    check_matrix(head, head.rows, x.shape(1), "LinearCrossEntropyBackward.head");
  }
  i64 flops() const { return 6 * x.size() * head.rows; }
};

}  // namespace generic

using LinearCrossEntropy = generic::LinearCrossEntropy<float>;
using LinearCrossEntropyBackward = generic::LinearCrossEntropyBackward<float>;

}  // namespace sparsam
