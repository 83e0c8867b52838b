// The decorators, each on one operation of every kind.
#include "ops/decorators.h"

#include <gmock/gmock.h>

#include <map>

#include "ops/cpu_test_support.h"

namespace sparsam {
namespace {

// One of each operation, on small operands.
std::vector<Op> every_operation(Operands& a) {
  const i64 rows = 3, channels = 5, vocabulary = 7;
  const auto matrix = [&] { return a.normal(rows, channels); };
  const auto vector = [&] { return a.normal(channels); };
  const auto table = [&] { return a.matrix(DType::f32, vocabulary, channels); };
  const auto by_input = [](const Matrix& m) { return InputMajor{m.dtype, m.rows, m.cols, m.bytes}; };
  const auto heads = [&] { return a.normal(1, rows, 2, 4); };
  const auto positive = [&](i64 n) {
    const auto x = a.normal(n);
    for (float& value : x) value = std::abs(value) + 0.1f;
    return x;
  };
  const auto decays = [&] {
    const auto x = heads();
    for (float& value : x) value = -std::abs(value);
    return x;
  };
  const Function silu = Function::silu;
  const Compute f32 = Compute::f32;
  return {
      Embedding{matrix(), a.below(vocabulary, rows), table()},
      EmbeddingBackward{a.normal(vocabulary, channels), matrix(), a.below(vocabulary, rows)},
      RmsNorm{matrix(), a.normal(rows), matrix(), vector(), 1e-5f},
      RmsNormBackward{matrix(), vector(), matrix(), matrix(), vector(), positive(rows)},
      LayerNorm{matrix(), a.normal(rows), a.normal(rows), matrix(), vector(), vector(), 1e-5f},
      LayerNormBackward{matrix(), vector(), vector(), matrix(), matrix(), vector(), a.normal(rows), positive(rows)},
      Matmul{a.normal(rows, vocabulary), matrix(), table(), a.normal(vocabulary), f32},
      MatmulBackwardInput{matrix(), a.normal(rows, vocabulary), table(), f32},
      MatmulBackwardWeight{a.normal(vocabulary, channels), a.normal(vocabulary), a.normal(rows, vocabulary), matrix(),
                           f32},
      Rope{a.normal(rows, 2, 4), a.normal(rows, 2, 4), a.below(9, rows), a.normal(9, 2), a.normal(9, 2),
           Pairing::halves, false},
      Attention{heads(), a.normal(1, 2, rows), heads(), heads(), heads(), 0.5f, true, 0, f32},
      AttentionBackward{heads(), heads(), heads(), heads(), heads(), heads(), heads(), heads(),
                        positive(6).as(1, 2, rows), 0.5f, true, 0, f32},
      CacheAppend{a.matrix(DType::f16, 16, 4), a.matrix(DType::f16, 16, 4), a.normal(rows, 2, 4), a.normal(rows, 2, 4),
                  2},
      CachedAttention{a.normal(rows, 2, 4), a.normal(rows, 2, 4), a.matrix(DType::bf16, 16, 4),
                      a.matrix(DType::bf16, 16, 4), 2, 4, 0.5f, 0, f32, a.normal(2, rows)},
      Activation{matrix(), matrix(), silu},
      ActivationBackward{matrix(), matrix(), matrix(), silu},
      GatedProduct{matrix(), matrix(), matrix(), silu},
      GatedProductBackward{matrix(), matrix(), matrix(), matrix(), matrix(), silu},
      Add{matrix(), matrix(), matrix()},
      Scale{matrix(), matrix(), 0.5f},
      LinearCrossEntropy{a.normal(rows), matrix(), table(), a.below(vocabulary, rows), f32},
      LinearCrossEntropyBackward{a.normal(rows), matrix(), a.normal(vocabulary, channels), matrix(), table(),
                                 a.below(vocabulary, rows), 0.1f, f32},
      Distillation{a.normal(rows), matrix(), matrix(), matrix(), a.below(channels, rows), 0.4f, 2.0f, 0.3f},
      SquaredNorm{a.filled(0.0, 1), a.normal(50)},
      AdamW{vector(), vector(), positive(channels), vector(), 0.01f, 0.9f, 0.99f, 1e-8f, 0.1f, 1.0f, 3},
      Truncate{matrix(), a.normal(rows), matrix(), matrix(), positive(channels), 0.0f,
               0},  // all pass: a flipped sign of zero would be right
      ChooseBlocks{matrix(), matrix(), a.normal(rows, 3), 2, 3},
      SelectedMatmul{a.normal(rows, vocabulary), matrix(), table(), a.normal(vocabulary), a.normal(rows, vocabulary)},
      SkippingMatmul{a.normal(rows, channels), a.normal(rows, vocabulary), by_input(table()), vector()},
      L1Norm{a.normal(1), vector(), matrix()},
      L1NormBackward{matrix(), matrix(), 0.3f},
      SequenceMean{a.normal(2, channels), a.normal(2, 3, channels)},
      SequenceMeanBackward{a.normal(2, 3, channels), a.normal(2, channels)},
      TokenScores{matrix(), a.normal(rows), matrix(), 2.0f, 1e-6f},
      TokenScoresBackward{matrix(), matrix(), matrix(), matrix(), a.filled(2.0f, rows), 2.0f, 1e-6f},
      LogAttention{heads(), a.normal(1, 2, rows), a.normal(1, 2, 4, 4), a.normal(1, 2, 4), a.normal(1, 2, 4), heads(),
                   heads(), heads(), decays(), a.normal(1, 2, 4, 4), positive(8).as(1, 2, 4), a.normal(1, 2, 4)},
      LogAttentionBackward{heads(), heads(), heads(), heads(), a.normal(1, 2, 4, 4), a.normal(1, 2, 4),
                           a.normal(1, 2, 4), heads(), a.normal(1, 2, 4, 4), a.normal(1, 2, 4), heads(),
                           positive(6).as(1, 2, rows), heads(), heads(), heads(), decays(), a.normal(1, 2, 4, 4),
                           positive(8).as(1, 2, 4), a.normal(1, 2, 4)},
      LogAttentionStep{a.normal(1, 2, 4),
                       a.normal(1, 2, 4, 4),
                       positive(8).as(1, 2, 4),
                       a.normal(1, 2, 4),
                       a.normal(1, 2, 4),
                       a.normal(1, 2, 4),
                       a.normal(1, 2, 4),
                       {},
                       false,
                       a.normal(1, 2)},
      CausalConvolution{a.normal(1, rows, 5), a.normal(1, rows, 5), a.normal(5, 3), a.normal(1, 2, 5)},
      CausalConvolutionBackward{a.normal(1, rows, 5), a.normal(5, 3), a.normal(1, rows, 5), a.normal(1, rows, 5),
                                a.normal(5, 3)},
      HeadScale{a.normal(rows, 2, 4), a.normal(rows, 2, 4), a.normal(2), 3.0f},
      HeadScaleBackward{a.normal(rows, 2, 4), a.normal(2), a.normal(rows, 2, 4), a.normal(rows, 2, 4),
                        a.normal(rows, 2, 4), a.normal(2), 3.0f},
      HeadMix{a.normal(rows, 2, 4), a.normal(rows, 2, 4), a.normal(rows, 2, 4), a.normal(2), a.normal(1, 2, rows),
              a.normal(1, 2, rows), a.normal(1, 2, rows), a.normal(1, 2, rows)},
      HeadMixBackward{a.normal(rows, 2, 4), a.normal(rows, 2, 4), a.normal(2), a.normal(rows, 2, 4),
                      a.normal(rows, 2, 4), a.normal(rows, 2, 4), a.normal(2)},
      LogDecay{matrix(), matrix(), 16.0f},
      LogDecayBackward{matrix(), matrix(), matrix(), 16.0f},
      HeadLinear{a.normal(rows, 2, 3), a.normal(rows, 2, 4), a.normal(2, 3, 4)},
      HeadLinearBackward{a.normal(rows, 2, 4), a.normal(2, 3, 4), a.normal(rows, 2, 3), a.normal(rows, 2, 4),
                         a.normal(2, 3, 4)},
      Delay{a.normal(1, rows, 5), a.normal(1, rows, 5), 2, 0.0f, a.normal(1, 2, 5), 3},
      DelayBackward{a.normal(1, rows, 5), a.normal(1, rows, 5), 1},
      LogRecurrence{a.normal(1, rows, 5), a.normal(1, rows, 5), a.normal(1, rows, 5), a.normal(1, 5)},
      LogRecurrenceBackward{a.normal(1, rows, 5), a.normal(1, rows, 5), a.normal(1, rows, 5), a.normal(1, rows, 5),
                            a.normal(1, rows, 5), a.normal(1, rows, 5)},
  };
}

// A backend with one mistake: one element in the middle of one result has its sign or its mantissa's third bit flipped.
class Wrong final : public Backend {
 public:
  enum class Flip { sign, mantissa };
  Wrong(size_t result, Flip flip) : result_(result), flip_(flip) {}

  void run(const Op& op) override {
    right_->run(op);
    const std::span<std::byte> span = results(op)[result_];
    if (std::holds_alternative<SquaredNorm>(op))
      flip<u64>(span, 49);
    else if (std::holds_alternative<CacheAppend>(op))
      flip<u16>(span, 7);
    else
      flip<u32>(span, 20);
  }

 private:
  template <class Bits>
  void flip(std::span<std::byte> span, int third) const {
    const size_t at = span.size() / sizeof(Bits) / 2 * sizeof(Bits);
    Bits bits;
    std::memcpy(&bits, &span[at], sizeof(bits));
    bits = static_cast<Bits>(bits ^ Bits{1} << (flip_ == Flip::sign ? 8 * static_cast<int>(sizeof(bits)) - 1 : third));
    std::memcpy(&span[at], &bits, sizeof(bits));
  }

  std::unique_ptr<Backend> right_ = make_backend("reference");
  size_t result_;
  Flip flip_;
};

TEST(Checked, AcceptsTheReferenceAndFindsAWrongElementOfEveryResult) {
  Operands a(1);
  const std::vector<Op> operations = every_operation(a);
  ASSERT_EQ(operations.size(), std::variant_size_v<Op>);
  for (size_t i = 0; i < operations.size(); ++i) {
    const Op& op = operations[i];
    ASSERT_EQ(op.index(), i);
    SCOPED_TRACE(std::string(name_of(op)));
    const auto reference = make_backend("reference");
    EXPECT_NO_THROW(Checked(*reference).run(op));
    for (size_t result = 0; result < results(op).size(); ++result)
      for (Wrong::Flip flip : {Wrong::Flip::sign, Wrong::Flip::mantissa}) {
        Wrong wrong(result, flip);
        std::vector<Mismatch> found;
        Checked(wrong, [&](const Mismatch& mismatch) { found.push_back(mismatch); }).run(op);
        ASSERT_EQ(found.size(), 1u) << "result " << result;
        EXPECT_EQ(found[0].operation, name_of(op));
        EXPECT_GT(std::abs(found[0].found - found[0].expected), found[0].tolerance);
      }
  }
}

TEST(Checked, SaysWhatIsWrongAndWhere) {
  Operands a(2);
  const Add op{a.filled(0.0f, 1, 4), a.filled(1.0f, 1, 4), a.filled(2.0f, 1, 4)};
  Wrong wrong(0, Wrong::Flip::sign);
  try {
    Checked(wrong).run(op);
    FAIL() << "a wrong sum passed";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("Add.y[2] is -3, the reference says 3"));
  }
}

TEST(Counted, AddsUpFlopsAndBytes) {
  Operands a(3);
  const auto cpu = make_backend("cpu");
  Counted counted(*cpu);
  const Matmul matmul{
      .y = a.normal(3, 7), .x = a.normal(3, 5), .w = a.matrix(DType::bf16, 7, 5), .compute = Compute::f32};
  counted.run(matmul), counted.run(matmul);
  counted.run(Add{a.normal(3, 7), a.normal(3, 7), a.normal(3, 7)});
  const std::vector<Usage> usage = counted.usage();
  ASSERT_EQ(usage.size(), 2u);
  EXPECT_EQ(usage[0].operation, "Matmul");
  EXPECT_EQ(usage[0].calls, 2);
  EXPECT_EQ(usage[0].flops, 2 * (2 * 3 * 5 * 7));
  EXPECT_EQ(usage[0].bytes, 2 * (4 * (3 * 7 + 3 * 5) + 2 * 7 * 5));
  EXPECT_EQ(usage[1].operation, "Add");
  EXPECT_EQ(usage[1].bytes, 3 * 4 * 21);
  counted.reset();
  EXPECT_TRUE(counted.usage().empty());
}

TEST(Timed, MeasuresEveryOperation) {
  Operands a(4);
  const auto cpu = make_backend("cpu");
  Timed timed(*cpu);
  for (const Op& op : every_operation(a)) timed.run(op);
  const std::vector<Usage> usage = timed.usage();
  ASSERT_EQ(usage.size(), std::variant_size_v<Op>);
  for (const Usage& u : usage) {
    EXPECT_GT(u.seconds, 0) << u.operation;
    EXPECT_GT(u.bytes, 0) << u.operation;
  }
  EXPECT_THAT(usage_table(usage),
              ::testing::AllOf(::testing::HasSubstr("AttentionBackward"), ::testing::HasSubstr("GB/s")));
}

}  // namespace
}  // namespace sparsam
