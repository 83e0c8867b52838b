// Small operations on heads: a factor for each with a soft limit, the mixture of two results, and logarithms of decays.
//   HeadScale  forward   y = s_h x,  with a cap c > 0:  y = c tanh(s_h x / c)
//              backward  m = dy (1 - (y / c)^2)  (without a cap: dy)     dx = s_h m        ds_h += sum_nd m x
//   HeadMix    forward   m_h = sigmoid(logit_h)          y = m_h a + (1 - m_h) b
//              backward  da = m_h dy     db = (1 - m_h) dy               dlogit_h += m_h (1 - m_h) sum_nd dy (a - b)
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
struct HeadMix {
  static constexpr const char* name = "HeadMix";
  Out<Real, 3> y;     // (N, H, D)  may be a or b
  In<Real, 3> a, b;   // (N, H, D)
  In<Real, 1> logit;  // (H)

  static void fields(auto&& f, auto&... op) {
    f("y", op.y...), f("a", op.a...), f("b", op.b...), f("logit", op.logit...);
  }
  void validate() const {
    check_shape(y, a.shape(), "HeadMix.y");
    check_shape(b, a.shape(), "HeadMix.b");
    check_shape(logit, {a.shape(1)}, "HeadMix.logit");
  }
  i64 flops() const { return 3 * a.size(); }
};

template <class Real>
struct HeadMixBackward {
  static constexpr const char* name = "HeadMixBackward";
  Out<Real, 3> da, db;   // (N, H, D)
  Sum<Real, 1> dlogit;   // (H)
  In<Real, 3> dy, a, b;  // (N, H, D)
  In<Real, 1> logit;     // (H)

  static void fields(auto&& f, auto&... op) {
    f("da", op.da...), f("db", op.db...), f("dlogit", op.dlogit...), f("dy", op.dy...), f("a", op.a...);
    f("b", op.b...), f("logit", op.logit...);
  }
  void validate() const {
    check_shape(da, a.shape(), "HeadMixBackward.da");
    check_shape(db, a.shape(), "HeadMixBackward.db");
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
using HeadMix = generic::HeadMix<float>;
using HeadMixBackward = generic::HeadMixBackward<float>;
using LogDecay = generic::LogDecay<float>;
using LogDecayBackward = generic::LogDecayBackward<float>;

}  // namespace sparsam
