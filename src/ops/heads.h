// Small operations on heads: a factor for each with a soft limit, a linear map for each, the mixture of two results,
// and logarithms of decays.
//   HeadScale  forward   y = s_h x,  with a cap c > 0:  y = c tanh(s_h x / c)
//              backward  m = dy (1 - (y / c)^2)  (without a cap: dy)     dx = s_h m        ds_h += sum_nd m x
//   HeadLinear forward   y_nhf = sum_e w_hfe x_nhe
//              backward  dx_nhe = sum_f w_hfe dy_nhf                     dw_hfe += sum_n dy_nhf x_nhe
//   HeadMix    forward   m_h = sigmoid(logit_h)          y = m_h a + (1 - m_h) b
//              backward  da = m_h dy     db = (1 - m_h) dy               dlogit_h += m_h (1 - m_h) sum_nd dy (a - b)
//              Of two averages whose weights sum to exp(a_lse) and exp(b_lse), with those: m = sigmoid(logit_h + a_lse
//              - b_lse), one average over both, whose weights of a are exp(logit_h) as large (arXiv 2410.10254,
//              equation 7). Then a_joint = a_lse - log m and b_joint = b_lse - log(1 - m) are the lse that a and b
//              would have had beside each other: the backward passes of a and b, given those, y and dy, need no da and
//              db.
//   LogDecay   forward   y = log sigmoid(x) / divisor                    the root of a sigmoid gate (Yang et al. 2023,
//              backward  dx = dy sigmoid(-x) / divisor                   arXiv 2312.06635, section 4.4), as logarithm
#pragma once

#include "tensor/view.h"

namespace sparsam {
namespace generic {

template <class Real>
struct HeadScale {
  static constexpr const char* name = "HeadScale";
  Out<Real, 3> y;          // (N, H, D)  may be x
  In<Real, 3> x;           // (N, H, D)
  In<Real, 1> scale = {};  // (H)  empty: 1
  Real cap = 0;            // 0: none

  static void fields(auto&& f, auto&... op) {
    f("y", op.y...), f("x", op.x...), f("scale", op.scale...), f("cap", op.cap...);
  }
  void validate() const {
    check_shape(y, x.shape(), "HeadScale.y");
    check_optional_shape(scale, {x.shape(1)}, "HeadScale.scale");
  }
  i64 flops() const { return (1 + 8 * (cap != 0)) * x.size(); }
};

template <class Real>
struct HeadScaleBackward {
  static constexpr const char* name = "HeadScaleBackward";
  Out<Real, 3> dx;           // (N, H, D)  may be dy
  Sum<Real, 1> dscale = {};  // (H)  empty: not wanted
  In<Real, 3> dy, x;         // (N, H, D)
  In<Real, 3> y = {};        // (N, H, D)  with a cap only
  In<Real, 1> scale = {};    // (H)
  Real cap = 0;

  static void fields(auto&& f, auto&... op) {
    f("dx", op.dx...), f("dscale", op.dscale...), f("dy", op.dy...), f("x", op.x...), f("y", op.y...);
    f("scale", op.scale...), f("cap", op.cap...);
  }
  void validate() const {
    check_shape(dx, x.shape(), "HeadScaleBackward.dx");
    check_shape(dy, x.shape(), "HeadScaleBackward.dy");
    if (cap != 0) check_shape(y, x.shape(), "HeadScaleBackward.y");
    check_optional_shape(scale, {x.shape(1)}, "HeadScaleBackward.scale");
    check_optional_shape(dscale, {x.shape(1)}, "HeadScaleBackward.dscale");
  }
  i64 flops() const { return 6 * x.size(); }
};

template <class Real>
struct HeadLinear {
  static constexpr const char* name = "HeadLinear";
  Out<Real, 3> y;  // (N, H, F)
  In<Real, 3> x;   // (N, H, E)
  In<Real, 3> w;   // (H, F, E)

  static void fields(auto&& f, auto&... op) { f("y", op.y...), f("x", op.x...), f("w", op.w...); }
  void validate() const {
    check_shape(w, {x.shape(1), w.shape(1), x.shape(2)}, "HeadLinear.w");
    check_shape(y, {x.shape(0), x.shape(1), w.shape(1)}, "HeadLinear.y");
  }
  i64 flops() const { return 2 * x.size() * w.shape(1); }
};

template <class Real>
struct HeadLinearBackward {
  static constexpr const char* name = "HeadLinearBackward";
  Out<Real, 3> dx;  // (N, H, E)  overwritten: x has no other reader
  Sum<Real, 3> dw;  // (H, F, E)
  In<Real, 3> dy;   // (N, H, F)
  In<Real, 3> x, w;

  static void fields(auto&& f, auto&... op) {
    f("dx", op.dx...), f("dw", op.dw...), f("dy", op.dy...), f("x", op.x...), f("w", op.w...);
  }
  void validate() const {
    check_shape(w, {x.shape(1), w.shape(1), x.shape(2)}, "HeadLinearBackward.w");
    check_shape(dw, w.shape(), "HeadLinearBackward.dw");
    check_shape(dx, x.shape(), "HeadLinearBackward.dx");
    check_shape(dy, {x.shape(0), x.shape(1), w.shape(1)}, "HeadLinearBackward.dy");
  }
  i64 flops() const { return 4 * x.size() * w.shape(1); }
};

// (B, H, T) of a (N, H, D), both or none.
template <class Real>
void check_masses(const In<Real, 3>& a, const In<Real, 3>& a_lse, const In<Real, 3>& b_lse, const char* where) {
  check_shape(b_lse, a_lse.shape(), where);
  check(a_lse.empty() || (a_lse.shape(1) == a.shape(1) && a_lse.shape(0) * a_lse.shape(2) == a.shape(0)),
        "{}: ({}, {}, {}) masses for {} rows of {} heads", where, a_lse.shape(0), a_lse.shape(1), a_lse.shape(2),
        a.shape(0), a.shape(1));
}

template <class Real>
struct HeadMix {
  static constexpr const char* name = "HeadMix";
  Out<Real, 3> y;                           // (N, H, D)  may be a or b
  In<Real, 3> a, b;                         // (N, H, D)
  In<Real, 1> logit;                        // (H)
  In<Real, 3> a_lse = {}, b_lse = {};       // (B, H, T)  B T = N; empty: the share is the logit's alone
  Out<Real, 3> a_joint = {}, b_joint = {};  // (B, H, T)  both or none; with a_lse only

  static void fields(auto&& f, auto&... op) {
    f("y", op.y...), f("a", op.a...), f("b", op.b...), f("logit", op.logit...), f("a_lse", op.a_lse...);
    f("b_lse", op.b_lse...), f("a_joint", op.a_joint...), f("b_joint", op.b_joint...);
  }
  void validate() const {
    check_shape(y, a.shape(), "HeadMix.y");
    check_shape(b, a.shape(), "HeadMix.b");
    check_shape(logit, {a.shape(1)}, "HeadMix.logit");
    check_masses(a, a_lse, b_lse, "HeadMix");
    if (!a_joint.empty() || !b_joint.empty()) {
      check_shape(a_joint, a_lse.shape(), "HeadMix.a_joint");
      check_shape(b_joint, a_lse.shape(), "HeadMix.b_joint");
    }
  }
  i64 flops() const { return 3 * a.size(); }
};

template <class Real>
struct HeadMixBackward {
  static constexpr const char* name = "HeadMixBackward";
  Out<Real, 3> da, db;                 // (N, H, D)  empty: not wanted
  Sum<Real, 1> dlogit;                 // (H)
  In<Real, 3> dy, a, b;                // (N, H, D)
  In<Real, 1> logit;                   // (H)
  In<Real, 3> a_lse = {}, b_lse = {};  // (B, H, T)  where the forward had them

  static void fields(auto&& f, auto&... op) {
    f("da", op.da...), f("db", op.db...), f("dlogit", op.dlogit...), f("dy", op.dy...), f("a", op.a...);
    f("b", op.b...), f("logit", op.logit...), f("a_lse", op.a_lse...), f("b_lse", op.b_lse...);
  }
  void validate() const {
    check_optional_shape(da, a.shape(), "HeadMixBackward.da");
    check_optional_shape(db, a.shape(), "HeadMixBackward.db");
    check_masses(a, a_lse, b_lse, "HeadMixBackward");
    check_shape(dy, a.shape(), "HeadMixBackward.dy");
    check_shape(b, a.shape(), "HeadMixBackward.b");
    check_shape(logit, {a.shape(1)}, "HeadMixBackward.logit");
    check_shape(dlogit, logit.shape(), "HeadMixBackward.dlogit");
  }
  i64 flops() const { return 5 * a.size(); }
};

template <class Real>
struct LogDecay {
  static constexpr const char* name = "LogDecay";
  Out<Real, 2> y;  // (N, C)  may be x
  In<Real, 2> x;
  Real divisor;

  static void fields(auto&& f, auto&... op) { f("y", op.y...), f("x", op.x...), f("divisor", op.divisor...); }
  void validate() const { check_shape(y, x.shape(), "LogDecay.y"); }
  i64 flops() const { return 12 * x.size(); }
};

template <class Real>
struct LogDecayBackward {
  static constexpr const char* name = "LogDecayBackward";
  Out<Real, 2> dx;  // (N, C)  may be dy
  In<Real, 2> dy, x;
  Real divisor;

  static void fields(auto&& f, auto&... op) {
    f("dx", op.dx...), f("dy", op.dy...), f("x", op.x...), f("divisor", op.divisor...);
  }
  void validate() const {
    check_shape(dx, x.shape(), "LogDecayBackward.dx");
    check_shape(dy, x.shape(), "LogDecayBackward.dy");
  }
  i64 flops() const { return 10 * x.size(); }
};

}  // namespace generic

using HeadScale = generic::HeadScale<float>;
using HeadScaleBackward = generic::HeadScaleBackward<float>;
using HeadLinear = generic::HeadLinear<float>;
using HeadLinearBackward = generic::HeadLinearBackward<float>;
using HeadMix = generic::HeadMix<float>;
using HeadMixBackward = generic::HeadMixBackward<float>;
using LogDecay = generic::LogDecay<float>;
using LogDecayBackward = generic::LogDecayBackward<float>;

}  // namespace sparsam
