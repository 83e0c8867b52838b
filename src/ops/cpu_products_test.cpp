// The cpu backend against the reference: matrix products, attention, cross-entropy, tables.
#include <gmock/gmock.h>

#include "ops/cpu_test_support.h"

namespace sparsam {
namespace {

using CpuProducts = CpuTest;

std::string text(Compute compute) { return compute == Compute::bf16 ? "bf16" : "f32"; }

TEST_F(CpuProducts, Matmul) {
  struct Size {
    i64 rows, in, out;
  };
  std::vector<Size> sizes{{1, 1, 1}, {1, 128, 65}, {1, 257, 33}, {2, 7, 3}, {5, 16, 100}, {33, 31, 17}, {100, 65, 128}};
  for (size_t i = 0; i < ragged_sizes.size(); ++i)
    sizes.push_back({ragged_sizes[i], ragged_sizes[(i * 4 + 3) % ragged_sizes.size()],
                     ragged_sizes[(i * 7 + 5) % ragged_sizes.size()]});
  for (const Size& s : sizes)
    for (Compute compute : computes)
      for (DType dtype : stored_dtypes) {
        Operands a(1, s.in % 3);
        const bool biased = dtype != DType::f16;
        const std::string what =
            fmt::format("({}, {}) to {}, {} weights, compute {}", s.rows, s.in, s.out, name_of(dtype), text(compute));
        const auto x = a.normal(s.rows, s.in), dy = a.normal(s.rows, s.out);
        const Matrix w = a.matrix(dtype, s.out, s.in);
        expect_right(Matmul{.y = a.filled(nan_f, s.rows, s.out),
                            .x = x,
                            .w = w,
                            .bias = biased ? a.normal(s.out) : View<float, 1>(),
                            .compute = compute},
                     what);
        expect_right(MatmulBackwardInput{.dx = a.normal(s.rows, s.in), .dy = dy, .w = w, .compute = compute}, what);
        if (dtype != DType::f16)
          expect_right(MatmulBackwardWeight{.dw = a.normal(s.out, s.in),
                                            .dbias = biased ? a.normal(s.out) : View<float, 1>(),
                                            .dy = dy,
                                            .x = x,
                                            .compute = compute},
                       what);
      }
}

TEST_F(CpuProducts, MatmulKeepsNan) {
  for (Compute compute : computes)
    for (i64 rows : {1, 40}) {
      Operands a(2);
      const auto x = a.normal(rows, 33), y = a.filled(0.0f, rows, 17);
      x(rows - 1, 32) = nan_f;
      run_everywhere(Matmul{.y = y, .x = x, .w = a.matrix(DType::bf16, 17, 33), .compute = compute}, [&] {
        for (i64 o = 0; o < 17; ++o) EXPECT_TRUE(std::isnan(y(rows - 1, o)));
        for (i64 o = 0; o < 17 && rows > 1; ++o) EXPECT_TRUE(std::isfinite(y(0, o)));
      });
    }
}

TEST_F(CpuProducts, Embedding) {
  for (i64 channels : ragged_sizes)
    for (DType dtype : stored_dtypes) {
      Operands a(3, channels % 3);
      const i64 vocabulary = 11, rows = 3 * channels + 1;  // tokens repeat
      const auto tokens = a.below(vocabulary, rows);
      const std::string what = fmt::format("({}, {}) of {}", rows, channels, name_of(dtype));
      expect_right(
          Embedding{
              .y = a.filled(nan_f, rows, channels), .tokens = tokens, .table = a.matrix(dtype, vocabulary, channels)},
          what);
      if (dtype == DType::f32)
        expect_right(
            EmbeddingBackward{
                .dtable = a.normal(vocabulary, channels), .dy = a.normal(rows, channels), .tokens = tokens},
            what);
    }
}

TEST_F(CpuProducts, LinearCrossEntropy) {
  struct Size {
    i64 rows, channels, vocabulary;
  };
  for (const Size& s :
       {Size{1, 1, 1}, Size{1, 8, 7}, Size{5, 17, 33}, Size{33, 64, 100}, Size{70, 31, 1003}, Size{3, 100, 2}})
    for (Compute compute : computes)
      for (DType dtype : stored_dtypes) {
        Operands a(4, s.channels % 3);
        const auto x = a.normal(s.rows, s.channels);
        const Matrix head = a.matrix(dtype, s.vocabulary, s.channels);
        const auto targets = a.below(s.vocabulary, s.rows);
        if (s.rows > 2) targets[1] = -1, targets[2] = -100;
        const std::string what = fmt::format("({}, {}) to {}, {} head, compute {}", s.rows, s.channels, s.vocabulary,
                                             name_of(dtype), text(compute));
        expect_right(
            LinearCrossEntropy{
                .loss = a.filled(nan_f, s.rows), .x = x, .head = head, .targets = targets, .compute = compute},
            what);
        expect_right(LinearCrossEntropyBackward{.loss = a.filled(nan_f, s.rows),
                                                .dx = a.filled(nan_f, s.rows, s.channels),
                                                .dhead = a.normal(s.vocabulary, s.channels),
                                                .x = x,
                                                .head = head,
                                                .targets = targets,
                                                .scale = 0.01f,
                                                .compute = compute},
                     what);
      }
}

TEST_F(CpuProducts, LargeLogitsStayFinite) {
  Operands a(5);
  const auto x = a.filled(100.0f, 3, 16), dx = a.filled(nan_f, 3, 16), dhead = a.filled(0.0f, 9, 16);
  const auto loss = a.filled(nan_f, 3);
  const MutableMatrix head = a.matrix(DType::f32, 9, 16);
  for (i64 v = 0; v < 9; ++v)
    for (i64 c = 0; c < 16; ++c) head.set(v, c, v == 4 ? 6.25f : v == 5 ? -6.25f : 0.0f);  // logits 10^4, -10^4, 0
  const auto targets = a.filled<i32>(4, 3);
  targets[1] = 5, targets[2] = 0;
  for (Compute compute : computes)
    run_everywhere(LinearCrossEntropyBackward{.loss = loss,
                                              .dx = dx,
                                              .dhead = dhead,
                                              .x = x,
                                              .head = head,
                                              .targets = targets,
                                              .scale = 1,
                                              .compute = compute},
                   [&] {
                     EXPECT_EQ(loss[0], 0);
                     EXPECT_FLOAT_EQ(loss[1], 2e4f);
                     EXPECT_FLOAT_EQ(loss[2], 1e4f);
                     for (float value : dx) EXPECT_TRUE(std::isfinite(value));
                     for (float value : dhead) EXPECT_TRUE(std::isfinite(value));
                   });
}

struct Heads {
  i64 batch, time, heads, groups, size;
};
std::string text(const Heads& s) {
  return fmt::format("B {} T {} H {} G {} D {}", s.batch, s.time, s.heads, s.groups, s.size);
}
constexpr std::array<Heads, 13> head_shapes{{{1, 1, 1, 1, 1},
                                             {2, 2, 2, 1, 8},
                                             {1, 3, 4, 2, 5},
                                             {1, 7, 3, 3, 16},
                                             {2, 16, 4, 4, 20},
                                             {1, 17, 6, 2, 32},
                                             {1, 31, 2, 2, 33},
                                             {1, 33, 1, 1, 64},
                                             {3, 5, 2, 1, 80},
                                             {1, 65, 2, 1, 128},
                                             {1, 130, 2, 2, 24},
                                             {1, 64, 4, 1, 96},
                                             {1, 200, 1, 1, 16}}};

TEST_F(CpuProducts, Attention) {
  for (const Heads& s : head_shapes)
    for (bool causal : {true, false})
      for (Compute compute : computes) {
        Operands a(6, s.size % 3);
        const auto queries = [&] { return a.normal(s.batch, s.time, s.heads, s.size); };
        const auto keys = [&] { return a.normal(s.batch, s.time, s.groups, s.size); };
        const auto y = queries(), q = queries(), k = keys(), v = keys();
        const auto lse = a.filled(nan_f, s.batch, s.heads, s.time);
        const float scale = 1 / std::sqrt(static_cast<float>(s.size));
        const std::string what = text(s) + (causal ? " causal " : " bidirectional ") + text(compute);
        Attention forward{.y = y, .q = q, .k = k, .v = v, .scale = scale, .causal = causal, .compute = compute};
        expect_right(forward, what);
        forward.lse = lse;
        expect_right(forward, what);
        run_reference(forward);
        const auto nans = [&](i64 heads) { return a.filled(nan_f, s.batch, s.time, heads, s.size); };
        expect_right(AttentionBackward{.dq = nans(s.heads),
                                       .dk = nans(s.groups),
                                       .dv = nans(s.groups),
                                       .dy = queries(),
                                       .y = y,
                                       .q = q,
                                       .k = k,
                                       .v = v,
                                       .lse = lse,
                                       .scale = scale,
                                       .causal = causal,
                                       .compute = compute},
                     what);
      }
}

// Windows that end within a vector, a tile and a chunk, and beyond them.
TEST_F(CpuProducts, AttentionInAWindow) {
  for (const Heads& s : {Heads{2, 33, 4, 2, 16}, Heads{1, 300, 2, 1, 20}, Heads{1, 700, 1, 1, 8}})
    for (i64 window : {1, 2, 17, 128, 200, 513, 900}) {
      if (window > 2 * s.time) continue;
      Operands a(9);
      const Compute compute = window % 2 ? Compute::f32 : Compute::bf16;
      const auto queries = [&] { return a.normal(s.batch, s.time, s.heads, s.size); };
      const auto keys = [&] { return a.normal(s.batch, s.time, s.groups, s.size); };
      const auto nans = [&](i64 heads) { return a.filled(nan_f, s.batch, s.time, heads, s.size); };
      const Attention forward{.y = queries(),
                              .lse = a.filled(nan_f, s.batch, s.heads, s.time),
                              .q = queries(),
                              .k = keys(),
                              .v = keys(),
                              .scale = 0.25f,
                              .causal = true,
                              .window = window,
                              .compute = compute};
      const std::string what = fmt::format("{} window {} {}", text(s), window, text(compute));
      expect_right(forward, what);
      run_reference(forward);
      expect_right(AttentionBackward{.dq = nans(s.heads),
                                     .dk = nans(s.groups),
                                     .dv = nans(s.groups),
                                     .dy = queries(),
                                     .y = forward.y,
                                     .q = forward.q,
                                     .k = forward.k,
                                     .v = forward.v,
                                     .lse = forward.lse,
                                     .scale = 0.25f,
                                     .causal = true,
                                     .window = window,
                                     .compute = compute},
                   what);
    }
}

TEST_F(CpuProducts, CachedAttentionInAWindow) {
  for (i64 time : {1, 5, 150})
    for (i64 start : {0, 3, 140, 700})
      for (i64 window : {1, 4, 130, 600}) {
        Operands a(10);
        const i64 capacity = start + time + 3, heads = 4, groups = 2, size = 24;
        expect_right(CachedAttention{.y = a.filled(nan_f, time, heads, size),
                                     .q = a.normal(time, heads, size),
                                     .keys = a.matrix(DType::f16, groups * capacity, size),
                                     .values = a.matrix(DType::f16, groups * capacity, size),
                                     .groups = groups,
                                     .start = start,
                                     .scale = 0.2f,
                                     .window = window,
                                     .compute = window % 4 ? Compute::f32 : Compute::bf16},
                     fmt::format("{} positions from {} on, window {}", time, start, window));
      }
}

TEST_F(CpuProducts, LargeScoresStayFinite) {
  for (Compute compute : computes) {
    Operands a(7);
    const auto q = a.scaled(100.0, 1, 40, 2, 32), k = a.scaled(100.0, 1, 40, 2, 32), v = a.normal(1, 40, 2, 32);
    const auto y = a.filled(nan_f, 1, 40, 2, 32);  // scores of 10^4 and more
    run_everywhere(Attention{.y = y, .q = q, .k = k, .v = v, .scale = 0.2f, .causal = true, .compute = compute}, [&] {
      for (float value : y) ASSERT_TRUE(std::isfinite(value));
      for (i64 h = 0; h < 2; ++h)
        for (i64 d = 0; d < 32; ++d) EXPECT_NEAR(y(0, 0, h, d), v(0, 0, h, d), 0.02);  // the first sees itself alone
    });
  }
}

TEST_F(CpuProducts, CachedAttention) {
  for (const Heads& s : head_shapes)
    for (i64 start : {0, 1, 15, 100})
      for (DType dtype : stored_dtypes) {
        if (s.time * start > 3000) continue;
        Operands a(8, s.size % 3);
        const Compute compute = (s.time + start) % 2 ? Compute::bf16 : Compute::f32;
        const i64 capacity = start + s.time + 3;
        const MutableMatrix keys = a.matrix(dtype, s.groups * capacity, s.size);
        const MutableMatrix values = a.matrix(dtype, s.groups * capacity, s.size);
        const std::string what = fmt::format("{} start {} {} {}", text(s), start, name_of(dtype), text(compute));
        expect_right(CacheAppend{.keys = keys,
                                 .values = values,
                                 .k = a.normal(s.time, s.groups, s.size),
                                 .v = a.normal(s.time, s.groups, s.size),
                                 .start = start},
                     what);
        expect_right(CachedAttention{.y = a.filled(nan_f, s.time, s.heads, s.size),
                                     .q = a.normal(s.time, s.heads, s.size),
                                     .keys = keys,
                                     .values = values,
                                     .groups = s.groups,
                                     .start = start,
                                     .scale = 1 / std::sqrt(static_cast<float>(s.size)),
                                     .compute = compute},
                     what);
      }
}

TEST_F(CpuTest, RunsTheInstructionSetThatItIsToldTo) {
  ASSERT_FALSE(cpu::targets().empty());
  for (const std::string& target : cpu::targets()) {
    cpu::restrict_to(target);
    EXPECT_EQ(cpu::target(), target);
  }
  cpu::restrict_to("");
  EXPECT_EQ(cpu::target(), cpu::targets()[0]);
}

// What was worth speeding up: all of it, so far.
TEST_F(CpuTest, SpeedsUpTheseOperations) {
  EXPECT_THAT(
      accelerated_operations(),
      ::testing::ElementsAre(
          "Embedding", "EmbeddingBackward", "RmsNorm", "RmsNormBackward", "LayerNorm", "LayerNormBackward", "Matmul",
          "MatmulBackwardInput", "MatmulBackwardWeight", "Rope", "Attention", "AttentionBackward", "CacheAppend",
          "CachedAttention", "Activation", "ActivationBackward", "GatedProduct", "GatedProductBackward", "Add", "Scale",
          "LinearCrossEntropy", "LinearCrossEntropyBackward", "Distillation", "SquaredNorm", "AdamW", "Truncate",
          "ChooseBlocks", "SelectedMatmul", "SkippingMatmul", "L1Norm", "L1NormBackward", "TokenScores",
          "TokenScoresBackward", "LogAttention", "LogAttentionBackward", "LogAttentionStep", "CausalConvolution",
          "CausalConvolutionBackward", "HeadScale", "HeadScaleBackward", "HeadMix", "HeadMixBackward", "LogDecay",
          "LogDecayBackward", "HeadLinear", "HeadLinearBackward", "Delay", "DelayBackward", "LogRecurrence",
          "LogRecurrenceBackward"));
}

}  // namespace
}  // namespace sparsam
