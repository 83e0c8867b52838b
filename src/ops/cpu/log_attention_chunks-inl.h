// What forward and backward of log-sum-exp attention share: one group's tokens are cut in chunks whose weights are
// taken relative to the chunk's largest key of each channel, so that no exponential overflows. Included once per
// target.
#if defined(SPARSAM_OPS_CPU_LOG_ATTENTION_CHUNKS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SPARSAM_OPS_CPU_LOG_ATTENTION_CHUNKS_INL_H_
#undef SPARSAM_OPS_CPU_LOG_ATTENTION_CHUNKS_INL_H_
#else
#define SPARSAM_OPS_CPU_LOG_ATTENTION_CHUNKS_INL_H_
#endif

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/cpu/log_attention.h"
#include "ops/cpu/math-inl.h"
#include "ops/cpu/small_product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

// body(d, i) for the whole vectors of a padded row.
template <class Body>
HWY_INLINE void for_panel(i64 padded, Body&& body) {
  const PanelTag d;
  for (i64 i = 0; i < padded; i += static_cast<i64>(hn::Lanes(d))) body(d, i);
}
HWY_INLINE float panel_dot(const float* a, const float* b, i64 padded) {
  const PanelTag d;
  PanelVector sum = hn::Zero(d);
  for_panel(padded, [&](auto, i64 i) HWY_ATTR { sum = hn::MulAdd(hn::LoadU(d, a + i), hn::LoadU(d, b + i), sum); });
  return hn::GetLane(hn::SumOfLanes(d, sum));
}
// a . b over rows without padding
HWY_INLINE float row_dot(const float* a, const float* b, i64 n) {
  const PanelTag d;
  const i64 lanes = static_cast<i64>(hn::Lanes(d));
  PanelVector sum = hn::Zero(d);
  i64 i = 0;
  for (; i + lanes <= n; i += lanes) sum = hn::MulAdd(hn::LoadU(d, a + i), hn::LoadU(d, b + i), sum);
  float total = hn::GetLane(hn::SumOfLanes(d, sum));
  for (; i < n; ++i) total += a[i] * b[i];
  return total;
}
// The sum of the first n of a row that has room for whole vectors.
HWY_INLINE float panel_sum(const float* x, i64 n) {
  const PanelTag d;
  const i64 lanes = static_cast<i64>(hn::Lanes(d));
  PanelVector sum = hn::Zero(d);
  i64 i = 0;
  for (; i + lanes <= n; i += lanes) sum = hn::Add(sum, hn::LoadU(d, x + i));
  sum = hn::Add(sum, hn::IfThenElseZero(hn::FirstN(d, static_cast<size_t>(n - i)), hn::LoadU(d, x + i)));
  return hn::GetLane(hn::SumOfLanes(d, sum));
}
// to = from (n), then `rest` up to the padding
HWY_INLINE void copy_padded(const float* from, i64 n, i64 padded, float rest, float* to) {
  const PanelTag d;
  const i64 lanes = static_cast<i64>(hn::Lanes(d));
  i64 i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(hn::LoadU(d, from + i), d, to + i);
  for (; i < n; ++i) to[i] = from[i];
  for (; i < padded; ++i) to[i] = rest;
}
template <class D>
HWY_INLINE hn::Vec<D> finite_or_zero(D d, hn::Vec<D> x) {
  return hn::IfThenElse(hn::Eq(x, hn::Set(d, minus_infinity)), hn::Zero(d), x);
}

// A chunk's keys: weights psi = exp(k - b - M) <= 1 relative to the scale M, the largest k - b of the channel so far,
// where b is the decay since the chunk's first token (whose own gate decays the state before the chunk).
struct Chunk {
  i64 begin, size;
  float* keys;    // (chunk_tokens, padded E)  psi
  float* decays;  // (chunk_tokens, padded E)  b; null without a gate
  float* factor;  // (padded E)  exp(scale before - M): what the state's numbers are multiplied with
  float* high;    // (padded E)  scratch
};

// Cuts the next chunk off and moves `scale` (padded E) to its M. A chunk ends where a channel's largest key lies more
// than greatest_rise above what its first token sees, so that no token's own sums vanish beside those of later ones.
HWY_INLINE void take_chunk(const GroupTokens& tokens, i64 begin, float* scale, Chunk& chunk) {
  const i64 most = std::min(chunk_tokens, tokens.time - begin);
  const i64 E = tokens.key_dim, padded = padded_columns(E);
  chunk.begin = begin, chunk.size = 0;
  float *base = chunk.factor, *high = chunk.high;
  for (i64 i = 0; i < most; ++i) {
    float* row = chunk.keys + i * padded;
    copy_padded(tokens.key(begin + i), E, padded, minus_infinity, row);
    if (tokens.gate) {
      float* decay = chunk.decays + i * padded;
      copy_padded(tokens.gate_of(begin + i), E, padded, 0, decay);
      for_panel(padded, [&](auto d, i64 a) HWY_ATTR {
        const auto gate = hn::LoadU(d, decay + a);
        if (i == 0) {
          hn::StoreU(hn::Add(hn::LoadU(d, scale + a), gate), d, scale + a);
          hn::StoreU(hn::Zero(d), d, decay + a);
        } else {
          const auto sum = hn::Add(hn::LoadU(d, decay - padded + a), gate);
          hn::StoreU(sum, d, decay + a);
          hn::StoreU(hn::Sub(hn::LoadU(d, row + a), sum), d, row + a);
        }
      });
    }
    if (i == 0) {
      for_panel(padded, [&](auto d, i64 a) HWY_ATTR {
        const auto largest = hn::Max(hn::LoadU(d, scale + a), hn::LoadU(d, row + a));
        hn::StoreU(largest, d, base + a), hn::StoreU(largest, d, high + a);
      });
    } else {
      const PanelTag tag;
      auto far = hn::MaskFromVec(hn::Zero(tag));
      for_panel(padded, [&](auto d, i64 a) HWY_ATTR {
        const auto rise = hn::Sub(hn::LoadU(d, row + a), hn::LoadU(d, base + a));
        far = hn::Or(far, hn::Gt(rise, hn::Set(d, greatest_rise)));
      });
      if (!hn::AllFalse(tag, far)) break;
      for_panel(padded, [&](auto d, i64 a) HWY_ATTR {
        hn::StoreU(hn::Max(hn::LoadU(d, high + a), hn::LoadU(d, row + a)), d, high + a);
      });
    }
    ++chunk.size;
  }
  for_panel(padded, [&](auto d, i64 a) HWY_ATTR {
    const auto M = hn::LoadU(d, high + a), safe = finite_or_zero(d, M);
    hn::StoreU(exp(d, hn::Sub(hn::LoadU(d, scale + a), safe)), d, chunk.factor + a);
    hn::StoreU(M, d, scale + a);
    for (i64 i = 0; i < chunk.size; ++i) {
      float* key = chunk.keys + i * padded + a;
      hn::StoreU(exp(d, hn::Sub(hn::LoadU(d, key), safe)), d, key);
    }
  });
}
// The state's scale after the chunk, to which the decays within it belong.
HWY_INLINE void leave_chunk(const Chunk& chunk, i64 padded, float* scale) {
  if (!chunk.decays) return;
  const float* decay = chunk.decays + (chunk.size - 1) * padded;
  for_panel(padded, [&](auto d, i64 a) HWY_ATTR {
    hn::StoreU(hn::Add(hn::LoadU(d, scale + a), hn::LoadU(d, decay + a)), d, scale + a);
  });
}

// Not causal: `scale` rises to the largest keys of all tokens, `factor` as a chunk's.
HWY_INLINE void see_all_keys(const GroupTokens& tokens, float* scale, float* factor) {
  const i64 E = tokens.key_dim, padded = padded_columns(E);
  std::copy_n(scale, padded, factor);
  for (i64 t = 0; t < tokens.time; ++t)
    for (i64 a = 0; a < E; ++a) scale[a] = std::max(scale[a], tokens.key(t)[a]);
  for_panel(padded, [&](auto d, i64 a) HWY_ATTR {
    hn::StoreU(exp(d, hn::Sub(hn::LoadU(d, factor + a), finite_or_zero(d, hn::LoadU(d, scale + a)))), d, factor + a);
  });
}

// The weights of a chunk whose place and whose scale M are known, and its decays where there is a gate.
HWY_INLINE void weigh_keys(const GroupTokens& tokens, const float* scale, Chunk& chunk) {
  const i64 E = tokens.key_dim, padded = padded_columns(E);
  for (i64 i = 0; i < chunk.size; ++i) {
    float *row = chunk.keys + i * padded, *decay = tokens.gate ? chunk.decays + i * padded : nullptr;
    copy_padded(tokens.key(chunk.begin + i), E, padded, minus_infinity, row);
    if (decay) copy_padded(tokens.gate_of(chunk.begin + i), E, padded, 0, decay);
    for_panel(padded, [&](auto d, i64 a) HWY_ATTR {
      auto exponent = hn::Sub(hn::LoadU(d, row + a), finite_or_zero(d, hn::LoadU(d, scale + a)));
      if (decay) {
        const auto sum = i == 0 ? hn::Zero(d) : hn::Add(hn::LoadU(d, decay - padded + a), hn::LoadU(d, decay + a));
        hn::StoreU(sum, d, decay + a);
        exponent = hn::Sub(exponent, sum);
      }
      hn::StoreU(exp(d, exponent), d, row + a);
    });
  }
}

// Asks for the rows [begin, end) of a head of x (B, T, heads, size): they lie too far apart for the processor to
// foresee. (Always inlined: of calls that only prefetch the compiler thinks that they do nothing.)
HWY_INLINE void prefetch_rows(const In<float, 4>& x, i64 b, i64 head, i64 begin, i64 end) {
  constexpr i64 line = 16;
  const i64 stride = x.shape(2) * x.shape(3), size = x.shape(3);
  const float* row = &x(b, begin, head, 0);
  for (i64 t = begin; t < end; ++t, row += stride)
    for (i64 i = 0; i < size; i += line) hwy::Prefetch(row + i);
}
// Those of a group, where there is one; in a backward pass also of dy and y.
template <class O>
HWY_INLINE void prefetch_tokens(const O& op, i64 b, i64 g, i64 begin, i64 end) {
  const LogAttentionShape s = op.shape();
  if (g >= s.groups) return;
  prefetch_rows(op.k, b, g, begin, end);
  prefetch_rows(op.v, b, g, begin, end);
  for (i64 h = g * s.heads / s.groups; h < (g + 1) * s.heads / s.groups; ++h) {
    prefetch_rows(op.q, b, h, begin, end);
    if constexpr (requires { op.dy; }) {
      prefetch_rows(op.dy, b, h, begin, end);
      prefetch_rows(op.y, b, h, begin, end);
    }
  }
}

// Values of a chunk (size, padded D), zero beyond D; in log space exp(v - shift).
HWY_INLINE void load_values(const GroupTokens& tokens, i64 begin, i64 size, const float* shift, float* values) {
  const i64 D = tokens.value_dim, padded = padded_columns(D);
  for (i64 i = 0; i < size; ++i, values += padded) {
    copy_padded(tokens.value(begin + i), D, padded, shift ? minus_infinity : 0, values);
    if (shift)
      for_panel(padded, [&](auto d, i64 b) HWY_ATTR {
        hn::StoreU(exp(d, hn::Sub(hn::LoadU(d, values + b), hn::LoadU(d, shift + b))), d, values + b);
      });
  }
}

// sums (E, padded D), mass (padded E): multiplied with a factor for each channel.
HWY_INLINE void rescale(const float* factor, i64 E, i64 padded_value, float* sums, float* mass) {
  for (i64 a = 0; a < E; ++a) {
    if (factor[a] == 1) continue;
    mass[a] *= factor[a];
    for_panel(padded_value, [&](auto d, i64 b) HWY_ATTR {
      hn::StoreU(hn::Mul(hn::LoadU(d, sums + a * padded_value + b), hn::Set(d, factor[a])), d,
                 sums + a * padded_value + b);
    });
  }
}

// sums += psi^T values, mass += sum psi
HWY_INLINE void absorb(const Chunk& chunk, const float* values, i64 E, i64 padded_value, float* sums, float* mass) {
  const i64 padded = padded_columns(E);
  multiply({.m = E,
            .n = padded_value,
            .k = chunk.size,
            .a = chunk.keys,
            .a_row = 1,
            .a_col = padded,
            .b = values,
            .b_stride = padded_value,
            .c = sums,
            .c_stride = padded_value,
            .accumulate = true});
  for (i64 i = 0; i < chunk.size; ++i)
    for_panel(padded, [&](auto d, i64 a) HWY_ATTR {
      hn::StoreU(hn::Add(hn::LoadU(d, mass + a), hn::LoadU(d, chunk.keys + i * padded + a)), d, mass + a);
    });
}

// weights (padded E) = exp(q + b + M - offset), or relative to their largest exponent where no offset is given (NaN);
// returns the offset. Of a query that sees nothing the weights are zero.
HWY_INLINE float query_weights(const float* q, i64 E, const float* decay, const float* scale, float offset,
                               float* weights) {
  const i64 padded = padded_columns(E);
  copy_padded(q, E, padded, minus_infinity, weights);
  const PanelTag tag;
  PanelVector high = hn::Set(tag, minus_infinity);
  for_panel(padded, [&](auto d, i64 a) HWY_ATTR {
    auto exponent = hn::Add(hn::LoadU(d, weights + a), hn::LoadU(d, scale + a));
    if (decay) exponent = hn::Add(exponent, hn::LoadU(d, decay + a));
    high = hn::Max(high, exponent);
    hn::StoreU(exponent, d, weights + a);
  });
  if (std::isnan(offset)) offset = hn::GetLane(hn::MaxOfLanes(tag, high));
  const float safe = offset == minus_infinity ? std::numeric_limits<float>::infinity() : offset;
  for_panel(padded, [&](auto d, i64 a) HWY_ATTR {
    hn::StoreU(exp(d, hn::Sub(hn::LoadU(d, weights + a), hn::Set(d, safe))), d, weights + a);
  });
  return offset;
}

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SPARSAM_OPS_CPU_LOG_ATTENTION_CHUNKS_INL_H_
