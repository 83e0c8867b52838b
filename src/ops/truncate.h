// Truncate: neurons that contribute too little are left out, the rest pass unchanged.
//   y_ni = h_ni  where  m_ni >= threshold and m_ni is among the `keep` greatest of its row, else 0
//   m_ni = |s_ni| w_i        active_n = how many of row n pass
// With s = h and w the column norms of the down projection, m is the norm of the neuron's output and the threshold the
// sparsing law's (Luo et al. 2024, arXiv 2411.02335, section 3; CETT: Zhang et al. 2024, arXiv 2402.03804). With s =
// f(gate) and no w it is FAT-epsilon or, by `keep`, top-k. Neurons that are as great as the last one kept pass too. NaN
// passes.
#pragma once

#include "tensor/view.h"

namespace sparsam {
namespace generic {

template <class Real>
struct Truncate {
  static constexpr const char* name = "Truncate";
  Out<Real, 2> y;       // (N, F)  may be h
  Out<Real, 1> active;  // (N)
  In<Real, 2> h;        // (N, F)
  In<Real, 2> s;        // (N, F)  may be h; read before y is written
  In<Real, 1> w;        // (F)     empty: ones
  float threshold = 0;
  i64 keep = 0;  // 0: all

  static void fields(auto&& f, auto&... op) {
    f("y", op.y...), f("active", op.active...), f("h", op.h...), f("s", op.s...), f("w", op.w...);
    f("threshold", op.threshold...), f("keep", op.keep...);
  }
  void validate() const {
    check_shape(y, h.shape(), "Truncate.y");
    check_shape(s, h.shape(), "Truncate.s");
    check_shape(active, {h.shape(0)}, "Truncate.active");
    check_optional_shape(w, {h.shape(1)}, "Truncate.w");
  }
  i64 flops() const { return 2 * h.size(); }
};

}  // namespace generic

using Truncate = generic::Truncate<float>;

}  // namespace sparsam
