#include "ops/distillation.h"

#include "ops/cpu_test_support.h"

namespace sparsam {
namespace {

TEST(Distillation, GradientIsThatOfTheLoss) {
  for (const auto& [rows, vocabulary] : std::vector<std::pair<i64, i64>>{{1, 1}, {1, 7}, {4, 9}})
    for (const double weight : {0.0, 0.3, 1.0})
      for (const double temperature : {0.5, 1.0, 3.0}) {
        Operands a(1);
        const auto targets = a.below(vocabulary, rows);
        if (rows > 1) targets[1] = -1;  // ignored
        generic::Distillation<double> op{.loss = a.normal<double>(rows),
                                         .z = a.normal<double>(rows, vocabulary),
                                         .t = a.normal<double>(rows, vocabulary),
                                         .targets = targets,
                                         .weight = weight,
                                         .temperature = temperature,
                                         .scale = 0.7};
        const auto loss = op;
        op.loss = a.normal<double>(rows), op.dz = a.normal<double>(rows, vocabulary);
        check_gradients(loss, op);
        for (i64 n = 0; n < rows; ++n) EXPECT_EQ(op.loss[n], loss.loss[n]);
      }
}

// PyTorch's cross_entropy and kl_div(log_softmax(z / 2), log_softmax(t / 2), log_target) times 4, weights 0.7 and 0.3;
// the gradient of 0.7 times their sum. The last row is ignored.
TEST(Distillation, IsPyTorchs) {
  std::vector<double> z{0.5, -1.25, 2, 0.25, -3, 1.5, 0.75, -0.5, 4, 0, -2, 0.5, 0.5, 1, 3};
  std::vector<double> t{1, -2, 1.5, 0, -1, 0.25, 0.5, 0.75, 3, -4, 2, 1, -1, 0.5, 0.25};
  std::vector<i32> targets{2, 0, -100};
  const std::vector<double> losses{0.335488139166, 1.985863139264, 0};
  const std::vector<double> gradient{0.046664286061,
                                     0.024397640475,
                                     -0.111484320007,
                                     0.066612313516,
                                     -0.026189920045,
                                     -0.441303407915,
                                     0.000957672961,
                                     -0.041577957481,
                                     0.447849808605,
                                     0.034073883831,
                                     0,
                                     0,
                                     0,
                                     0,
                                     0};
  std::vector<double> found(3), dz(15);
  reference::run(generic::Distillation<double>{.loss = {found.data(), {3}},
                                               .dz = {dz.data(), {3, 5}},
                                               .z = {z.data(), {3, 5}},
                                               .t = {t.data(), {3, 5}},
                                               .targets = {targets.data(), {3}},
                                               .weight = 0.3,
                                               .temperature = 2,
                                               .scale = 0.7});
  for (size_t n = 0; n < losses.size(); ++n) EXPECT_NEAR(found[n], losses[n], 1e-11);
  for (size_t i = 0; i < gradient.size(); ++i) EXPECT_NEAR(dz[i], gradient[i], 1e-11) << i;
}

using CpuDistillation = CpuTest;

TEST_F(CpuDistillation, IsTheReferences) {
  struct Size {
    i64 rows, vocabulary, lead;
  };
  std::vector<Size> sizes{{37, 257, 1}, {5, 3001, 0}};
  for (const i64 vocabulary : ragged_sizes) sizes.push_back({3, vocabulary, vocabulary % 3});
  for (const Size& s : sizes)
    for (const float temperature : {1.0f, 2.5f}) {
      Operands a(2, s.lead);
      const auto targets = a.below(s.vocabulary, s.rows);
      targets[1] = -1;
      const auto z = a.scaled(4.0, s.rows, s.vocabulary), t = a.scaled(4.0, s.rows, s.vocabulary);
      const std::string what = fmt::format("({}, {}), tau {}", s.rows, s.vocabulary, temperature);
      Distillation op{.loss = a.filled(nan_f, s.rows),
                      .z = z,
                      .t = t,
                      .targets = targets,
                      .weight = 0.3f,
                      .temperature = temperature,
                      .scale = 0.01f};
      expect_right(op, what + ", the loss alone");
      op.dz = a.filled(nan_f, s.rows, s.vocabulary);
      expect_right(op, what);
      op.dz = z;
      expect_right(op, what + ", in place");
    }
}

// Where the student has the teacher's predictions, their divergence is 0 and so is its gradient.
TEST_F(CpuDistillation, OfEqualPredictionsIsNothing) {
  Operands a(3);
  const auto z = a.scaled(30.0, 4, 1000), t = a.filled(0.0f, 4, 1000);
  for (i64 i = 0; i < z.size(); ++i) t.data()[i] = z.data()[i] + 3;
  const Distillation op{.loss = a.filled(nan_f, 4),
                        .dz = a.filled(nan_f, 4, 1000),
                        .z = z,
                        .t = t,
                        .targets = a.below(1000, 4),
                        .weight = 1,
                        .temperature = 2};
  run_everywhere(op, [&] {
    for (const float loss : op.loss) EXPECT_NEAR(loss, 0, 1e-5);
    for (const float dz : op.dz) EXPECT_NEAR(dz, 0, 1e-6);
  });
}

}  // namespace
}  // namespace sparsam
