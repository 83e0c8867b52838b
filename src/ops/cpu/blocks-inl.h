// Quantised blocks on Highway vectors. Included once per target: no #pragma once.
#if defined(SPARSAM_OPS_CPU_BLOCKS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SPARSAM_OPS_CPU_BLOCKS_INL_H
#undef SPARSAM_OPS_CPU_BLOCKS_INL_H
#else
#define SPARSAM_OPS_CPU_BLOCKS_INL_H
#endif

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <algorithm>

#include "tensor/blocks.h"

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET != HWY_SCALAR

// A block in the order of its elements, group by group: y = scale q + base.
template <class Block>
struct Unpacked {
  static constexpr bool has_bases = requires(Block b) { b.m; }
  || requires(Block b) { b.dmin; };
  static constexpr i64 size = block_size(Block::dtype);
  static constexpr i64 group_size = size == 32 || (has_bases && Block::dtype != DType::q2_k) ? 32 : 16;
  static constexpr i64 groups = size / group_size;
  const i8* q;  // here or in the block
  alignas(64) i8 store[size];
  alignas(64) float scale[groups], base[groups];
};

using Bytes = hn::FixedTag<u8, 16>;
using ByteVector = hn::Vec<Bytes>;

HWY_INLINE float number(const Half& half) {
  const hn::CappedTag<float, 1> d;
  const hn::Rebind<hwy::float16_t, decltype(d)> d16;
  return hn::GetLane(hn::PromoteTo(d, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(&half))));
}
// to = unit s
template <i64 Count, class Byte>
HWY_INLINE void scales(const Byte* s, float unit, float* to) {
  const hn::CappedTag<float, 8> d;
  const hn::Rebind<i32, decltype(d)> di;
  const hn::Rebind<Byte, decltype(d)> d8;
  for (i64 i = 0; i < Count; i += static_cast<i64>(hn::Lanes(d)))
    hn::Store(hn::Mul(hn::Set(d, unit), hn::ConvertTo(d, hn::PromoteTo(di, hn::LoadU(d8, s + i)))), d, to + i);
}

HWY_INLINE ByteVector bytes_at(const u8* x) { return hn::LoadU(Bytes(), x); }
HWY_INLINE ByteVector low_half(ByteVector v) { return hn::And(v, hn::Set(Bytes(), 15)); }
HWY_INLINE ByteVector high_half(ByteVector v) { return hn::ShiftRight<4>(v); }
template <int Shift>
HWY_INLINE ByteVector two_bits(ByteVector v) {
  if constexpr (Shift == 6) return hn::ShiftRight<6>(v);
  return hn::And(hn::ShiftRight<Shift>(v), hn::Set(Bytes(), 3));
}
// `value` where the bit is set.
HWY_INLINE ByteVector where_bit(ByteVector v, int bit, u8 value) {
  const Bytes d;
  return hn::IfThenElseZero(hn::TestBit(v, hn::Set(d, static_cast<u8>(1 << bit))), hn::Set(d, value));
}
// 16 in the lanes of set bits, of which `bits` has 16 (and at least eight bytes follow).
HWY_INLINE ByteVector sixteens(const u8* bits) {
  return hn::IfThenElseZero(hn::LoadMaskBits(Bytes(), bits), hn::Set(Bytes(), 16));
}
HWY_INLINE void put(ByteVector q, i8* to) { hn::StoreU(q, Bytes(), reinterpret_cast<u8*>(to)); }
HWY_INLINE void put_less(ByteVector q, u8 offset, i8* to) { put(hn::Sub(q, hn::Set(Bytes(), offset)), to); }

HWY_INLINE void unpack(const BlockQ8_0& b, Unpacked<BlockQ8_0>& u) {
  u.q = b.q.data();
  u.scale[0] = number(b.d);
}
HWY_INLINE void unpack(const BlockQ4_0& b, Unpacked<BlockQ4_0>& u) {
  const ByteVector q = bytes_at(b.q.data());
  put_less(low_half(q), 8, u.store), put_less(high_half(q), 8, u.store + 16);
  u.q = u.store;
  u.scale[0] = number(b.d);
}
HWY_INLINE void unpack(const BlockQ4_1& b, Unpacked<BlockQ4_1>& u) {
  const ByteVector q = bytes_at(b.q.data());
  put(low_half(q), u.store), put(high_half(q), u.store + 16);
  u.q = u.store;
  u.scale[0] = number(b.d), u.base[0] = number(b.m);
}
HWY_INLINE void unpack(const BlockQ5_0& b, Unpacked<BlockQ5_0>& u) {
  const ByteVector q = bytes_at(b.q.data());
  put_less(hn::Or(low_half(q), sixteens(b.high.data())), 16, u.store);
  put_less(hn::Or(high_half(q), sixteens(b.high.data() + 2)), 16, u.store + 16);
  u.q = u.store;
  u.scale[0] = number(b.d);
}
HWY_INLINE void unpack(const BlockQ5_1& b, Unpacked<BlockQ5_1>& u) {
  const ByteVector q = bytes_at(b.q.data());
  put(hn::Or(low_half(q), sixteens(b.high.data())), u.store);
  put(hn::Or(high_half(q), sixteens(b.high.data() + 2)), u.store + 16);
  u.q = u.store;
  u.scale[0] = number(b.d), u.base[0] = number(b.m);
}
HWY_INLINE void unpack(const BlockIq4Nl& b, Unpacked<BlockIq4Nl>& u) {
  const ByteVector q = bytes_at(b.q.data()), values = bytes_at(reinterpret_cast<const u8*>(iq4_values.data()));
  put(hn::TableLookupBytes(values, low_half(q)), u.store);
  put(hn::TableLookupBytes(values, high_half(q)), u.store + 16);
  u.q = u.store;
  u.scale[0] = number(b.d);
}

HWY_INLINE void unpack(const BlockQ2K& b, Unpacked<BlockQ2K>& u) {
  for (i64 i = 0; i < 64; i += 16) {
    const ByteVector q = bytes_at(b.q.data() + i);
    i8* to = u.store + i / 32 * 128 + i % 32;
    put(two_bits<0>(q), to), put(two_bits<2>(q), to + 32), put(two_bits<4>(q), to + 64), put(two_bits<6>(q), to + 96);
  }
  u.q = u.store;
  alignas(16) u8 halves[2][16];
  const ByteVector s = bytes_at(b.scales.data());
  hn::Store(low_half(s), Bytes(), halves[0]), hn::Store(high_half(s), Bytes(), halves[1]);
  scales<16>(halves[0], number(b.d), u.scale), scales<16>(halves[1], -number(b.dmin), u.base);
}
HWY_INLINE void unpack(const BlockQ3K& b, Unpacked<BlockQ3K>& u) {
  for (int i = 0; i < 64; i += 16) {
    const ByteVector q = bytes_at(b.q.data() + i), high = bytes_at(b.high.data() + i % 32);
    const int bit = i / 32 * 4;
    i8* to = u.store + i / 32 * 128 + i % 32;
    put_less(hn::Or(two_bits<0>(q), where_bit(high, bit, 4)), 4, to);
    put_less(hn::Or(two_bits<2>(q), where_bit(high, bit + 1, 4)), 4, to + 32);
    put_less(hn::Or(two_bits<4>(q), where_bit(high, bit + 2, 4)), 4, to + 64);
    put_less(hn::Or(two_bits<6>(q), where_bit(high, bit + 3, 4)), 4, to + 96);
  }
  u.q = u.store;
  const std::array<i8, 16> s = q3_scales(b.scales);
  scales<16>(s.data(), number(b.d), u.scale);
}
template <class Block>
HWY_INLINE void unpack_scales(const Block& b, Unpacked<Block>& u) {
  const GroupScales s = group_scales(b.scales);
  scales<8>(s.s.data(), number(b.d), u.scale), scales<8>(s.m.data(), -number(b.dmin), u.base);
}
HWY_INLINE void unpack(const BlockQ4K& b, Unpacked<BlockQ4K>& u) {
  for (i64 i = 0; i < 128; i += 16) {
    const ByteVector q = bytes_at(b.q.data() + i);
    i8* to = u.store + i / 32 * 64 + i % 32;
    put(low_half(q), to), put(high_half(q), to + 32);
  }
  u.q = u.store;
  unpack_scales(b, u);
}
HWY_INLINE void unpack(const BlockQ5K& b, Unpacked<BlockQ5K>& u) {
  for (int i = 0; i < 128; i += 16) {
    const ByteVector q = bytes_at(b.q.data() + i), high = bytes_at(b.high.data() + i % 32);
    i8* to = u.store + i / 32 * 64 + i % 32;
    put(hn::Or(low_half(q), where_bit(high, i / 32 * 2, 16)), to);
    put(hn::Or(high_half(q), where_bit(high, i / 32 * 2 + 1, 16)), to + 32);
  }
  u.q = u.store;
  unpack_scales(b, u);
}
HWY_INLINE void unpack(const BlockQ6K& b, Unpacked<BlockQ6K>& u) {
  const auto joined = [](ByteVector low, ByteVector high) HWY_ATTR { return hn::Or(low, hn::ShiftLeft<4>(high)); };
  for (i64 half = 0; half < 2; ++half)
    for (i64 i = 0; i < 32; i += 16) {
      const ByteVector first = bytes_at(b.q.data() + half * 64 + i), second = bytes_at(b.q.data() + half * 64 + 32 + i);
      const ByteVector high = bytes_at(b.high.data() + half * 32 + i);
      i8* to = u.store + half * 128 + i;
      put_less(joined(low_half(first), two_bits<0>(high)), 32, to);
      put_less(joined(low_half(second), two_bits<2>(high)), 32, to + 32);
      put_less(joined(high_half(first), two_bits<4>(high)), 32, to + 64);
      put_less(joined(high_half(second), two_bits<6>(high)), 32, to + 96);
    }
  u.q = u.store;
  scales<16>(b.scales.data(), number(b.d), u.scale);
}

// One vector of integers as float32.
template <class D>
HWY_INLINE hn::Vec<D> integers(D d, const i8* q) {
  return hn::ConvertTo(d, hn::PromoteTo(hn::Rebind<i32, D>(), hn::LoadU(hn::Rebind<i8, D>(), q)));
}

using BlockLanes = hn::CappedTag<float, 16>;

// y = the numbers of `blocks` blocks.
template <class Block>
void blocks_to_float(const Block* b, i64 blocks, float* y) {
  const BlockLanes d;
  Unpacked<Block> u;
  for (; blocks > 0; --blocks, ++b, y += u.size) {
    unpack(*b, u);
    for (i64 g = 0; g < u.groups; ++g)
      for (i64 i = g * u.group_size; i < (g + 1) * u.group_size; i += static_cast<i64>(hn::Lanes(d))) {
        const auto scaled = hn::Mul(hn::Set(d, u.scale[g]), integers(d, u.q + i));
        if constexpr (u.has_bases)
          hn::StoreU(hn::Add(scaled, hn::Set(d, u.base[g])), d, y + i);
        else
          hn::StoreU(scaled, d, y + i);
      }
  }
}

// sum_i x_i over each group of a row of blocks with bases: sum_i (s q_i + b) x_i = s sum_i q_i x_i + b sum_i x_i.
template <class Block>
void group_sums(const float* x, i64 blocks, float* sums) {
  using U = Unpacked<Block>;
  if (!U::has_bases) return;
  const BlockLanes d;
  for (i64 g = 0; g < blocks * U::groups; ++g) {
    auto sum = hn::Zero(d);
    for (i64 i = 0; i < U::group_size; i += static_cast<i64>(hn::Lanes(d)))
      sum = hn::Add(sum, hn::LoadU(d, x + g * U::group_size + i));
    sums[g] = hn::GetLane(hn::SumOfLanes(d, sum));
  }
}

// y_r = x . w_r for R rows w of blocks; `sums` are x's group_sums, `later` the rows that will be read after them. The
// order of a sum does not depend on R.
template <int R, class Block>
HWY_INLINE void dot_blocks(const Block* const* w, const Block* const* later, i64 blocks, const float* x,
                           const float* sums, float* y) {
  using U = Unpacked<Block>;
  constexpr i64 size = static_cast<i64>(sizeof(Block)), line = 64, together = std::max<i64>(line / size, 1);
  const BlockLanes d;
  const hn::CappedTag<float, std::min<i64>(U::groups, 8)> few;
  const i64 lanes = static_cast<i64>(hn::Lanes(d));
  hn::Vec<BlockLanes> even[R], odd[R];
  hn::Vec<decltype(few)> bases[R];
  for (int r = 0; r < R; ++r) even[r] = hn::Zero(d), odd[r] = hn::Zero(d), bases[r] = hn::Zero(few);
  U u;
  for (i64 b = 0; b < blocks; ++b, x += U::size) {
    if (b % together == 0)
      for (int r = 0; r < R; ++r)
        for (i64 byte = 0; byte < size; byte += line) hwy::Prefetch(reinterpret_cast<const u8*>(later[r] + b) + byte);
    for (int r = 0; r < R; ++r) {
      unpack(w[r][b], u);
      for (i64 g = 0; g < U::groups; ++g) {
        const i64 begin = g * U::group_size;
        auto sum = hn::Mul(integers(d, u.q + begin), hn::LoadU(d, x + begin));
        for (i64 i = begin + lanes; i < begin + U::group_size; i += lanes)
          sum = hn::MulAdd(integers(d, u.q + i), hn::LoadU(d, x + i), sum);
        auto& total = (U::groups == 1 ? b : g) % 2 ? odd[r] : even[r];
        total = hn::MulAdd(hn::Set(d, u.scale[g]), sum, total);
      }
      if constexpr (U::has_bases)
        for (i64 g = 0; g < U::groups; g += static_cast<i64>(hn::Lanes(few)))
          bases[r] = hn::MulAdd(hn::Load(few, u.base + g), hn::LoadU(few, sums + b * U::groups + g), bases[r]);
    }
  }
  for (int r = 0; r < R; ++r)
    y[r] = hn::GetLane(hn::SumOfLanes(d, hn::Add(even[r], odd[r]))) + hn::GetLane(hn::SumOfLanes(few, bases[r]));
}

#else

template <class Block>
void blocks_to_float(const Block* b, i64 blocks, float* y) {
  const i64 n = blocks * block_size(Block::dtype);
  dequantize_row(Block::dtype, reinterpret_cast<const std::byte*>(b), {y, static_cast<size_t>(n)});
}
template <class Block>
void group_sums(const float*, i64, float*) {}
template <int R, class Block>
void dot_blocks(const Block* const* w, const Block* const*, i64 blocks, const float* x, const float*, float* y) {
  std::array<float, static_cast<size_t>(block_size(Block::dtype))> values;
  for (int r = 0; r < R; ++r) {
    y[r] = 0;
    for (i64 b = 0; b < blocks; ++b) {
      blocks_to_float(w[r] + b, 1, values.data());
      for (size_t i = 0; i < values.size(); ++i) y[r] += values[i] * x[static_cast<size_t>(b) * values.size() + i];
    }
  }
}

#endif

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
