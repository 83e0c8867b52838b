#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>

#include "tensor/arena.h"
#include "tensor/matrix.h"

namespace sparsam {
namespace {

TEST(DType, EveryHalfComesBack) {
  for (u32 bits = 0; bits < 0x10000; ++bits) {
    const u16 half = static_cast<u16>(bits);
    const float value = f16_to_float(half);
    if (std::isnan(value))
      EXPECT_TRUE(std::isnan(f16_to_float(float_to_f16(value)))) << bits;
    else
      ASSERT_EQ(float_to_f16(value), half) << bits;
    const float wide = bf16_to_float(half);
    if (!std::isnan(wide)) {
      ASSERT_EQ(float_to_bf16(wide), half) << bits;
    }
  }
}

TEST(DType, RoundsToNearestEven) {
  EXPECT_EQ(float_to_f16(1.0f), 0x3c00);
  EXPECT_EQ(float_to_f16(65504.0f), 0x7bff);             // the largest
  EXPECT_EQ(float_to_f16(65519.0f), 0x7bff);             // rounds down to it
  EXPECT_EQ(float_to_f16(65520.0f), 0x7c00);             // halfway: infinity
  EXPECT_EQ(float_to_f16(1.0f + 0x1p-11f), 0x3c00);      // halfway: to even
  EXPECT_EQ(float_to_f16(1.0f + 3 * 0x1p-11f), 0x3c02);  // halfway: to even
  EXPECT_EQ(float_to_f16(0x1p-24f), 0x0001);             // the smallest subnormal
  EXPECT_EQ(float_to_f16(0x1p-25f), 0x0000);             // halfway: to even
  EXPECT_EQ(float_to_f16(-0.0f), 0x8000);
  EXPECT_EQ(float_to_bf16(1.0f + 0x1p-8f), 0x3f80);  // halfway: to even
  EXPECT_EQ(float_to_bf16(1.0f + 3 * 0x1p-8f), 0x3f82);
  EXPECT_EQ(float_to_bf16(3.4e38f), 0x7f80);  // rounds up to infinity
  EXPECT_TRUE(std::isnan(bf16_to_float(float_to_bf16(std::bit_cast<float>(0x7f800001u)))));
}

TEST(View, IndexesRowMajor) {
  std::vector<float> data(24);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<float>(i);
  const Out<float, 3> view{data.data(), {2, 3, 4}};
  EXPECT_EQ(view(1, 2, 3), 23);
  EXPECT_EQ(view[1](0, 2), 14);
  EXPECT_EQ(view.slice(1, 1)(0, 0, 0), 12);
  EXPECT_EQ(view.as(6, 4)(5, 1), 21);
  EXPECT_TRUE((Out<float, 2>{}.empty()));
  EXPECT_EQ(to_string(view.shape()), "(2, 3, 4)");
}

TEST(ViewDeathTest, AWrongShapeAbortsWithBothShapes) {
  float data[6] = {};
  const Out<float, 2> view{data, {2, 3}};
  EXPECT_DEATH(check_shape(view, {3, 2}, "Matmul.x"), "Matmul.x is \\(2, 3\\), expected \\(3, 2\\)");
  EXPECT_DEATH(view.as(7), "reshape of 6 elements to 7");
}

TEST(Arena, GivesAlignedMemoryBackAndUsesItAgain) {
  Arena arena;
  const auto a = arena.allocate<float>(3, 5);
  const auto mark = arena.mark();
  const auto b = arena.zeros<float>(1000);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(a.data()) % 64, 0u);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(b.data()) % 64, 0u);
  EXPECT_EQ(b[999], 0);
  const auto large = arena.allocate<float>(20'000'000);  // a block of its own
  large[19'999'999] = 1;
  const i64 peak = arena.peak_bytes();
  arena.release(mark);
  const auto again = arena.allocate<float>(1000);
  EXPECT_EQ(again.data(), b.data());
  const auto large_again = arena.allocate<float>(20'000'000);
  EXPECT_EQ(large_again.data(), large.data());
  EXPECT_EQ(arena.peak_bytes(), peak);
}

TEST(Matrix, ReadsEveryDType) {
  const u16 halves[] = {0x3c00, 0xc000};
  const Matrix f16{DType::f16, 1, 2, std::as_bytes(std::span(halves))};
  EXPECT_EQ(f16.at(0, 0), 1);
  EXPECT_EQ(f16.at(0, 1), -2);
  u16 store[2] = {};
  const MutableMatrix bf16{DType::bf16, 1, 2, std::as_writable_bytes(std::span(store))};
  bf16.set(0, 1, 1.5f);
  EXPECT_EQ(Matrix(bf16).at(0, 1), 1.5f);
}

}  // namespace
}  // namespace sparsam
