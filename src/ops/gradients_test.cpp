// Every backward of the reference against central differences in double precision.
#include <gtest/gtest-spi.h>

#include "ops/test_support.h"

namespace sparsam {
namespace {

using generic::Activation, generic::ActivationBackward, generic::Attention, generic::AttentionBackward;

constexpr std::array<Function, 6> functions{Function::relu,      Function::relu2, Function::gelu,
                                            Function::gelu_tanh, Function::silu,  Function::fatrelu};
const std::vector<std::pair<i64, i64>> shapes{{1, 1}, {1, 7}, {3, 1}, {2, 5}, {5, 16}};

TEST(Gradients, Embedding) {
  for (const auto& [rows, channels] : shapes) {
    Operands a(1);
    const i64 vocabulary = 4;  // less than the rows: tokens repeat
    const auto tokens = a.below(vocabulary, rows);
    check_gradients(generic::Embedding<double>{.y = a.normal<double>(rows, channels),
                                               .tokens = tokens,
                                               .table = a.matrix(DType::f64, vocabulary, channels)},
                    generic::EmbeddingBackward<double>{.dtable = a.normal<double>(vocabulary, channels),
                                                       .dy = a.normal<double>(rows, channels),
                                                       .tokens = tokens});
  }
}

TEST(Gradients, RmsNorm) {
  for (const auto& [rows, channels] : shapes)
    for (bool gained : {true, false}) {
      Operands a(2);
      const auto y = a.normal<double>(rows, channels), x = a.normal<double>(rows, channels);
      const auto r = a.normal<double>(rows);
      const auto gain = gained ? a.normal<double>(channels) : View<double, 1>();
      check_gradients(generic::RmsNorm<double>{.y = y, .r = r, .x = x, .gain = gain, .eps = 0.5},
                      generic::RmsNormBackward<double>{.dx = a.normal<double>(rows, channels),
                                                       .dgain = gained ? a.normal<double>(channels) : gain,
                                                       .dy = a.normal<double>(rows, channels),
                                                       .x = x,
                                                       .gain = gain,
                                                       .r = r});
    }
}

TEST(Gradients, LayerNorm) {
  for (const auto& shape : shapes)
    for (int present : {0, 1, 2, 3}) {
      Operands a(3);
      const i64 rows = shape.first, channels = shape.second;
      const auto optional = [&](bool wanted) { return wanted ? a.normal<double>(channels) : View<double, 1>(); };
      const auto x = a.normal<double>(rows, channels);
      const auto mean = a.normal<double>(rows), r = a.normal<double>(rows);
      const auto gain = optional(present & 1), bias = optional(present & 2);
      check_gradients(generic::LayerNorm<double>{.y = a.normal<double>(rows, channels),
                                                 .mean = mean,
                                                 .r = r,
                                                 .x = x,
                                                 .gain = gain,
                                                 .bias = bias,
                                                 .eps = 0.5},
                      generic::LayerNormBackward<double>{.dx = a.normal<double>(rows, channels),
                                                         .dgain = optional(present & 1),
                                                         .dbias = optional(present & 2),
                                                         .dy = a.normal<double>(rows, channels),
                                                         .x = x,
                                                         .gain = gain,
                                                         .mean = mean,
                                                         .r = r});
    }
}

TEST(Gradients, Matmul) {
  for (const auto& [rows, inputs] : shapes)
    for (i64 outputs : {1, 3, 8})
      for (bool biased : {true, false}) {
        Operands a(4);
        const auto x = a.normal<double>(rows, inputs), dy = a.normal<double>(rows, outputs);
        const auto bias = biased ? a.normal<double>(outputs) : View<double, 1>();
        const generic::Matmul<double> forward{.y = a.normal<double>(rows, outputs),
                                              .x = x,
                                              .w = a.matrix(DType::f64, outputs, inputs),
                                              .bias = bias,
                                              .compute = Compute::f32};
        check_gradients(forward,
                        generic::MatmulBackwardInput<double>{
                            .dx = a.normal<double>(rows, inputs), .dy = dy, .w = forward.w, .compute = Compute::f32});
        check_gradients(forward,
                        generic::MatmulBackwardWeight<double>{.dw = a.normal<double>(outputs, inputs),
                                                              .dbias = biased ? a.normal<double>(outputs) : bias,
                                                              .dy = dy,
                                                              .x = x,
                                                              .compute = Compute::f32});
      }
}

// A rotation is linear and orthogonal: its backward is its inverse.
TEST(Gradients, RopeIsUndoneByItsInverse) {
  for (Pairing pairing : {Pairing::halves, Pairing::interleaved})
    for (const auto& [head_size, turned] : std::vector<std::pair<i64, i64>>{{2, 2}, {6, 4}, {8, 8}, {7, 2}}) {
      Operands a(5);
      const i64 rows = 3, heads = 2, positions = 9;
      const auto cosine = a.normal<double>(positions, turned / 2), sine = a.normal<double>(positions, turned / 2);
      for (i64 i = 0; i < cosine.size(); ++i) {
        const double angle = cosine.data()[i];
        cosine.data()[i] = std::cos(angle), sine.data()[i] = std::sin(angle);
      }
      const auto where = a.below(positions, rows);
      const auto x = a.normal<double>(rows, heads, head_size), dy = a.normal<double>(rows, heads, head_size);
      const auto y = a.normal<double>(rows, heads, head_size), dx = a.normal<double>(rows, heads, head_size);
      const auto rope = [&](View<double, 3> to, View<double, 3> from, bool inverse) {
        reference::run(generic::Rope<double>{to, from, where, cosine, sine, pairing, inverse});
      };
      rope(y, x, false), rope(dx, dy, true);
      double dy_y = 0, dx_x = 0;  // <dy, R x> = <R^T dy, x>
      for (i64 i = 0; i < x.size(); ++i) dy_y += dy.data()[i] * y.data()[i], dx_x += dx.data()[i] * x.data()[i];
      EXPECT_NEAR(dy_y, dx_x, 1e-13 * static_cast<double>(x.size()));
      rope(y, y, true);  // in place
      for (i64 i = 0; i < x.size(); ++i) EXPECT_NEAR(y.data()[i], x.data()[i], 1e-14);
    }
}

TEST(Gradients, Attention) {
  struct Heads {
    i64 time, heads, groups, head_size;
  };
  for (const Heads& s : {Heads{1, 1, 1, 1}, Heads{5, 4, 2, 3}, Heads{3, 3, 1, 4}, Heads{6, 2, 2, 2}})
    for (i64 window : {-1, 0, 1, 3, 100}) {  // -1: not causal
      const bool causal = window >= 0;
      window = std::max<i64>(window, 0);
      Operands a(6);
      const i64 batch = 2;
      const auto queries = [&] { return a.normal<double>(batch, s.time, s.heads, s.head_size); };
      const auto keys = [&] { return a.normal<double>(batch, s.time, s.groups, s.head_size); };
      const auto y = queries(), q = queries(), k = keys(), v = keys();
      const auto lse = a.normal<double>(batch, s.heads, s.time);
      check_gradients(Attention<double>{.y = y,
                                        .lse = lse,
                                        .q = q,
                                        .k = k,
                                        .v = v,
                                        .scale = 0.7,
                                        .causal = causal,
                                        .window = window,
                                        .compute = Compute::f32},
                      AttentionBackward<double>{.dq = queries(),
                                                .dk = keys(),
                                                .dv = keys(),
                                                .dy = queries(),
                                                .y = y,
                                                .q = q,
                                                .k = k,
                                                .v = v,
                                                .lse = lse,
                                                .scale = 0.7,
                                                .causal = causal,
                                                .window = window,
                                                .compute = Compute::f32});
    }
}

// Normal numbers, none nearer to the kink of relu, or to that of fatrelu, than the step of the differences.
constexpr double threshold = 0.25;
View<double, 2> away_from_kinks(Operands& a, i64 rows, i64 channels) {
  const auto x = a.normal<double>(rows, channels);
  for (double& value : x)
    for (double kink : {0.0, threshold})
      if (std::abs(value - kink) < 0.01) value = kink + std::copysign(0.01, value - kink);
  return x;
}

TEST(Gradients, Activation) {
  for (Function function : functions) {
    Operands a(7);
    const auto x = away_from_kinks(a, 3, 11);
    check_gradients(
        Activation<double>{.y = a.normal<double>(3, 11), .x = x, .function = function, .threshold = threshold},
        ActivationBackward<double>{.dx = a.normal<double>(3, 11),
                                   .dy = a.normal<double>(3, 11),
                                   .x = x,
                                   .function = function,
                                   .threshold = threshold});
  }
}

// The proof can fail: the derivative of one function is not that of another.
void take_gelu_for_silu() {
  Operands a(7);
  const auto x = a.normal<double>(1, 9);
  check_gradients(Activation<double>{.y = a.normal<double>(1, 9), .x = x, .function = Function::silu},
                  ActivationBackward<double>{
                      .dx = a.normal<double>(1, 9), .dy = a.normal<double>(1, 9), .x = x, .function = Function::gelu});
}
TEST(Gradients, AWrongOneIsFound) { EXPECT_FATAL_FAILURE(take_gelu_for_silu(), "ActivationBackward.dx[0]"); }

TEST(Gradients, GatedProduct) {
  for (Function function : functions)
    for (bool both : {false, true}) {
      Operands a(8);
      const auto gate = away_from_kinks(a, 3, 11), up = away_from_kinks(a, 3, 11);
      check_gradients(generic::GatedProduct<double>{.h = a.normal<double>(3, 11),
                                                    .gate = gate,
                                                    .up = up,
                                                    .function = function,
                                                    .threshold = threshold,
                                                    .activate_up = both},
                      generic::GatedProductBackward<double>{.dgate = a.normal<double>(3, 11),
                                                            .dup = a.normal<double>(3, 11),
                                                            .dh = a.normal<double>(3, 11),
                                                            .gate = gate,
                                                            .up = up,
                                                            .function = function,
                                                            .threshold = threshold,
                                                            .activate_up = both});
    }
}

TEST(Gradients, SequenceMean) {
  for (bool padded : {false, true}) {
    Operands a(41);
    const i64 sequences = 3, time = 5, channels = 4;
    std::vector<i32> lengths{5, 1, 3};
    const auto real = padded ? In<i32, 1>(lengths.data(), {sequences}) : In<i32, 1>{};
    check_gradients(generic::SequenceMean<double>{.y = a.normal<double>(sequences, channels),
                                                  .x = a.normal<double>(sequences, time, channels),
                                                  .lengths = real},
                    generic::SequenceMeanBackward<double>{.dx = a.normal<double>(sequences, time, channels),
                                                          .dy = a.normal<double>(sequences, channels),
                                                          .lengths = real});
  }
}

TEST(Gradients, L1Norm) {
  for (const auto& [rows, neurons] : shapes) {
    Operands a(10);
    const auto h = away_from_kinks(a, rows, neurons);
    const generic::L1Norm<double> forward{.norm = a.filled(0.0, 1), .active = a.filled(0.0, neurons), .h = h};
    const generic::L1NormBackward<double> backward{.dh = a.normal<double>(rows, neurons), .h = h, .scale = 0.3};
    check_gradients(forward, backward);
    // At the kink itself nothing is added.
    std::fill(h.begin(), h.end(), 0.0), std::fill(backward.dh.begin(), backward.dh.end(), 7.0);
    reference::run(backward);
    for (const double dh : backward.dh) EXPECT_EQ(dh, 7);
  }
}

TEST(Gradients, LinearCrossEntropy) {
  for (const auto& [rows, channels] : std::vector<std::pair<i64, i64>>{{1, 1}, {5, 3}, {67, 2}})  // 67: two chunks
    for (i64 vocabulary : {1, 9}) {
      Operands a(9);
      const auto x = a.normal<double>(rows, channels);
      const auto loss = a.normal<double>(rows);
      const auto targets = a.below(vocabulary, rows);
      if (rows > 1) targets[1] = -1, targets[rows - 1] = -100;  // ignored
      const Matrix head = a.matrix(DType::f64, vocabulary, channels);
      const generic::LinearCrossEntropyBackward<double> backward{.loss = a.normal<double>(rows),
                                                                 .dx = a.normal<double>(rows, channels),
                                                                 .dhead = a.normal<double>(vocabulary, channels),
                                                                 .x = x,
                                                                 .head = head,
                                                                 .targets = targets,
                                                                 .scale = 0.3,
                                                                 .compute = Compute::f32};
      check_gradients(
          generic::LinearCrossEntropy<double>{
              .loss = loss, .x = x, .head = head, .targets = targets, .compute = Compute::f32},
          backward);
      for (i64 n = 0; n < rows; ++n) EXPECT_EQ(backward.loss[n], loss[n]);
      if (rows > 1) {
        EXPECT_EQ(loss[1], 0);
      }
    }
}

}  // namespace
}  // namespace sparsam
