#include "ops/cpu/gemm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/random.h"
#include "base/threads.h"

namespace sparsam::cpu {
namespace {

// A factor of random values in either storage order, with padding beyond the rows, and the same values in double.
struct Factor {
  i64 rows, cols, row_stride, col_stride;
  DType dtype;
  std::vector<float> f32;
  std::vector<u16> bf16;

  Factor(i64 rows, i64 cols, DType dtype, bool transposed, i64 padding, Random& random)
      : rows(rows),
        cols(cols),
        row_stride(transposed ? 1 : cols + padding),
        col_stride(transposed ? rows + padding : 1),
        dtype(dtype),
        f32(static_cast<size_t>((rows + padding) * (cols + padding))),
        bf16(f32.size()) {
    for (size_t i = 0; i < f32.size(); ++i) {
      f32[i] = static_cast<float>(random.normal());
      bf16[i] = float_to_bf16(f32[i]);
      if (dtype == DType::bf16) f32[i] = bf16_to_float(bf16[i]);
    }
  }
  double at(i64 i, i64 j) const { return f32[static_cast<size_t>(i * row_stride + j * col_stride)]; }
  GemmOperand operand() const {
    return {dtype == DType::f32 ? static_cast<const void*>(f32.data()) : bf16.data(), dtype, row_stride, col_stride};
  }
};

// Every sum of k products, in any order and in float32, is within k eps sum |a b| of the exact one.
void expect_product(const Factor& a, const Factor& b, const std::vector<float>& c, i64 c_stride, double addend) {
  for (i64 i = 0; i < a.rows; ++i)
    for (i64 j = 0; j < b.cols; ++j) {
      double sum = addend, magnitude = std::abs(addend);
      for (i64 k = 0; k < a.cols; ++k) sum += a.at(i, k) * b.at(k, j), magnitude += std::abs(a.at(i, k) * b.at(k, j));
      const double bound = static_cast<double>(a.cols + 2) * std::numeric_limits<float>::epsilon() / 2 * magnitude;
      ASSERT_NEAR(c[static_cast<size_t>(i * c_stride + j)], sum, bound)
          << i << ", " << j << " of " << a.rows << " x " << a.cols << " x " << b.cols;
    }
}

struct Case {
  i64 m, n, k;
};
constexpr Case cases[] = {{1, 1, 1}, {3, 5, 7}, {64, 48, 32}, {33, 65, 129}, {16, 257, 100}, {130, 70, 66}};

TEST(Gemm, EqualsTheExactProductWithinTheRoundingOfItsSums) {
  Random random(1);
  GemmCache cache;
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const Case& s : cases)
      for (int layout = 0; layout < 8; ++layout) {
        const Factor a(s.m, s.k, dtype, layout & 1, layout & 4 ? 3 : 0, random);
        const Factor b(s.k, s.n, dtype, layout & 2, layout & 4 ? 5 : 0, random);
        const i64 stride = s.n + (layout & 4 ? 2 : 0);
        std::vector<float> c(static_cast<size_t>(s.m * stride), 9.0f);
        gemm({.m = s.m, .n = s.n, .k = s.k, .a = a.operand(), .b = b.operand(), .c = c.data(), .c_stride = stride},
             cache);
        expect_product(a, b, c, stride, 0.0);
        c.assign(c.size(), 2.0f);
        gemm({.m = s.m,
              .n = s.n,
              .k = s.k,
              .a = a.operand(),
              .b = b.operand(),
              .c = c.data(),
              .c_stride = stride,
              .accumulate = true},
             cache);
        expect_product(a, b, c, stride, 2.0);
        EXPECT_EQ(stride > s.n ? c[static_cast<size_t>(s.n)] : 2.0f, 2.0f) << "written beyond the row";
      }
}

TEST(Gemm, APackedFactorGivesTheSameProductForAnyRows) {
  Random random(3);
  GemmCache cache;
  Arena arena;
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const Case& s : cases)
      for (const bool transposed : {false, true}) {
        const Factor a(s.m, s.k, dtype, false, 0, random), b(s.k, s.n, dtype, transposed, 0, random);
        GemmOperand source = b.operand();
        if (transposed) source.data = b.f32.data(), source.dtype = DType::f32;  // rounded on the way
        const GemmOperand packed = pack(source, s.k, s.n, dtype, arena, cache);
        std::vector<float> c(static_cast<size_t>(s.m * s.n)), bias(static_cast<size_t>(s.n), 0.5f);
        gemm({.m = s.m,
              .n = s.n,
              .k = s.k,
              .a = a.operand(),
              .b = packed,
              .c = c.data(),
              .c_stride = s.n,
              .bias = bias.data()},
             cache);
        expect_product(a, b, c, s.n, 0.5);
      }
}

TEST(Gemm, InsideAParallelRegionEveryThreadComputesItsOwn) {
  Random random(2);
  GemmCache cache;
  const Factor a(40, 96, DType::bf16, false, 0, random), b(96, 24, DType::bf16, true, 0, random);
  constexpr i64 copies = 64;
  std::vector<std::vector<float>> c(copies, std::vector<float>(40 * 24));
  parallel_dynamic(copies, [&](int, i64 i) {
    gemm({.m = 40,
          .n = 24,
          .k = 96,
          .a = a.operand(),
          .b = b.operand(),
          .c = c[static_cast<size_t>(i)].data(),
          .c_stride = 24},
         cache);
  });
  expect_product(a, b, c[0], 24, 0.0);
  for (const auto& other : c) EXPECT_EQ(other, c[0]);
}

}  // namespace
}  // namespace sparsam::cpu
