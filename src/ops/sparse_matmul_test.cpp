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
  all.insert(all.end(), {{1, 300, 700, DType::bf16}, {8, 128, 257, DType::f32}, {3, 40, 2100, DType::f16}});
  for (const DType dtype : {DType::q8_0, DType::q4_0, DType::q4_k, DType::q6_k})
    all.insert(all.end(), {{1, 256, 1500, dtype}, {3, 512, 256, dtype}, {8, 256, 100, dtype}, {1, 512, 7, dtype}});
  return all;
}
std::string text(const Case& c, double live) {
  return fmt::format("({}, {}, {}) {} live {}", c.rows, c.in, c.out, name_of(c.dtype), live);
}

// A weight (out, in) by inputs.
InputMajor by_input(Operands& a, const Matrix& w) {
  const auto bytes = a.filled(u8{0}, InputMajor::bytes_for(w.dtype, w.cols, w.rows));
  return input_major(w, std::as_writable_bytes(bytes.span()));
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
      if (!InputMajor::holds(c.dtype)) continue;
      Operands a(2);
      expect_right(SkippingMatmul{.y = a.filled(nan_f, c.rows, c.out),
                                  .x = sparse(a, c.rows, c.in, live),
                                  .t = by_input(a, a.matrix(c.dtype, c.out, c.in)),
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

// Above its crossover skipping is the dense product, bit for bit; at it and below it is not.
TEST_F(SparseMatmulTest, ManyLiveInputsAreMultipliedDensely) {
  Operands a(4);
  const Matrix w = a.matrix(DType::q8_0, 70, 512);
  const InputMajor t = by_input(a, w);
  const auto x = sparse(a, 1, 512, 0.5), y = a.filled(nan_f, 1, 70), expected = a.filled(nan_f, 1, 70);
  const auto live = static_cast<float>(512 - std::count(x.begin(), x.end(), 0.0f)) / 512;
  for (const bool dense : {true, false}) {
    const SkippingMatmul op{.y = y, .x = x, .t = t, .w = w, .crossover = dense ? live - 0.001f : live};
    run_everywhere(op, [&] {
      if (dense)
        make_backend("cpu")->run(Matmul{.y = expected, .x = x, .w = w, .bias = {}, .compute = Compute::f32});
      else
        make_backend("cpu")->run(SkippingMatmul{.y = expected, .x = x, .t = t});
      for (i64 i = 0; i < y.size(); ++i) ASSERT_EQ(y.data()[i], expected.data()[i]) << dense;
    });
    expect_right(op);
  }
}

// What is zero may as well be read, for the sake of another row of x: no bit of a row's results changes.
TEST_F(SparseMatmulTest, SkippingZerosChangesNoBit) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::q8_0, DType::q4_0})
    for (const i64 rows : {2, 3, 8}) {
      Operands a(6);
      const auto x = a.normal(rows, 320), alone = a.filled(nan_f, 1, 250), together = a.filled(nan_f, rows, 250);
      const auto zeros = sparse(a, 1, 320, 0.3);
      std::copy(zeros.begin(), zeros.end(), x.data());
      const InputMajor t = by_input(a, a.matrix(dtype, 250, 320));
      const auto bias = a.normal(250);
      run_everywhere(SkippingMatmul{.y = together, .x = x, .t = t, .bias = bias}, [&] {
        make_backend("cpu")->run(SkippingMatmul{.y = alone, .x = zeros, .t = t, .bias = bias});
        for (i64 i = 0; i < alone.size(); ++i) ASSERT_EQ(alone.data()[i], together.data()[i]) << name_of(dtype);
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
  const InputMajor t{w.dtype, w.rows, w.cols, w.bytes};
  run_everywhere(SelectedMatmul{.y = y, .x = x, .w = w, .s = s}, [&] {
    for (i64 i = 0; i < 40; ++i) EXPECT_EQ(y(0, i), i % 4 ? 0 : 24);
  });
  run_everywhere(SkippingMatmul{.y = sum, .x = s, .t = t}, [&] {
    for (const float value : sum) EXPECT_EQ(value, 20);
  });
}

}  // namespace
}  // namespace sparsam
