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
  const V bounded = hn::IfThenElse(hn::Gt(x, hn::Set(d, 88.72283f)), infinity, y);
  return hn::IfThenElse(hn::Lt(x, hn::Set(d, -87.33654f)), hn::Zero(d), bounded);
}

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
