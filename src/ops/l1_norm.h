// L1 norm of an MLP's hidden activations: the penalty of training for sparsity (ProSparse: Song et al. 2024, arXiv
// 2402.13516). The same pass counts how often each neuron is active.
//   forward    norm = sum_ni |h_ni|       active_i += #{n : h_ni != 0}
//   backward   dh_ni += scale sign(h_ni)       sign(0) = 0
#pragma once

#include "tensor/view.h"

namespace sparsam {
namespace generic {

template <class Real>
struct L1Norm {
  static constexpr const char* name = "L1Norm";
  Out<Real, 1> norm;    // (1)
  Sum<Real, 1> active;  // (F)  exact up to 2^24
  In<Real, 2> h;        // (N, F)

  static void fields(auto&& f, auto&... op) { f("norm", op.norm...), f("active", op.active...), f("h", op.h...); }
  void validate() const {
    check_shape(norm, {1}, "L1Norm.norm");
    check_shape(active, {h.shape(1)}, "L1Norm.active");
  }
  i64 flops() const { return 3 * h.size(); }
};

template <class Real>
struct L1NormBackward {
  static constexpr const char* name = "L1NormBackward";
  Sum<Real, 2> dh;  // (N, F)
  In<Real, 2> h;    // (N, F)
  Real scale;

  static void fields(auto&& f, auto&... op) { f("dh", op.dh...), f("h", op.h...), f("scale", op.scale...); }
  void validate() const { check_shape(dh, h.shape(), "L1NormBackward.dh"); }
  i64 flops() const { return 2 * h.size(); }
};

}  // namespace generic

using L1Norm = generic::L1Norm<float>;
using L1NormBackward = generic::L1NormBackward<float>;

}  // namespace sparsam
