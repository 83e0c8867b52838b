#include "ops/sparse_matmul.h"

#include "ops/cpu_test_support.h"

namespace sparsam {
namespace {

using SparseMatmulTest = CpuTest;

// Values of which about `live` are not zero.
View<float, 2> sparse(Operands& a, i64 rows, i64 cols, double live) {
  const auto values = a.normal(rows, cols);
  const i64 period = 97;
  for (i64 i = 0; i < values.size(); ++i)
    if (static_cast<double>((i * 61) % period) >= live * static_cast<double>(period)) values.data()[i] = 0;
  return values;
}

struct Case {
  i64 rows, in, out;
  DType dtype;
};
std::vector<Case> cases() {
  std::vector<Case> all;
  for (const DType dtype : stored_dtypes)
    for (const i64 n : {1, 3, 17, 64, 129}) all.push_back({1 + n % 3, n, n + 5, dtype});
  all.insert(all.end(), {{1, 300, 700, DType::bf16}, {8, 128, 257, DType::f32}, {1, 1024, 300, DType::f16}});
  for (const DType dtype : {DType::q8_0, DType::q4_0, DType::q4_k, DType::q6_k})
    all.insert(all.end(), {{1, 256, 512, dtype}, {3, 512, 256, dtype}});
  return all;
}
std::string text(const Case& c, double live) {
  return fmt::format("({}, {}, {}) {} live {}", c.rows, c.in, c.out, name_of(c.dtype), live);
}

TEST_F(SparseMatmulTest, SelectedRowsAreTheReferences) {
  for (const Case& c : cases())
    for (const double live : {0.0, 0.1, 0.5, 1.0}) {
      Operands a(1);
      expect_right(SelectedMatmul{.y = a.filled(nan_f, c.rows, c.out),
                                  .x = a.normal(c.rows, c.in),
                                  .w = a.matrix(c.dtype, c.out, c.in),
                                  .bias = c.in % 2 ? a.normal(c.out) : View<float, 1>(),
                                  .s = sparse(a, c.rows, c.out, live),
                                  .crossover = 0.7f},
                   text(c, live));
    }
}

TEST_F(SparseMatmulTest, SkippedRowsAreTheReferences) {
  for (const Case& c : cases())
    for (const double live : {0.0, 0.1, 0.5, 1.0}) {
      Operands a(2);
      expect_right(SkippingMatmul{.y = a.filled(nan_f, c.rows, c.out),
                                  .x = sparse(a, c.rows, c.in, live),
                                  .t = a.matrix(c.dtype, c.in, c.out),
                                  .bias = c.in % 2 ? a.normal(c.out) : View<float, 1>()},
                   text(c, live));
    }
}

// Neither the crossover nor what else is selected changes a bit.
TEST_F(SparseMatmulTest, SelectedRowsHaveTheBitsOfTheDenseProduct) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::q8_0, DType::q4_0, DType::q4_k})
    for (const i64 rows : {1, 2, 3, 8, 11}) {
      Operands a(5);
      const auto x = a.normal(rows, 512), s = sparse(a, rows, 70, 0.4), y = a.filled(nan_f, rows, 70);
      const auto dense = a.filled(nan_f, rows, 70);
      const auto bias = a.normal(70);
      const Matrix w = a.matrix(dtype, 70, 512);
      for (const float crossover : {0.0f, 1.0f})
        run_everywhere(Matmul{.y = dense, .x = x, .w = w, .bias = bias, .compute = Compute::f32}, [&] {
          const auto backend = make_backend("cpu");
          backend->run(SelectedMatmul{.y = y, .x = x, .w = w, .bias = bias, .s = s, .crossover = crossover});
          // Of more rows than one reading serves the dense product is another one.
          for (i64 i = 0; i < (rows > 8 ? 0 : y.size()); ++i)
            ASSERT_EQ(y.data()[i], s.data()[i] == 0 ? 0 : dense.data()[i]) << name_of(dtype) << ", rows " << rows;
        });
    }
}

// What is zero may as well be read: tiny numbers in its place, too small to show, change no bit.
TEST_F(SparseMatmulTest, SkippingZerosChangesNoBit) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::q8_0, DType::q4_0, DType::q4_k})
    for (const i64 rows : {1, 3, 8}) {
      Operands a(6);
      const auto x = sparse(a, rows, 301, 0.3), full = a.normal(rows, 301), y = a.filled(nan_f, rows, 256);
      const auto expected = a.filled(nan_f, rows, 256);
      for (i64 i = 0; i < x.size(); ++i) full.data()[i] = x.data()[i] == 0 ? 1e-40f : x.data()[i];
      const Matrix t = a.matrix(dtype, 301, 256);
      const auto bias = a.normal(256);
      run_everywhere(SkippingMatmul{.y = expected, .x = full, .t = t, .bias = bias}, [&] {
        make_backend("cpu")->run(SkippingMatmul{.y = y, .x = x, .t = t, .bias = bias});
        for (i64 i = 0; i < y.size(); ++i) ASSERT_EQ(y.data()[i], expected.data()[i]) << name_of(dtype);
      });
    }
}

// Rows that are not wanted are not read: what lies there does not matter.
TEST_F(SparseMatmulTest, WhatIsSkippedMayBeAnything) {
  Operands a(3);
  const auto w = a.matrix(DType::f32, 40, 24);
  for (i64 row = 0; row < 40; ++row)
    for (i64 c = 0; c < 24; ++c) w.set(row, c, row % 4 ? nan_f : 1.0f);
  const auto s = a.filled(0.0f, 1, 40), y = a.filled(nan_f, 1, 40), sum = a.filled(nan_f, 1, 24);
  for (i64 i = 0; i < 40; i += 4) s(0, i) = 2;
  const auto x = a.filled(1.0f, 1, 24);
  run_everywhere(SelectedMatmul{.y = y, .x = x, .w = w, .s = s}, [&] {
    for (i64 i = 0; i < 40; ++i) EXPECT_EQ(y(0, i), i % 4 ? 0 : 24);
  });
  run_everywhere(SkippingMatmul{.y = sum, .x = s, .t = w}, [&] {
    for (const float value : sum) EXPECT_EQ(value, 20);
  });
}

}  // namespace
}  // namespace sparsam
