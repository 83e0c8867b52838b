// Elementary functions on Highway vectors, for the kernels of this folder. Included once per target: no #pragma once.
#if defined(SPARSAM_OPS_CPU_MATH_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SPARSAM_OPS_CPU_MATH_INL_H
#undef SPARSAM_OPS_CPU_MATH_INL_H
#else
#define SPARSAM_OPS_CPU_MATH_INL_H
#endif

#include <hwy/highway.h>

#include <limits>

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// e^x in float32, relative error below 2^-23.4 where the result is a normal number; 0 below,
// infinity above, NaN for NaN. x = n ln 2 + r with |r| <= ln 2 / 2, and Cephes' polynomial (Moshier 1984) for e^r.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V exp(D d, V x) {
  const hn::RebindToSigned<D> di;
  const V shift = hn::Set(d, 12582912.0f);                                   // 1.5 2^23: its sums are integers
  const V shifted = hn::MulAdd(x, hn::Set(d, 1.44269504088896341f), shift);  // n in the low bits
  const V n = hn::Sub(shifted, shift);
  V r = hn::NegMulAdd(n, hn::Set(d, 0.693359375f), x);  // ln 2 in two parts, the first exact
  r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4f), r);
  V p = hn::MulAdd(r, hn::Set(d, 1.9875691500e-4f), hn::Set(d, 1.3981999507e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 8.3334519073e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 4.1665795894e-2f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.6666665459e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 5.0000001201e-1f));
  p = hn::Add(hn::MulAdd(hn::Mul(r, r), p, r), hn::Set(d, 1.0f));
  // Times 2^n: n is added to the exponent.
  const V y = hn::BitCast(d, hn::Add(hn::BitCast(di, p), hn::ShiftLeft<23>(hn::BitCast(di, shifted))));
  const V infinity = hn::Set(d, std::numeric_limits<float>::infinity());
  const V bounded = hn::IfThenElse(hn::Le(x, hn::Set(d, 88.72283f)), y, hn::Add(x, infinity));  // NaN stays NaN
  return hn::IfThenElse(hn::Lt(x, hn::Set(d, -87.33654f)), hn::Zero(d), bounded);
}

// s = 1 / (1 + e^-x), and `rest` = 1 - s with all its digits: relative errors below 2^-22 where the result is a normal
// number; s is 0 below -88.7.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V sigmoid(D d, V x, V& rest) {
  const V one = hn::Set(d, 1.0f), e = exp(d, hn::Neg(x)), s = hn::Div(one, hn::Add(one, e));
  rest = hn::IfThenElse(hn::Lt(e, one), hn::Mul(e, s), hn::Sub(one, s));
  return s;
}

// The standard normal distribution: `cdf` = (1 + erf(x / sqrt 2)) / 2 and `density` = e^(-x^2 / 2) / sqrt(2 pi).
// With a = |x|: cdf(-a) = e^(-a^2 / 2) Q(a), where (a + 4) Q(a) is smooth: the minimax polynomial in (a - 4) / (a + 4).
// The left tail so keeps its digits. Relative errors below 2^-21 where the result is a normal number; without fused
// multiply-add 2^-24 x^2 more.
template <class D, class V = hn::Vec<D>>
HWY_INLINE void normal_distribution(D d, V x, V& cdf, V& density) {
  const V one = hn::Set(d, 1.0f), four = hn::Set(d, 4.0f), limit = hn::Set(d, 15.0f);  // e^(-15^2 / 2) is 0
  V a = hn::Abs(x);
  a = hn::IfThenElse(hn::Gt(a, limit), limit, a);
  const V half_a = hn::Mul(a, hn::Set(d, 0.5f)), square = hn::Mul(half_a, a);
  const V lost = hn::MulSub(half_a, a, square);  // what rounding took from the square
  const V e = exp(d, hn::Neg(square)), bell = hn::NegMulAdd(e, lost, e);
  const V t = hn::Div(one, hn::Add(a, four)), q = hn::Mul(hn::Sub(a, four), t);
  V p = hn::MulAdd(hn::Set(d, -0.0001342554169241339f), q, hn::Set(d, 0.0001745721383485943f));
  p = hn::MulAdd(p, q, hn::Set(d, 0.0015684361569583416f));
  p = hn::MulAdd(p, q, hn::Set(d, -0.0035101398825645447f));
  p = hn::MulAdd(p, q, hn::Set(d, -0.0075240065343678f));
  p = hn::MulAdd(p, q, hn::Set(d, 0.06040346994996071f));
  p = hn::MulAdd(p, q, hn::Set(d, -0.1865236610174179f));
  p = hn::MulAdd(p, q, hn::Set(d, 0.38713690638542175f));
  p = hn::MulAdd(p, q, hn::Set(d, -0.6078965663909912f));
  p = hn::MulAdd(p, q, hn::Set(d, 0.7552851438522339f));
  const V tail = hn::Mul(hn::Mul(p, t), bell);
  cdf = hn::IfThenElse(hn::Lt(x, hn::Zero(d)), tail, hn::Sub(one, tail));
  density = hn::Mul(bell, hn::Set(d, 0.398942280f));
}

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
