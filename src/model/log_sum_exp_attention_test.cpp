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
  a.positions = Positions::recurrent, a.output_glu = true, a.mlp = false;
  EXPECT_EQ(config_from_json(to_json(make_config(a)), "there"), make_config(a));
  Architecture shared = lse_architecture();
  shared.window = 5, shared.shared_window = true, shared.feature_dim = 12;
  EXPECT_EQ(config_from_json(to_json(make_config(shared)), "there"), make_config(shared));
  Architecture softmax = lse_architecture();
  softmax.mixer = Mixer::softmax, softmax.convolution = 4;
  EXPECT_EQ(config_from_json(to_json(make_config(softmax)), "there"), make_config(softmax));
  Json wrong = to_json(make_config(a));
  wrong["sparsam"]["layers"][0]["log_sum_exp"]["decays"] = true;
  EXPECT_THROW(config_from_json(wrong, "there"), Error);
}

TEST(LogSumExpDescription, RefusesByName) {
  EXPECT_THAT(error_of_config([](auto& a) { a.window = 4, a.value_dim = 6; }), HasSubstr("values as long as keys"));
  EXPECT_THAT(error_of_config([](auto& a) { a.window = 4, a.log_values = true; }), HasSubstr("log_values"));
  EXPECT_THAT(error_of_config([](auto& a) { a.key_cap = -1; }), HasSubstr("limit of keys"));
  EXPECT_THAT(error_of_config([](auto& a) { a.convolution = 65; }), HasSubstr("convolution taps"));
  EXPECT_THAT(error_of_config([](auto& a) { a.initial_scale = 4; }), HasSubstr("initial_scale without head_scale"));
  EXPECT_THAT(error_of_config([](auto& a) { a.head_scale = true, a.initial_scale = 0; }), HasSubstr("begin with 0"));
  EXPECT_THAT(error_of_config([](auto& a) { a.mixer = Mixer::softmax, a.initial_scale = 4; }),
              HasSubstr("--mixer lse"));
  EXPECT_THAT(error_of_config([](auto& a) { a.shared_window = true; }), HasSubstr("shared_window without a window"));
  EXPECT_THAT(error_of_config([](auto& a) { a.feature_dim = -1; }), HasSubstr("number of features is -1"));
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
  a.shared_window = true, a.feature_dim = 12;  // of 4 query heads and 2 states of 8 channels
  EXPECT_EQ(parameters(), plain + 4 * (24 * 32 + 24 + 4 + 2 + 3 * (32 + 16 + 16) + 4 + (4 + 2) * 12 * 8));
  EXPECT_EQ(state_elements(make_config(a)),
            4 * (2 * 12 * (8 + 2) + 2 * (32 + 16 + 16) + 2 * 5 * 16 + 5 * (2 * 12 * 2 + 16)));
  a.softmax_every = 4;
  EXPECT_EQ(cache_elements_per_token(make_config(a)), 2 * 2 * 8);
}

TEST(LogSumExpDescription, FactorsOfHeadsBeginAsTold) {
  Architecture a = lse_architecture();
  a.head_scale = true, a.initial_scale = 2.5f;
  EXPECT_EQ(config_from_json(to_json(make_config(a)), "there"), make_config(a));
  const auto specs = parameter_specs(make_config(a));
  const FlatParams weights(specs);
  initialize(specs, weights.views, 1);
  const auto& attention = weights.views.layers[1].attention;
  EXPECT_THAT(attention.q_scale.span(), testing::AllOf(testing::SizeIs(4), testing::Each(2.5f)));
  EXPECT_THAT(attention.k_scale.span(), testing::AllOf(testing::SizeIs(2), testing::Each(2.5f)));
}

// What PyTorch counts of the published definition: tools/write_published_lse_goldens.py.
TEST(LogSumExpDescription, PublishedModelHasItsSize) {
  const Config config = make_config(preset("lse-125m"));
  EXPECT_EQ(parameter_count(config), 124'879'872);
  EXPECT_EQ(config.layers.size(), 24u);
  EXPECT_EQ(state_elements(config), 24 * 24 * 32 * 34);  // 2.5 MB in f32, whatever the length
}

}  // namespace
}  // namespace sparsam
