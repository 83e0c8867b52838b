// The description of log-sum-exp attention: written and read, refused by name, counted.
#include <gmock/gmock.h>

#include <functional>

#include "model/params.h"
#include "model/transformer.h"

namespace sparsam {
namespace {

using testing::HasSubstr;

Architecture lse_architecture() {
  return {.vocab = 50, .context = 16, .layers = 4, .dim = 32, .heads = 4, .kv_heads = 2, .mixer = Mixer::lse};
}
std::string error_of_config(const std::function<void(Architecture&)>& change) {
  Architecture a = lse_architecture();
  change(a);
  try {
    make_config(a);
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(LogSumExpDescription, ComesBackAsItWasWritten) {
  Architecture a = lse_architecture();
  EXPECT_EQ(config_from_json(to_json(make_config(a)), "there"), make_config(a));
  a.decay = a.head_scale = true, a.convolution = 4, a.window = 8, a.key_cap = 15.5f, a.softmax_every = 2;
  const Config options = make_config(a);
  EXPECT_EQ(config_from_json(to_json(options), "there"), options);
  EXPECT_TRUE(std::holds_alternative<SoftmaxAttention>(options.layers[1].mixer));
  EXPECT_TRUE(std::holds_alternative<LogSumExpAttention>(options.layers[2].mixer));
  a.window = 0, a.log_values = true, a.value_dim = 6;
  EXPECT_EQ(config_from_json(to_json(make_config(a)), "there"), make_config(a));
  Json wrong = to_json(make_config(a));
  wrong["sparsam"]["layers"][0]["log_sum_exp"]["decays"] = true;
  EXPECT_THROW(config_from_json(wrong, "there"), Error);
}

TEST(LogSumExpDescription, RefusesByName) {
  EXPECT_THAT(error_of_config([](auto& a) { a.window = 4, a.value_dim = 6; }), HasSubstr("values as long as keys"));
  EXPECT_THAT(error_of_config([](auto& a) { a.window = 4, a.log_values = true; }), HasSubstr("log_values"));
  EXPECT_THAT(error_of_config([](auto& a) { a.key_cap = -1; }), HasSubstr("limit of keys"));
  EXPECT_THAT(error_of_config([](auto& a) { a.convolution = 65; }), HasSubstr("convolution taps"));
  EXPECT_THAT(error_of_config([](auto& a) { a.qk_norm = true; }), HasSubstr("--qk-norm"));
  EXPECT_THAT(error_of_config([](auto& a) { a.mixer = Mixer::softmax, a.decay = true; }), HasSubstr("--mixer lse"));
  Config config = make_config(lse_architecture());
  config.inputs.layers.assign(4, {.qkv = 0.1f});
  EXPECT_THROW(validate(config, "here"), Error);
}

TEST(LogSumExpDescription, CountsItsParametersStateAndWork) {
  Architecture a = lse_architecture();
  a.hidden = 64;
  const auto parameters = [&] { return parameter_count(make_config(a)); };
  const i64 plain = parameters();
  EXPECT_EQ(plain, 50 * 32 + 32 + 4 * (2 * 32 + (32 + 16 + 16 + 32) * 32 + 3 * 32 * 64));
  EXPECT_EQ(state_elements(make_config(a)), 4 * 2 * 8 * (8 + 2));
  EXPECT_EQ(cache_elements_per_token(make_config(a)), 0);
  const double work = flops_per_token(make_config(a), 10);
  EXPECT_EQ(work, flops_per_token(make_config(a), 1e6));
  EXPECT_EQ(work, 2.0 * (4 * (96 * 32 + 3 * 32 * 64) + 50 * 32) + 4 * 2 * (4 + 2) * 8 * 8);
  a.decay = a.head_scale = true, a.convolution = 3, a.window = 5;
  EXPECT_EQ(parameters(), plain + 4 * (16 * 32 + 16 + 4 + 2 + 3 * (32 + 16 + 16) + 4));
  EXPECT_EQ(state_elements(make_config(a)), 4 * (2 * 8 * (8 + 2) + 2 * (32 + 16 + 16) + 2 * 5 * 16));
  a.softmax_every = 4;
  EXPECT_EQ(cache_elements_per_token(make_config(a)), 2 * 2 * 8);
}

}  // namespace
}  // namespace sparsam
