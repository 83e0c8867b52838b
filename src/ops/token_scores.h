// Token scores: the row function Theta of Pattention, O = Theta(X K^T) V, where the rows of K and V are P parameter
// tokens (TokenFormer: Wang et al. 2024, arXiv 2410.23168, section 3.1 and appendix A). The two products are Matmuls.
//   l2_gelu    N = |a|        z = tau a / (N + eps)     s = gelu(z)       as published; tau^2 = P
//              dz = ds gelu'(z)                         da = tau / (N + eps) (dz - a <a, dz> / (N (N + eps)))
//   gelu_l2    g = gelu(a)    N = |g|                   s = tau g / (N + eps)
//              dg = tau / (N + eps) (ds - g <g, ds> / (N (N + eps)))      da = dg gelu'(a)
//   softmax    N = log sum_p exp(a_p)                   s = tau^2 exp(a - N)
//              da = s (ds - <s, ds> / tau^2)
// With a mask c, which is 1 for the first `old` tokens and `mask` for the others, l2_gelu becomes (after MSG, Yao et
// al. 2023, arXiv 2305.02869):
//   N = |c a|     z = tau a / (N + eps)     s = c gelu(z)
//   dz = c ds gelu'(z)                      da = tau / (N + eps) (dz - c^2 a <a, dz> / (N (N + eps)))
// With mask = 0 the others are not there, whatever they are; with mask = 1 they are as the first.
// With `root`, whose rows are as long as the rows of all scores, l2_gelu takes N = |root|: scores in `a` that were not
// computed are 0, and others have the values that they have among all.
// gelu is the exact one (erf). The published code has no eps: rows of zeros give NaN there, zeros here. tau belongs to
// the parameters: as long as it stays, keys of zeros change nothing, and so growth by them is exact (l2_gelu, gelu_l2).
#pragma once

#include "tensor/view.h"

namespace sparsam {

enum class Theta : u8 { l2_gelu, gelu_l2, softmax };

namespace generic {

inline void check_mask(const auto& op, const char* name) {
  check(op.old >= 0 && op.old <= op.a.shape(1), "{}.old is {}, expected 0 to {}", name, op.old, op.a.shape(1));
  check(op.theta == Theta::l2_gelu || static_cast<double>(op.mask) == 1, "{}: only l2_gelu has a mask", name);
}

template <class Real>
struct TokenScores {
  static constexpr const char* name = "TokenScores";
  Out<Real, 2> s;          // (N, P)  may be a
  Out<Real, 1> norm = {};  // (N)     N of each row, kept for the backward; empty: not wanted
  In<Real, 2> a;           // (N, P)
  Real tau, eps;
  Theta theta = Theta::l2_gelu;
  i64 old = 0;
  Real mask = 1;          // of l2_gelu alone
  In<Real, 2> root = {};  // (N, R)  of l2_gelu without a mask; empty: not given, N = |a|

  static void fields(auto&& f, auto&... op) {
    f("s", op.s...), f("norm", op.norm...), f("a", op.a...), f("tau", op.tau...), f("eps", op.eps...);
    f("theta", op.theta...), f("old", op.old...), f("mask", op.mask...), f("root", op.root...);
  }
  void validate() const {
    check_shape(s, a.shape(), "TokenScores.s");
    check_mask(*this, "TokenScores");
    check_optional_shape(norm, {a.shape(0)}, "TokenScores.norm");
    if (root.empty()) return;
    check_shape(root, {a.shape(0), root.shape(1)}, "TokenScores.root");
    check(theta == Theta::l2_gelu && static_cast<double>(mask) == 1, "TokenScores.root is of l2_gelu without a mask");
  }
  i64 flops() const { return 12 * a.size(); }
};

template <class Real>
struct TokenScoresBackward {
  static constexpr const char* name = "TokenScoresBackward";
  Out<Real, 2> da;      // (N, P)  overwritten: a has no other reader; may be ds
  Out<Real, 2> s = {};  // (N, P)  the forward's result once more, so that it need not be kept; empty: not wanted
  In<Real, 2> ds, a;    // (N, P)
  In<Real, 1> norm;     // (N)
  Real tau, eps;
  Theta theta = Theta::l2_gelu;
  i64 old = 0;
  Real mask = 1;  // of l2_gelu alone

  static void fields(auto&& f, auto&... op) {
    f("da", op.da...), f("s", op.s...), f("ds", op.ds...), f("a", op.a...), f("norm", op.norm...);
    f("tau", op.tau...), f("eps", op.eps...), f("theta", op.theta...), f("old", op.old...), f("mask", op.mask...);
  }
  void validate() const {
    check_shape(da, a.shape(), "TokenScoresBackward.da");
    check_mask(*this, "TokenScoresBackward");
    if (!s.empty()) check_shape(s, a.shape(), "TokenScoresBackward.s");
    check_shape(ds, a.shape(), "TokenScoresBackward.ds");
    check_shape(norm, {a.shape(0)}, "TokenScoresBackward.norm");
  }
  i64 flops() const { return 20 * a.size(); }
};

}  // namespace generic

using TokenScores = generic::TokenScores<float>;
using TokenScoresBackward = generic::TokenScoresBackward<float>;

}  // namespace sparsam
