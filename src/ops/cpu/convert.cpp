#include "ops/cpu/convert.h"

#include <cstring>
#include <vector>

#include "base/threads.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/convert.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

#include "ops/cpu/blocks-inl.h"
#include "ops/cpu/convert-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {

// Whole blocks.
void blocks_to_float_kernel(const void* source, DType dtype, float* y, i64 n) {
  with_block(dtype, [&]<class Block>(Block) {
    blocks_to_float(static_cast<const Block*>(source), n / block_size(Block::dtype), y);
  });
}

void to_bf16_kernel(const void* source, DType dtype, u16* y, i64 n) {
  const hn::ScalableTag<float> d;
  const i64 lanes = static_cast<i64>(hn::Lanes(d));
  with_elements(source, dtype, [&](const auto* x) {
    i64 i = 0;
    for (; i + lanes <= n; i += lanes) store_bf16(d, load(d, x + i), y + i);
    for (; i < n; ++i) y[i] = float_to_bf16(load_one(x + i));
  });
}

void to_float_kernel(const void* source, DType dtype, float* y, i64 n) {
  const hn::ScalableTag<float> d;
  const i64 lanes = static_cast<i64>(hn::Lanes(d));
  with_elements(source, dtype, [&](const auto* x) {
    i64 i = 0;
    for (; i + lanes <= n; i += lanes) hn::StoreU(load(d, x + i), d, y + i);
    for (; i < n; ++i) y[i] = load_one(x + i);
  });
}

#if HWY_TARGET != HWY_SCALAR
using D = hn::ScalableTag<float>;
using Pairs = hn::Vec<hn::ScalableTag<u32>>;  // two bf16 a lane

HWY_INLINE Pairs pair_of(Pairs low, Pairs high) {
  const hn::ScalableTag<u32> du;
  return hn::Or(hn::ShiftRight<16>(low), hn::AndNot(hn::Set(du, 0xffff), high));
}
// Column by column, the values of two rows.
template <class Element>
HWY_INLINE Pairs row_pairs(const Element* x, i64 stride) {
  return pair_of(rounded_to_bf16(D(), load(D(), x)), rounded_to_bf16(D(), load(D(), x + stride)));
}
// Neighbours in a row.
template <class Element>
HWY_INLINE Pairs neighbours(const Element* x) {
  const hn::ScalableTag<u32> du;
  const Pairs a = rounded_to_bf16(D(), load(D(), x)), b = rounded_to_bf16(D(), load(D(), x + hn::Lanes(D())));
  return pair_of(hn::ConcatEven(du, b, a), hn::ConcatOdd(du, b, a));
}

// Lane i of the four vectors goes, side by side, to y + i stride (both in bytes).
HWY_INLINE void store_transposed(Pairs p0, Pairs p1, Pairs p2, Pairs p3, void* y, i64 stride) {
  const hn::ScalableTag<u32> du;
  const hn::ScalableTag<u64> d64;
  const i64 lanes = static_cast<i64>(hn::Lanes(du));
  const auto a = hn::BitCast(d64, hn::InterleaveLower(du, p0, p1)),
             b = hn::BitCast(d64, hn::InterleaveLower(du, p2, p3));
  const auto e = hn::BitCast(d64, hn::InterleaveUpper(du, p0, p1)),
             f = hn::BitCast(d64, hn::InterleaveUpper(du, p2, p3));
  HWY_ALIGN u64 columns[4 * hn::MaxLanes(d64)];
  hn::Store(hn::InterleaveLower(d64, a, b), d64, columns);
  hn::Store(hn::InterleaveUpper(d64, a, b), d64, columns + lanes / 2);
  hn::Store(hn::InterleaveLower(d64, e, f), d64, columns + lanes);
  hn::Store(hn::InterleaveUpper(d64, e, f), d64, columns + lanes + lanes / 2);
  for (i64 i = 0; i < lanes; ++i)
    std::memcpy(static_cast<std::byte*>(y) + i * stride, columns + (i % 4) * (lanes / 2) + (i / 4) * 2, 16);
}
#endif

void transpose_to_bf16_kernel(const void* source, DType dtype, i64 rows, i64 cols, i64 x_stride, u16* y, i64 y_stride) {
  with_elements(source, dtype, [&](const auto* x) {
    i64 whole_rows = 0, whole_cols = 0;
#if HWY_TARGET != HWY_SCALAR
    const i64 lanes = static_cast<i64>(hn::Lanes(D()));
    constexpr i64 line = 32;  // rows to a cache line of y
    whole_rows = rows / 8 * 8, whole_cols = cols / lanes * lanes;
    for (i64 block = 0; block < whole_rows; block += line)
      for (i64 j = 0; j < whole_cols; j += lanes)
        for (i64 i = block; i < std::min(block + line, whole_rows); i += 8) {
          const auto pair = [&](i64 row) HWY_ATTR { return row_pairs(x + (i + row) * x_stride + j, x_stride); };
          store_transposed(pair(0), pair(2), pair(4), pair(6), y + j * y_stride + i, y_stride * 2);
        }
#endif
    for (i64 i = 0; i < rows; ++i)
      for (i64 j = i < whole_rows ? whole_cols : 0; j < cols; ++j)
        y[j * y_stride + i] = float_to_bf16(load_one(x + i * x_stride + j));
  });
}

constexpr i64 panel_rows = 32;  // rows are padded to a multiple of it

// The rows [i, i + 32) of one panel, of which `columns` columns exist.
template <class Element>
void pack_block(const PanelSource& b, const Element* source, i64 i, i64 j, i64 panel, i64 columns, u16* y) {
#if HWY_TARGET != HWY_SCALAR
  if (columns == panel && i + panel_rows <= b.k) {
    const hn::ScalableTag<u32> du;
    const i64 lanes = static_cast<i64>(hn::Lanes(du)), pairs = panel_rows / 2;
    u32* out = reinterpret_cast<u32*>(y);
    if (!b.transposed) {
      for (i64 pair = 0; pair < pairs; ++pair)
        for (i64 c = 0; c < panel; c += lanes)
          hn::StoreU(row_pairs(source + (i + 2 * pair) * b.stride + j + c, b.stride), du, out + pair * panel + c);
    } else {
      for (i64 c = 0; c < panel; c += 4)
        for (i64 pair = 0; pair < pairs; pair += lanes) {
          const auto row = [&](i64 r) HWY_ATTR { return neighbours(source + (j + c + r) * b.stride + i + 2 * pair); };
          store_transposed(row(0), row(1), row(2), row(3), out + pair * panel + c, panel * 4);
        }
    }
    return;
  }
#endif
  for (i64 r = 0; r < panel_rows; ++r)
    for (i64 c = 0; c < panel; ++c) {
      const i64 row = i + r, column = j + c;
      const bool inside = row < b.k && c < columns;
      const Element* x = source + (b.transposed ? column * b.stride + row : row * b.stride + column);
      y[(r / 2 * panel + c) * 2 + r % 2] = inside ? float_to_bf16(load_one(x)) : u16{0};
    }
}

// Rows [first, last) of panels [begin, end); `first` is a multiple of 32.
void pack_panels_kernel(const PanelSource& b, i64 panel, i64 begin, i64 end, i64 first, i64 last, u16* y) {
  const i64 depth = (b.k + panel_rows - 1) / panel_rows * panel_rows;
  with_elements(b.data, b.dtype, [&](const auto* source) {
    const auto block = [&](i64 i, i64 p) {
      pack_block(b, source, i, p * panel, panel, std::min(panel, b.n - p * panel), y + (p * depth + i) * panel);
    };
    if (b.transposed) {
      for (i64 p = begin; p < end; ++p)
        for (i64 i = first; i < last; i += panel_rows) block(i, p);
    } else {
      for (i64 i = first; i < last; i += panel_rows)
        for (i64 p = begin; p < end; ++p) block(i, p);
    }
  });
}

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sparsam::cpu {
HWY_EXPORT(blocks_to_float_kernel);
HWY_EXPORT(to_bf16_kernel);
HWY_EXPORT(to_float_kernel);
HWY_EXPORT(transpose_to_bf16_kernel);
HWY_EXPORT(pack_panels_kernel);

namespace {
constexpr i64 grain = 1 << 14;

const std::byte* element(const void* x, DType dtype, i64 index) {
  return static_cast<const std::byte*>(x) + bytes_for(dtype, index);
}

// By way of float32 in pieces that stay in the cache.
void blocks_to_bf16(const void* x, DType dtype, u16* y, i64 n) {
  constexpr i64 piece = 1024;
  alignas(64) float values[piece];
  for (i64 i = 0; i < n; i += piece) {
    const i64 length = std::min(piece, n - i);
    to_float(element(x, dtype, i), dtype, values, length);
    to_bf16(values, y + i, length);
  }
}
}  // namespace

void to_bf16(const float* x, u16* y, i64 n) { HWY_DYNAMIC_DISPATCH(to_bf16_kernel)(x, DType::f32, y, n); }
void to_bf16(const void* x, DType dtype, u16* y, i64 n) {
  if (is_quantised(dtype)) return blocks_to_bf16(x, dtype, y, n);
  HWY_DYNAMIC_DISPATCH(to_bf16_kernel)(x, dtype, y, n);
}
void to_float(const void* x, DType dtype, float* y, i64 n) {
  if (is_quantised(dtype)) return HWY_DYNAMIC_DISPATCH(blocks_to_float_kernel)(x, dtype, y, n);
  HWY_DYNAMIC_DISPATCH(to_float_kernel)(x, dtype, y, n);
}

void transpose_to_bf16(const float* x, i64 rows, i64 cols, i64 x_stride, u16* y, i64 y_stride) {
  HWY_DYNAMIC_DISPATCH(transpose_to_bf16_kernel)(x, DType::f32, rows, cols, x_stride, y, y_stride);
}
void transpose_to_bf16(const u16* x, i64 rows, i64 cols, i64 x_stride, u16* y, i64 y_stride) {
  HWY_DYNAMIC_DISPATCH(transpose_to_bf16_kernel)(x, DType::bf16, rows, cols, x_stride, y, y_stride);
}

namespace {
// Each thread rounds the rows that are a panel's columns to bf16, which then are in its cache.
void pack_rows_of_blocks(const PanelSource& b, i64 panel, u16* y) {
  check(b.transposed && b.stride == b.k, "a quantised factor is packed by its rows, without gaps");
  const i64 panels = (b.n + panel - 1) / panel, depth = (b.k + 31) / 32 * 32;
  const auto kernel = HWY_DYNAMIC_DISPATCH(pack_panels_kernel);
  parallel_ranges(panels, 1, [&](int, i64 begin, i64 end) {
    std::vector<u16> rows(static_cast<size_t>(panel * b.k));
    for (i64 p = begin; p < end; ++p) {
      const i64 columns = std::min(panel, b.n - p * panel);
      to_bf16(element(b.data, b.dtype, p * panel * b.k), b.dtype, rows.data(), columns * b.k);
      kernel({rows.data(), DType::bf16, true, b.k, columns, b.k}, panel, 0, 1, 0, b.k, y + p * depth * panel);
    }
  });
}
}  // namespace

void pack_panels(const PanelSource& b, i64 panel, i64 begin, i64 end, u16* y) {
  HWY_DYNAMIC_DISPATCH(pack_panels_kernel)(b, panel, begin, end, 0, b.k, y);
}
void pack_panels_parallel(const PanelSource& b, i64 panel, u16* y) {
  if (is_quantised(b.dtype)) return pack_rows_of_blocks(b, panel, y);
  const i64 panels = (b.n + panel - 1) / panel;
  const auto kernel = HWY_DYNAMIC_DISPATCH(pack_panels_kernel);
  if (b.transposed)
    parallel_ranges(panels, 1, [&](int, i64 begin, i64 end) { kernel(b, panel, begin, end, 0, b.k, y); });
  else
    parallel_ranges(b.k, 32, [&](int, i64 first, i64 last) { kernel(b, panel, 0, panels, first, last, y); });
}

void to_bf16_parallel(const void* x, DType dtype, u16* y, i64 n) {
  parallel_ranges(n, grain,
                  [&](int, i64 begin, i64 end) { to_bf16(element(x, dtype, begin), dtype, y + begin, end - begin); });
}
void to_float_parallel(const void* x, DType dtype, float* y, i64 n) {
  parallel_ranges(n, grain,
                  [&](int, i64 begin, i64 end) { to_float(element(x, dtype, begin), dtype, y + begin, end - begin); });
}
}  // namespace sparsam::cpu
#endif
