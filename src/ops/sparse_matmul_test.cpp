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
                                  .s = sparse(a, c.rows, c.out, live)},
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

// Where nearly all counts, the untransposed weight is read: here another one, to see it.
TEST_F(SparseMatmulTest, ADenseInputReadsTheWeightInOrder) {
  Operands a(5);
  const auto t = a.matrix(DType::f32, 40, 24), w = a.matrix(DType::f32, 24, 40);
  const auto x = a.normal(1, 40), y = a.filled(nan_f, 1, 24), expected = a.filled(nan_f, 1, 24);
  const auto expect = [&](const Op& op) {
    run_reference(op);
    run_everywhere(SkippingMatmul{.y = y, .x = x, .t = t, .w = w}, [&] {
      for (i64 j = 0; j < 24; ++j) EXPECT_NEAR(y(0, j), expected(0, j), 1e-4);
    });
  };
  expect(Matmul{.y = expected, .x = x, .w = w, .compute = Compute::f32});
  for (i64 i = 0; i < 20; ++i) x(0, 2 * i) = 0;
  expect(SkippingMatmul{.y = expected, .x = x, .t = t});
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
