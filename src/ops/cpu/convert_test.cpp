#include "ops/cpu/convert.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/random.h"

namespace sparsam::cpu {
namespace {

std::vector<float> hard_values(i64 n) {
  std::vector<float> x{0.0f,
                       -0.0f,
                       1.0f,
                       3.4e38f,
                       -3.4e38f,
                       1e-45f,
                       std::numeric_limits<float>::infinity(),
                       std::numeric_limits<float>::quiet_NaN(),
                       std::bit_cast<float>(0x3f808000u),
                       std::bit_cast<float>(0x3f818000u),
                       std::bit_cast<float>(0x7f800001u),
                       65520.0f};
  Random random(3);
  while (static_cast<i64>(x.size()) < n) x.push_back(static_cast<float>(random.normal()));
  return x;
}

TEST(Convert, EqualsTheScalarConversions) {
  for (const i64 n : {12, 64, 77, 1000}) {
    const std::vector<float> x = hard_values(n);
    std::vector<u16> bf16(x.size()), f16(x.size());
    to_bf16_parallel(x.data(), DType::f32, bf16.data(), n);
    for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(bf16[i], float_to_bf16(x[i])) << x[i];
    for (size_t i = 0; i < x.size(); ++i) f16[i] = float_to_f16(x[i]);
    std::vector<float> back(x.size());
    for (const DType dtype : {DType::bf16, DType::f16}) {
      const std::vector<u16>& stored = dtype == DType::bf16 ? bf16 : f16;
      to_float_parallel(stored.data(), dtype, back.data(), n);
      for (size_t i = 0; i < x.size(); ++i) {
        const float expected = dtype == DType::bf16 ? bf16_to_float(stored[i]) : f16_to_float(stored[i]);
        if (std::isnan(expected))
          EXPECT_TRUE(std::isnan(back[i]));
        else
          EXPECT_EQ(std::bit_cast<u32>(back[i]), std::bit_cast<u32>(expected)) << expected;
      }
    }
  }
}

TEST(Convert, TransposesAnyShape) {
  for (const auto& [rows, cols] : {std::pair<i64, i64>{1, 1}, {8, 16}, {40, 33}, {37, 80}, {7, 64}}) {
    const std::vector<float> x = hard_values(rows * (cols + 2));
    std::vector<u16> y(static_cast<size_t>(cols * (rows + 1)), 7);
    transpose_to_bf16(x.data(), rows, cols, cols + 2, y.data(), rows + 1);
    for (i64 j = 0; j < cols; ++j) {
      for (i64 i = 0; i < rows; ++i)
        ASSERT_EQ(y[static_cast<size_t>(j * (rows + 1) + i)],
                  float_to_bf16(x[static_cast<size_t>(i * (cols + 2) + j)]));
      EXPECT_EQ(y[static_cast<size_t>(j * (rows + 1) + rows)], 7) << "written beyond the row";
    }
  }
}

TEST(Convert, PacksPanels) {
  constexpr i64 panel = 64;
  for (const auto& [k, n] : {std::pair<i64, i64>{32, 64}, {64, 128}, {70, 130}, {3, 5}})
    for (const bool transposed : {false, true}) {
      const i64 stride = (transposed ? k : n) + 3, depth = (k + 31) / 32 * 32, width = (n + panel - 1) / panel * panel;
      const std::vector<float> x = hard_values(stride * (transposed ? n : k));
      std::vector<u16> y(static_cast<size_t>(depth * width), 7);
      pack_panels_parallel({x.data(), DType::f32, transposed, k, n, stride}, panel, y.data());
      for (i64 i = 0; i < depth; ++i)
        for (i64 j = 0; j < width; ++j) {
          const size_t source = static_cast<size_t>(transposed ? j * stride + i : i * stride + j);
          const size_t place = static_cast<size_t>(((j / panel * depth / 2 + i / 2) * panel + j % panel) * 2 + i % 2);
          ASSERT_EQ(y[place], i < k && j < n ? float_to_bf16(x[source]) : 0) << i << ", " << j;
        }
    }
}

}  // namespace
}  // namespace sparsam::cpu
