// Conversions on Highway vectors. Included once per target: no #pragma once.
#if defined(SPARSAM_OPS_CPU_CONVERT_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SPARSAM_OPS_CPU_CONVERT_INL_H
#undef SPARSAM_OPS_CPU_CONVERT_INL_H
#else
#define SPARSAM_OPS_CPU_CONVERT_INL_H
#endif

#include <hwy/highway.h>

#include "base/types.h"
#include "tensor/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The bits of x with the upper 16 rounded to bf16; the lower 16 are meaningless.
template <class D, class V = hn::Vec<D>>
HWY_INLINE hn::Vec<hn::RebindToUnsigned<D>> rounded_to_bf16(D, V x) {
  const hn::RebindToUnsigned<D> du;
  const auto bits = hn::BitCast(du, x);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7fff)));
  const auto quiet_nan = hn::Or(bits, hn::Set(du, 0x400000));
  return hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(x)), quiet_nan, rounded);
}
template <class D, class V = hn::Vec<D>>
HWY_INLINE void store_bf16(D d, V x, u16* y) {
  const hn::RebindToSigned<D> di;
  const hn::Rebind<u16, D> d16;
  hn::StoreU(hn::DemoteTo(d16, hn::BitCast(di, hn::ShiftRight<16>(rounded_to_bf16(d, x)))), d16, y);
}

template <class D, class V = hn::Vec<D>>
HWY_INLINE void store(D d, V x, float* y) {
  hn::StoreU(x, d, y);
}

// One vector of stored numbers as float32.
template <class D>
HWY_INLINE hn::Vec<D> load(D d, const float* x) {
  return hn::LoadU(d, x);
}
struct Bf16 {
  u16 bits;
};
struct F16 {
  u16 bits;
};
template <class D>
HWY_INLINE hn::Vec<D> load(D d, const Bf16* x) {
  const hn::RebindToUnsigned<D> du;
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(du, hn::LoadU(hn::Rebind<u16, D>(), &x->bits))));
}
template <class D>
HWY_INLINE hn::Vec<D> load(D d, const F16* x) {
  const hn::Rebind<hwy::float16_t, D> d16;
  return hn::PromoteTo(d, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(x)));
}
template <class D, class V = hn::Vec<D>>
HWY_INLINE void store(D, V x, F16* y) {
  const hn::Rebind<hwy::float16_t, D> d16;
  hn::StoreU(hn::DemoteTo(d16, x), d16, reinterpret_cast<hwy::float16_t*>(y));
}
template <class D, class V = hn::Vec<D>>
HWY_INLINE void store(D d, V x, Bf16* y) {
  store_bf16(d, x, &y->bits);
}
inline void store_one(float x, float* y) { *y = x; }
inline void store_one(float x, F16* y) { y->bits = float_to_f16(x); }
inline void store_one(float x, Bf16* y) { y->bits = float_to_bf16(x); }
inline float load_one(const float* x) { return *x; }
inline float load_one(const Bf16* x) { return bf16_to_float(x->bits); }
inline float load_one(const F16* x) { return f16_to_float(x->bits); }

// Calls body(pointer) with the data as its element type.
template <class Body>
void with_elements(const void* data, DType dtype, Body&& body) {
  if (dtype == DType::bf16)
    body(static_cast<const Bf16*>(data));
  else if (dtype == DType::f16)
    body(static_cast<const F16*>(data));
  else
    body(static_cast<const float*>(data));
}

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
