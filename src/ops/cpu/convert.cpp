#include "ops/cpu/convert.h"

#include <cstring>

#include "base/threads.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/convert.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

#include "ops/cpu/convert-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {

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
// Eight rows and one vector of columns: pairs of rows are packed into 32 bits, then each 128-bit block of four columns
// is transposed, so that the eight values of a column lie in one block.
HWY_INLINE void transpose_eight(const float* x, i64 x_stride, u16* y, i64 y_stride) {
  const hn::ScalableTag<float> d;
  const hn::ScalableTag<u32> du;
  const hn::ScalableTag<u64> d64;
  constexpr size_t max_lanes = hn::MaxLanes(d);
  const i64 lanes = static_cast<i64>(hn::Lanes(d));
  const auto pair = [&](i64 row) HWY_ATTR {
    const auto low = hn::ShiftRight<16>(rounded_to_bf16(d, hn::LoadU(d, x + row * x_stride)));
    const auto high = rounded_to_bf16(d, hn::LoadU(d, x + (row + 1) * x_stride));
    return hn::Or(low, hn::AndNot(hn::Set(du, 0xffff), high));
  };
  const auto p0 = pair(0), p1 = pair(2), p2 = pair(4), p3 = pair(6);
  const auto a = hn::BitCast(d64, hn::InterleaveLower(du, p0, p1)),
             b = hn::BitCast(d64, hn::InterleaveLower(du, p2, p3));
  const auto e = hn::BitCast(d64, hn::InterleaveUpper(du, p0, p1)),
             f = hn::BitCast(d64, hn::InterleaveUpper(du, p2, p3));
  HWY_ALIGN u64 columns[4 * max_lanes / 2];
  hn::Store(hn::InterleaveLower(d64, a, b), d64, columns);
  hn::Store(hn::InterleaveUpper(d64, a, b), d64, columns + lanes / 2);
  hn::Store(hn::InterleaveLower(d64, e, f), d64, columns + lanes);
  hn::Store(hn::InterleaveUpper(d64, e, f), d64, columns + lanes + lanes / 2);
  for (i64 j = 0; j < lanes; ++j)
    std::memcpy(y + j * y_stride, columns + (j % 4) * (lanes / 2) + (j / 4) * 2, 8 * sizeof(u16));
}
#endif

void transpose_to_bf16_kernel(const float* x, i64 rows, i64 cols, i64 x_stride, u16* y, i64 y_stride) {
  i64 whole_rows = 0, whole_cols = 0;
#if HWY_TARGET != HWY_SCALAR
  const i64 lanes = static_cast<i64>(hn::Lanes(hn::ScalableTag<float>()));
  constexpr i64 line = 32;  // rows to a cache line of y
  whole_rows = rows / 8 * 8, whole_cols = cols / lanes * lanes;
  for (i64 block = 0; block < whole_rows; block += line)
    for (i64 j = 0; j < whole_cols; j += lanes)
      for (i64 i = block; i < std::min(block + line, whole_rows); i += 8)
        transpose_eight(x + i * x_stride + j, x_stride, y + j * y_stride + i, y_stride);
#endif
  for (i64 i = 0; i < rows; ++i)
    for (i64 j = i < whole_rows ? whole_cols : 0; j < cols; ++j)
      y[j * y_stride + i] = float_to_bf16(x[i * x_stride + j]);
}

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sparsam::cpu {
HWY_EXPORT(to_bf16_kernel);
HWY_EXPORT(to_float_kernel);
HWY_EXPORT(transpose_to_bf16_kernel);

namespace {
constexpr i64 grain = 1 << 14;

const std::byte* element(const void* x, DType dtype, i64 index) {
  return static_cast<const std::byte*>(x) + index * size_of(dtype);
}
}  // namespace

void to_bf16(const float* x, u16* y, i64 n) { HWY_DYNAMIC_DISPATCH(to_bf16_kernel)(x, DType::f32, y, n); }
void to_bf16(const void* x, DType dtype, u16* y, i64 n) { HWY_DYNAMIC_DISPATCH(to_bf16_kernel)(x, dtype, y, n); }
void to_float(const void* x, DType dtype, float* y, i64 n) { HWY_DYNAMIC_DISPATCH(to_float_kernel)(x, dtype, y, n); }

void transpose_to_bf16(const float* x, i64 rows, i64 cols, i64 x_stride, u16* y, i64 y_stride) {
  HWY_DYNAMIC_DISPATCH(transpose_to_bf16_kernel)(x, rows, cols, x_stride, y, y_stride);
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
