// The loss of distillation on logits: cross-entropy mixed with the divergence from a teacher's predictions (Hinton,
// Vinyals and Dean 2015, arXiv 1503.02531, section 2; tau^2 keeps the two in proportion as tau changes).
//   p_n = softmax(t_n / tau)     q_n = softmax(z_n / tau)
//   forward    loss_n = (1 - w)(log sum_v exp(z_nv) - z_n,target) + w tau^2 sum_v p_nv log(p_nv / q_nv)
//                                                                         (nats; 0 where target < 0: ignored)
//   backward   dz_nv = scale ((1 - w)(softmax(z_n)_v - [v = target]) + w tau (q_nv - p_nv))
// The logits may be those of a part of the rows: who calls makes them a chunk at a time.
#pragma once

#include "tensor/view.h"

namespace sparsam {
namespace generic {

template <class Real>
struct Distillation {
  static constexpr const char* name = "Distillation";
  Out<Real, 1> loss;     // (N)
  Out<Real, 2> dz = {};  // (N, V)  empty: the loss alone; may be z
  In<Real, 2> z;         // (N, V)  the student's logits
  In<Real, 2> t;         // (N, V)  the teacher's
  In<i32, 1> targets;    // (N)     in [0, V), or negative: ignored
  Real weight;           // w, of the divergence
  Real temperature;      // tau > 0
  Real scale = 1;        // d(total loss) / d(loss_n)

  static void fields(auto&& f, auto&... op) {
    f("loss", op.loss...), f("dz", op.dz...), f("z", op.z...), f("t", op.t...), f("targets", op.targets...);
    f("weight", op.weight...), f("temperature", op.temperature...), f("scale", op.scale...);
  }
  void validate() const {
    check_shape(loss, {z.shape(0)}, "Distillation.loss");
    if (!dz.empty()) check_shape(dz, z.shape(), "Distillation.dz");
    check_shape(t, z.shape(), "Distillation.t");
    check_shape(targets, {z.shape(0)}, "Distillation.targets");
    check(temperature > Real(0), "Distillation: temperature {}", static_cast<double>(temperature));
  }
  i64 flops() const { return 12 * z.size(); }
};

}  // namespace generic

using Distillation = generic::Distillation<float>;

}  // namespace sparsam
