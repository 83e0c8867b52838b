// The cpu backend against the reference where weights are quantised.
#include "ops/cpu_test_support.h"

namespace sparsam {
namespace {

using CpuQuantised = CpuTest;

// One row, a few, more than the streaming kernel takes, and so many that the weight is packed. Rows of one and several
// blocks; outputs that fill no vector and no panel.
TEST_F(CpuQuantised, Matmul) {
  struct Size {
    i64 rows, blocks, out;
  };
  for (const Size& s :
       {Size{1, 1, 1}, Size{1, 3, 37}, Size{2, 2, 5}, Size{7, 1, 33}, Size{8, 3, 2}, Size{11, 2, 19}, Size{70, 1, 130}})
    for (DType dtype : quantised_dtypes)
      for (Compute compute : computes) {
        Operands a(1, s.out % 3);
        const i64 cols = s.blocks * block_size(dtype);
        const auto x = a.normal(s.rows, cols), dy = a.normal(s.rows, s.out);
        const Matrix w = a.matrix(dtype, s.out, cols);
        const std::string what = fmt::format("({}, {}) to {}, {} weights", s.rows, cols, s.out, name_of(dtype));
        const auto bias = s.out % 2 ? a.normal(s.out) : View<float, 1>();
        expect_right(Matmul{.y = a.filled(nan_f, s.rows, s.out), .x = x, .w = w, .bias = bias, .compute = compute},
                     what);
        expect_right(MatmulBackwardInput{.dx = a.normal(s.rows, cols), .dy = dy, .w = w, .compute = compute}, what);
      }
}

TEST_F(CpuQuantised, MatmulOfPackedWeights) {
  for (DType dtype : {DType::q8_0, DType::q4_1, DType::q4_k, DType::q6_k})
    for (Compute compute : computes) {
      Operands a(2);
      const i64 rows = 260, cols = block_size(dtype) == 32 ? 96 : 256, out = 70;
      const auto x = a.normal(rows, cols), dy = a.normal(rows, out);
      const Matrix w = a.matrix(dtype, out, cols);
      expect_right(Matmul{.y = a.filled(nan_f, rows, out), .x = x, .w = w, .compute = compute},
                   std::string(name_of(dtype)));
      expect_right(MatmulBackwardInput{.dx = a.normal(rows, cols), .dy = dy, .w = w, .compute = compute},
                   std::string(name_of(dtype)));
    }
}

TEST_F(CpuQuantised, EmbeddingHasTheReferencesBits) {
  for (DType dtype : quantised_dtypes) {
    Operands a(3, 1);
    const i64 cols = 2 * block_size(dtype);
    expect_right(
        Embedding{.y = a.filled(nan_f, 40, cols), .tokens = a.below(11, 40), .table = a.matrix(dtype, 11, cols)},
        std::string(name_of(dtype)));
  }
}

TEST_F(CpuQuantised, LinearCrossEntropy) {
  struct Size {
    i64 rows, vocabulary;
  };
  for (const Size& s : {Size{1, 7}, Size{5, 100}, Size{270, 600}})
    for (DType dtype : quantised_dtypes)
      for (Compute compute : computes) {
        if (s.rows > 5 && dtype != DType::q8_0 && dtype != DType::q6_k) continue;
        Operands a(4);
        const i64 channels = block_size(dtype) == 32 ? 64 : 256;
        const auto x = a.scaled(0.1, s.rows, channels);
        const auto targets = a.below(s.vocabulary, s.rows);
        if (s.rows > 1) targets[1] = -1;
        const Matrix head = a.matrix(dtype, s.vocabulary, channels);
        const std::string what = fmt::format("{} rows to {}, {} head", s.rows, s.vocabulary, name_of(dtype));
        expect_right(
            LinearCrossEntropy{
                .loss = a.filled(nan_f, s.rows), .x = x, .head = head, .targets = targets, .compute = compute},
            what);
        if (dtype != DType::q8_0) continue;
        expect_right(LinearCrossEntropyBackward{.loss = a.filled(nan_f, s.rows),
                                                .dx = a.filled(nan_f, s.rows, channels),
                                                .dhead = a.normal(s.vocabulary, channels),
                                                .x = x,
                                                .head = head,
                                                .targets = targets,
                                                .scale = 0.01f,
                                                .compute = compute},
                     what);
      }
}

}  // namespace
}  // namespace sparsam
