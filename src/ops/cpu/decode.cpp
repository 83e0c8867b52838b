#include "ops/cpu/decode.h"

#include <algorithm>
#include <cmath>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/decode.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

#include "ops/cpu/convert-inl.h"
#include "ops/cpu/loops-inl.h"
#include "ops/cpu/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {

// Four rows of the cache as floats, from row `first` on; rows after the last are the last again. Converted ones lie in
// `buffer` (4, D).
struct FourRows {
  const float *a, *b, *c, *d;
};
template <class E>
HWY_INLINE FourRows four_rows(const E* data, i64 first, i64 last, i64 size, float* buffer) {
  const auto row = [&](i64 i) HWY_ATTR {
    const E* from = data + std::min(first + i, last) * size;
    if constexpr (std::is_same_v<E, float>) {
      return from;
    } else {
      float* to = buffer + i * size;
      for_vectors(size, [&](auto d, i64 j) HWY_ATTR { hn::StoreU(load(d, from + j), d, to + j); });
      return static_cast<const float*>(to);
    }
  };
  return {row(0), row(1), row(2), row(3)};
}

// sums = scale (sum a, sum b, sum c, sum e), each over its lanes.
#if HWY_TARGET == HWY_SCALAR
HWY_INLINE void store_sums(Vector a, Vector b, Vector c, Vector e, float scale, float* sums) {
  sums[0] = scale * hn::GetLane(a), sums[1] = scale * hn::GetLane(b);
  sums[2] = scale * hn::GetLane(c), sums[3] = scale * hn::GetLane(e);
}
#else
template <class D, class V = hn::Vec<D> >
HWY_INLINE auto sum_blocks(D d, V v) {
  if constexpr (hn::MaxLanes(d) <= 4) {
    return v;
  } else {
    const hn::Half<D> half;
    return sum_blocks(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
}
HWY_INLINE void store_sums(Vector a, Vector b, Vector c, Vector e, float scale, float* sums) {
  const Lanes d;
  const Vector ac = hn::Add(hn::InterleaveLower(d, a, c), hn::InterleaveUpper(d, a, c));
  const Vector be = hn::Add(hn::InterleaveLower(d, b, e), hn::InterleaveUpper(d, b, e));
  const auto all = sum_blocks(d, hn::Add(hn::InterleaveLower(d, ac, be), hn::InterleaveUpper(d, ac, be)));
  const hn::DFromV<decltype(all)> four;
  hn::StoreU(hn::Mul(all, hn::Set(four, scale)), four, sums);
}
#endif

// scores_hu = scale q_h . k_u of keys [begin, begin + n) two heads at a time; minus infinity after them.
template <class E>
void score_keys(const DecodeSpan& t, const E* keys, i64 begin, i64 n) {
  const Lanes d;
  const i64 size = t.head_size, lanes = static_cast<i64>(hn::Lanes(d)), whole = size / lanes * lanes;
  for (i64 u = 0; u < n; u += 4) {
    const FourRows k = four_rows(keys + begin * size, u, n - 1, size, t.rows);
    for (i64 h = 0; h < t.heads; h += 2) {
      const i64 other = std::min(h + 1, t.heads - 1);
      const float *p = t.q + h * size, *q = t.q + other * size;
      Vector p0 = hn::Zero(d), p1 = p0, p2 = p0, p3 = p0, q0 = p0, q1 = p0, q2 = p0, q3 = p0;
      for (i64 i = 0; i < whole; i += lanes) {
        const Vector a = hn::LoadU(d, k.a + i), b = hn::LoadU(d, k.b + i);
        const Vector c = hn::LoadU(d, k.c + i), e = hn::LoadU(d, k.d + i), vp = hn::LoadU(d, p + i);
        p0 = hn::MulAdd(vp, a, p0), p1 = hn::MulAdd(vp, b, p1), p2 = hn::MulAdd(vp, c, p2), p3 = hn::MulAdd(vp, e, p3);
        if (other == h) continue;
        const Vector vq = hn::LoadU(d, q + i);
        q0 = hn::MulAdd(vq, a, q0), q1 = hn::MulAdd(vq, b, q1), q2 = hn::MulAdd(vq, c, q2), q3 = hn::MulAdd(vq, e, q3);
      }
      const auto finish = [&](const float* x, float* s) {
        for (i64 i = whole; i < size; ++i) {
          const float v = x[i] * t.scale;
          s[0] += v * k.a[i], s[1] += v * k.b[i], s[2] += v * k.c[i], s[3] += v * k.d[i];
        }
      };
      float* s = t.scores + h * decode_block + u;
      store_sums(p0, p1, p2, p3, t.scale, s);
      finish(p, s);
      if (other == h) continue;
      store_sums(q0, q1, q2, q3, t.scale, s + decode_block);
      finish(q, s + decode_block);
    }
  }
  for (i64 h = 0; h < t.heads; ++h)
    std::fill(t.scores + h * decode_block + n, t.scores + (h + 1) * decode_block,
              -std::numeric_limits<float>::infinity());
}

// scores -> exp(scores - largest) in place, sum updated, what was summed before rescaled.
void softmax_block(const DecodeSpan& t, i64 h, i64 n) {
  const Lanes d;
  const i64 lanes = static_cast<i64>(hn::Lanes(d));
  float *s = t.scores + h * decode_block, *values = t.value_sum + h * t.head_size;
  Vector high = hn::LoadU(d, s);
  for (i64 i = lanes; i < n; i += lanes) high = hn::Max(high, hn::LoadU(d, s + i));
  const float before = t.largest[h], largest = std::max(before, hn::GetLane(hn::MaxOfLanes(d, high)));
  Vector sum = hn::Zero(d);
  for (i64 i = 0; i < n; i += lanes) {
    const Vector e = exp(d, hn::Sub(hn::LoadU(d, s + i), hn::Set(d, largest)));
    sum = hn::Add(sum, e);
    hn::StoreU(e, d, s + i);
  }
  std::fill(s + (n + lanes - 1) / lanes * lanes, s + decode_block, 0.0f);  // the last four keys may reach there
  const float factor = std::exp(before - largest);
  t.sum[h] = t.sum[h] * factor + hn::GetLane(hn::SumOfLanes(d, sum));
  t.largest[h] = largest;
  if (factor != 1.0f)
    for_vectors(t.head_size, [&](auto dv, i64 i) HWY_ATTR {
      hn::StoreU(hn::Mul(hn::LoadU(dv, values + i), hn::Set(dv, factor)), dv, values + i);
    });
}

// value_sum_h += sum_u scores_hu v_u
template <class E>
void add_values(const DecodeSpan& t, const E* values, i64 begin, i64 n) {
  for (i64 u = 0; u < n; u += 4) {
    const FourRows v = four_rows(values + begin * t.head_size, u, n - 1, t.head_size, t.rows);
    for (i64 h = 0; h < t.heads; h += 2) {
      const bool pair = h + 1 < t.heads;
      const float *p = t.scores + h * decode_block + u, *q = pair ? p + decode_block : p;
      float *to_p = t.value_sum + h * t.head_size, *to_q = to_p + t.head_size;
      for_vectors(t.head_size, [&](auto d, i64 i) HWY_ATTR {
        const auto a = hn::LoadU(d, v.a + i), b = hn::LoadU(d, v.b + i);
        const auto c = hn::LoadU(d, v.c + i), e = hn::LoadU(d, v.d + i);
        const auto add = [&](const float* weights, float* to) HWY_ATTR {
          auto sum = hn::MulAdd(a, hn::Set(d, weights[0]), hn::LoadU(d, to));
          sum = hn::MulAdd(b, hn::Set(d, weights[1]), sum);
          sum = hn::MulAdd(c, hn::Set(d, weights[2]), sum);
          hn::StoreU(hn::MulAdd(e, hn::Set(d, weights[3]), sum), d, to);
        };
        add(p, to_p + i);
        if (pair) add(q, to_q + i);
      });
    }
  }
}

void decode_span(const DecodeSpan& t) {
  std::fill_n(t.largest, t.heads, -std::numeric_limits<float>::infinity());
  std::fill_n(t.sum, t.heads, 0.0f);
  std::fill_n(t.value_sum, t.heads * t.head_size, 0.0f);
  const auto run_blocks = [&](const auto* keys, const auto* values) HWY_ATTR {
    for (i64 begin = 0; begin < t.count; begin += decode_block) {
      const i64 n = std::min(decode_block, t.count - begin);
      score_keys(t, keys, begin, n);
      for (i64 h = 0; h < t.heads; ++h) softmax_block(t, h, n);
      add_values(t, values, begin, n);
    }
  };
  with_elements(t.keys.data, t.keys.dtype, [&](const auto* keys) HWY_ATTR {
    with_elements(t.values.data, t.values.dtype, [&](const auto* values) HWY_ATTR { run_blocks(keys, values); });
  });
}

// y = x in the cache's format.
void store_row(const float* x, i64 n, void* y, DType dtype) {
  if (dtype == DType::f32) {
    std::copy_n(x, n, static_cast<float*>(y));
  } else if (dtype == DType::bf16) {
    for_vectors(n, [&](auto d, i64 i) HWY_ATTR { store_bf16(d, hn::LoadU(d, x + i), static_cast<u16*>(y) + i); });
  } else {
    u16* to = static_cast<u16*>(y);
#if HWY_TARGET <= HWY_AVX2 || HWY_ARCH_ARM  // the conversions of others do not round to nearest
    for_vectors(n, [&](auto d, i64 i) HWY_ATTR {
      const hn::Rebind<hwy::float16_t, decltype(d)> d16;
      hn::StoreU(hn::DemoteTo(d16, hn::LoadU(d, x + i)), d16, reinterpret_cast<hwy::float16_t*>(to + i));
    });
#else
    std::transform(x, x + n, to, float_to_f16);
#endif
  }
}

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sparsam::cpu {
HWY_EXPORT(decode_span);
HWY_EXPORT(store_row);

void decode_span(const DecodeSpan& span) { HWY_DYNAMIC_DISPATCH(decode_span)(span); }
void store_row(const float* x, i64 n, void* y, DType dtype) { HWY_DYNAMIC_DISPATCH(store_row)(x, n, y, dtype); }
}  // namespace sparsam::cpu
#endif
