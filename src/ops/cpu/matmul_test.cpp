#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/random.h"
#include "ops/cpu/cpu.h"
#include "tensor/arena.h"

namespace sparsam::cpu {
namespace {

View<float, 2> random_rows(Arena& arena, i64 rows, i64 cols, Random& random) {
  const View<float, 2> x = arena.allocate<float>(rows, cols);
  for (float& value : x) value = static_cast<float>(random.normal());
  return x;
}

Matrix stored(In<float, 2> x, DType dtype, Arena& arena) {
  const View<std::byte, 1> bytes = arena.allocate<std::byte>(x.size() * size_of(dtype));
  const MutableMatrix m{dtype, x.shape(0), x.shape(1), bytes.span()};
  for (i64 i = 0; i < m.rows; ++i)
    for (i64 j = 0; j < m.cols; ++j) m.set(i, j, x(i, j));
  return m;
}

// A sum of n products in float32, in any order, is within n eps / 2 of the sum of magnitudes; two factors rounded to
// bf16 (2^-8 each) add 2^-7 of it.
double bound(i64 n, double magnitude, Compute compute) {
  const double factors = compute == Compute::bf16 ? 0x1.02p-7 : 0.0;
  return magnitude * (factors + static_cast<double>(n + 2) * std::numeric_limits<float>::epsilon() / 2);
}

struct Case {
  i64 rows, in, out;
};
constexpr Case cases[] = {{1, 7, 5},   {2, 64, 33},   {5, 100, 64},  {8, 130, 17},
                          {9, 48, 40}, {40, 65, 130}, {300, 96, 70}, {700, 33, 48}};

TEST(CpuMatmul, ForwardOfEveryFormatAndCount) {
  Random random(1);
  Workspace workspace;
  for (const Case& s : cases)
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
      for (const Compute compute : {Compute::f32, Compute::bf16}) {
        Arena arena;
        const View<float, 2> x = random_rows(arena, s.rows, s.in, random), y = arena.allocate<float>(s.rows, s.out);
        const Matrix w = stored(random_rows(arena, s.out, s.in, random), dtype, arena);
        const View<float, 1> bias = random_rows(arena, 1, s.out, random)[0];
        run(Matmul{.y = y, .x = x, .w = w, .bias = bias, .compute = compute}, workspace);
        for (i64 n = 0; n < s.rows; ++n)
          for (i64 j = 0; j < s.out; ++j) {
            double sum = bias[j], magnitude = std::abs(sum);
            for (i64 i = 0; i < s.in; ++i)
              sum += x(n, i) * w.at<double>(j, i), magnitude += std::abs(x(n, i) * w.at<double>(j, i));
            ASSERT_NEAR(y(n, j), sum, bound(s.in, magnitude, compute)) << s.rows << " rows, " << name_of(dtype);
          }
      }
}

TEST(CpuMatmul, BackwardAccumulates) {
  Random random(2);
  Workspace workspace;
  for (const Case& s : cases)
    for (const Compute compute : {Compute::f32, Compute::bf16}) {
      Arena arena;
      const View<float, 2> x = random_rows(arena, s.rows, s.in, random), dy = random_rows(arena, s.rows, s.out, random);
      const View<float, 2> w = random_rows(arena, s.out, s.in, random), dx = arena.zeros<float>(s.rows, s.in);
      const View<float, 2> dw = arena.zeros<float>(s.out, s.in);
      const View<float, 1> dbias = arena.zeros<float>(s.out);
      for (View<float, 2> v : {dx, dw, dbias.as(1, s.out)})
        for (float& value : v) value = 1.0f;
      run(MatmulBackwardInput{.dx = dx, .dy = dy, .w = as_matrix(w), .compute = compute}, workspace);
      run(MatmulBackwardWeight{.dw = dw, .dbias = dbias, .dy = dy, .x = x, .compute = compute}, workspace);
      const auto expect = [&](float value, i64 terms, auto&& term, Compute rounding) {
        double sum = 1.0, magnitude = 1.0;
        for (i64 i = 0; i < terms; ++i) sum += term(i), magnitude += std::abs(term(i));
        ASSERT_NEAR(value, sum, bound(terms, magnitude, rounding)) << s.rows << " x " << s.in << " x " << s.out;
      };
      for (i64 n = 0; n < s.rows; ++n)
        for (i64 i = 0; i < s.in; ++i)
          expect(
              dx(n, i), s.out, [&](i64 j) { return double{dy(n, j)} * double{w(j, i)}; }, compute);
      for (i64 j = 0; j < s.out; ++j) {
        for (i64 i = 0; i < s.in; ++i)
          expect(
              dw(j, i), s.rows, [&](i64 n) { return double{dy(n, j)} * double{x(n, i)}; }, compute);
        expect(
            dbias[j], s.rows, [&](i64 n) { return double{dy(n, j)}; }, Compute::f32);
      }
    }
}

TEST(CpuMatmul, NanStaysNan) {
  Workspace workspace;
  Random random(3);
  for (const i64 rows : {1, 8, 20, 300})
    for (const Compute compute : {Compute::f32, Compute::bf16}) {
      Arena arena;
      const View<float, 2> x = random_rows(arena, rows, 40, random), y = arena.zeros<float>(rows, 24);
      x(rows - 1, 17) = std::numeric_limits<float>::quiet_NaN();
      run(Matmul{.y = y, .x = x, .w = as_matrix(random_rows(arena, 24, 40, random)), .bias = {}, .compute = compute},
          workspace);
      for (i64 j = 0; j < 24; ++j) EXPECT_TRUE(std::isnan(y(rows - 1, j))) << rows;
    }
}

}  // namespace
}  // namespace sparsam::cpu
