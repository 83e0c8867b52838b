// Sizes at which the cross-entropy packs its factors and takes several chunks of rows and blocks of the vocabulary.
#include "ops/cpu_test_support.h"

namespace sparsam {
namespace {

using CpuCrossEntropy = CpuTest;

TEST_F(CpuCrossEntropy, ManyRowsAndBlocks) {
  struct Size {
    i64 rows, channels, vocabulary;
  };
  for (const Size& s : {Size{300, 20, 1100}, Size{1100, 8, 130}})
    for (Compute compute : computes) {
      Operands a(1);
      const auto x = a.normal(s.rows, s.channels);
      const Matrix head = a.matrix(DType::f32, s.vocabulary, s.channels);
      const auto targets = a.below(s.vocabulary, s.rows);
      targets[5] = -1;
      expect_right(LinearCrossEntropy{
          .loss = a.filled(nan_f, s.rows), .x = x, .head = head, .targets = targets, .compute = compute});
      expect_right(LinearCrossEntropyBackward{.loss = a.filled(nan_f, s.rows),
                                              .dx = a.filled(nan_f, s.rows, s.channels),
                                              .dhead = a.normal(s.vocabulary, s.channels),
                                              .x = x,
                                              .head = head,
                                              .targets = targets,
                                              .scale = 0.01f,
                                              .compute = compute});
    }
}

}  // namespace
}  // namespace sparsam
