#include "measure/speed.h"

#include <gtest/gtest.h>

#include "infer/test_support.h"

namespace sparsam {
namespace {

TEST(Speed, SummarisesRepetitions) {
  const Repeated odd = summarize(std::vector<double>{3, 1, 2}), even = summarize(std::vector<double>{4, 1, 2, 3});
  EXPECT_EQ(odd.median, 2);
  EXPECT_EQ(odd.least, 1);
  EXPECT_EQ(odd.most, 3);
  EXPECT_EQ(even.median, 2.5);
}

TEST(Speed, FractionsFollowFromTheCounts) {
  const Model model = random_model(make_config(tiny_llama_like), DType::bf16, 1);
  const auto backend = make_backend("cpu");
  const MachinePeaks peaks{.f32_gflops = 100, .bf16_gflops = 200, .bandwidth_gbytes = 10};
  const SpeedOptions options{.session = {.compute = Compute::bf16}, .repetitions = 2};
  const PrefillSpeed prefill = measure_prefill(model, *backend, 8, options, peaks);
  // Per token and layer: q, o 32 x 32, k, v 16 x 32, MLP 3 x 48 x 32, scores and values 4 x 32 x 4.5; one head's row.
  const double expected = 8 * 3 * (2 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 48 * 32) + 4 * 32 * 4.5) + 2 * 300 * 32;
  EXPECT_DOUBLE_EQ(prefill.flops, expected);
  EXPECT_NEAR(prefill.fraction_of_peak, expected / 8 * prefill.tokens_per_second.median / 200e9, 1e-12);
  const DecodeSpeed decode = measure_decode(model, *backend, 3, 10, options, peaks);
  // Keys and values of 10 + 2 positions on average, 2 bytes each; every weight once.
  EXPECT_DOUBLE_EQ(decode.bytes_per_token, static_cast<double>(weight_bytes(model)) + 12 * 2 * 3 * 16 * 2);
  EXPECT_NEAR(decode.fraction_of_bandwidth, decode.bytes_per_token * decode.tokens_per_second.median / 10e9, 1e-12);
}

}  // namespace
}  // namespace sparsam
