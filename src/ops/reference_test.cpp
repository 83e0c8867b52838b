// The reference's forwards against closed forms and against PyTorch 1.13 in double precision.
#include <gmock/gmock.h>

#include "base/test_support.h"
#include "ops/activation.h"
#include "ops/test_support.h"

namespace sparsam {
namespace {

using Numbers = std::vector<double>;

template <int Rank>
void expect_near(const View<double, Rank>& found, const Numbers& expected) {
  ASSERT_EQ(found.span().size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i)
    EXPECT_NEAR(found.data()[i], expected[i], 1e-8 * std::max(1.0, std::abs(expected[i]))) << i;
}
template <class... Sizes>
View<double, static_cast<int>(sizeof...(Sizes))> view(Numbers& numbers, Sizes... sizes) {
  return View<double, 1>(numbers.data(), {static_cast<i64>(numbers.size())}).as(sizes...);
}

TEST(Reference, ActivationsAreTorchs) {
  const std::vector<std::pair<Function, Numbers>> expected{
      {Function::relu, {0, 0, 0, 0, 0.75, 2}},
      {Function::relu2, {0, 0, 0, 0, 0.5625, 4}},
      {Function::gelu, {-0.00404969409, -0.132062217, -0.154268769, 0, 0.580029486, 1.95449974}},
      {Function::gelu_tanh, {-0.00363739208, -0.132285797, -0.15428599, 0, 0.579960555, 1.95459769}},
      {Function::silu, {-0.14227762, -0.278375174, -0.188770334, 0, 0.509384024, 1.76159416}}};
  Numbers x{-3.0, -1.25, -0.5, 0.0, 0.75, 2.0}, y(6), up{1, 2, 3, 4, 5, 6};
  for (const auto& [function, values] : expected) {
    reference::run(generic::Activation<double>{view(y, 1, 6), view(x, 1, 6), function});
    expect_near(view(y, 6), values);
    reference::run(generic::GatedProduct<double>{view(y, 1, 6), view(x, 1, 6), view(up, 1, 6), function});
    Numbers products = values;
    for (size_t i = 0; i < 6; ++i) products[i] *= up[i];
    expect_near(view(y, 6), products);
  }
}

// torch.where(x > threshold, x, 0), and its product where both branches are activated.
TEST(Reference, FatReluKeepsWhatExceedsItsThreshold) {
  Numbers x{-3.0, 0.0, 0.49, 0.5, 0.51, 2.0}, y(6), up{1, 2, 3, 0.25, 0.5, 6};
  reference::run(generic::Activation<double>{view(y, 1, 6), view(x, 1, 6), Function::fatrelu, 0.5});
  EXPECT_EQ(y, (Numbers{0, 0, 0, 0, 0.51, 2}));
  generic::GatedProduct<double> product{view(y, 1, 6), view(x, 1, 6), view(up, 1, 6), Function::fatrelu, 0.5};
  reference::run(product);
  EXPECT_EQ(y, (Numbers{0, 0, 0, 0, 0.255, 12}));
  product.activate_up = true;
  reference::run(product);
  EXPECT_EQ(y, (Numbers{0, 0, 0, 0, 0, 12}));
}

TEST(Reference, NormsAreTorchs) {
  Numbers x{1, -2, 3.5, 0.25, 4, -1}, gain{1.5, -0.5, 2}, bias{0.1, 0.2, -0.3}, y(6);
  reference::run(generic::LayerNorm<double>{
      .y = view(y, 2, 3), .x = view(x, 2, 3), .gain = view(gain, 3), .bias = view(bias, 3), .eps = 1e-2});
  expect_near(view(y, 6), {0.211077595, 0.829439704, 2.06965536, -0.487697777, -0.485647407, -2.25899259});
  reference::run(generic::RmsNorm<double>{.y = view(y, 2, 3), .x = view(x, 2, 3), .gain = view(gain, 3), .eps = 1e-2});
  expect_near(view(y, 6), {0.625, 0.416666667, 2.91666667, 0.157104672, -0.837891585, -0.837891585});
}

TEST(Reference, MatmulAndCrossEntropyAreTorchs) {
  Numbers x{1, -2, 3.5, 0.25, 4, -1}, w{0.5, -1, 0.25, 1, 0, -0.75, -0.5, 0.3, 2, 0, 1, 1}, bias{1, 2, 3, 4}, y(8);
  reference::run(generic::Matmul<double>{.y = view(y, 2, 4),
                                         .x = view(x, 2, 3),
                                         .w = as_matrix(view(w, 4, 3)),
                                         .bias = view(bias, 4),
                                         .compute = Compute::f32});
  expect_near(view(y, 8), {4.375, 0.375, 8.9, 5.5, -3.125, 3, 2.075, 7});
  Numbers loss(2);
  for (const auto& [target, expected] : std::vector<std::pair<i32, double>>{{1, 2.14486382}, {-100, 0}}) {
    const std::array<i32, 2> targets{2, target};
    reference::run(generic::LinearCrossEntropy<double>{.loss = view(loss, 2),
                                                       .x = view(x, 2, 3),
                                                       .head = as_matrix(view(w, 4, 3)),
                                                       .targets = In<i32, 1>(targets.data(), {2}),
                                                       .compute = Compute::f32});
    expect_near(view(loss, 2), {0.088811913, expected});
  }
}

TEST(Reference, AttentionIsTorchs) {
  Numbers q(12), k(6), v{1, -1, 2, 0.5, -3, 4}, y(12), lse(6);
  for (size_t i = 0; i < 12; ++i) q[i] = static_cast<double>(i) / 4 - 1;
  for (size_t i = 0; i < 6; ++i) k[i] = static_cast<double>(i) / 3 - 0.5;
  generic::Attention<double> op{.y = view(y, 1, 3, 2, 2),
                                .lse = view(lse, 1, 2, 3),
                                .q = view(q, 1, 3, 2, 2),
                                .k = view(k, 1, 3, 1, 2),
                                .v = view(v, 1, 3, 1, 2),
                                .scale = std::sqrt(0.5),
                                .causal = true,
                                .compute = Compute::f32};
  const Numbers causal{1,           -1,           1,           -1,
                       1.52942873,  -0.205856906, 1.64319434,  -0.0352084911,
                       -1.49217093, 2.76464033,   -1.99648425, 3.21618865};
  reference::run(op);
  expect_near(op.y, causal);
  expect_near(op.lse, {0.441941738, 0.72434507, 2.00305914, 0.206239478, 0.76539897, 2.56087825});

  // The same through a cache: the first position alone, then two at once.
  Numbers keys(2 * 5), values(2 * 5);
  const auto matrix = [](Numbers& numbers) {
    return MutableMatrix{DType::f64, 5, 2, std::as_writable_bytes(std::span(numbers))};
  };
  Numbers steps(12);
  const auto three = [](View<double, 4> whole) { return whole[0]; };
  for (const auto& [start, length] : std::vector<std::pair<i64, i64>>{{0, 1}, {1, 2}}) {
    reference::run(generic::CacheAppend<double>{.keys = matrix(keys),
                                                .values = matrix(values),
                                                .k = three(view(k, 1, 3, 1, 2)).slice(start, length),
                                                .v = three(view(v, 1, 3, 1, 2)).slice(start, length),
                                                .start = start});
    reference::run(generic::CachedAttention<double>{.y = three(view(steps, 1, 3, 2, 2)).slice(start, length),
                                                    .q = three(view(q, 1, 3, 2, 2)).slice(start, length),
                                                    .keys = matrix(keys),
                                                    .values = matrix(values),
                                                    .groups = 1,
                                                    .start = start,
                                                    .scale = op.scale,
                                                    .compute = Compute::f32});
  }
  expect_near(view(steps, 12), causal);

  // Each query alone with its own key, and the last two keys.
  op.window = 1;
  reference::run(op);
  expect_near(op.y, {1, -1, 1, -1, 2, 0.5, 2, 0.5, -3, 4, -3, 4});
  op.window = 2;
  reference::run(op);
  const double p = 1 / (1 + std::exp(-std::sqrt(0.5) * (1.0 * (k[4] - k[2]) + 1.25 * (k[5] - k[3]))));
  expect_near(op.y[0].slice(2, 1)[0].slice(0, 1), {2 * (1 - p) - 3 * p, 0.5 * (1 - p) + 4 * p});
  op.window = 0;

  op.causal = false;
  reference::run(op);
  expect_near(op.y, {0.797579026, -0.00773405397, 0.421440791, 0.602830967, -0.1613858, 1.36416978, -0.849827264,
                     2.13137365, -1.49217093, 2.76464033, -1.99648425, 3.21618865});
  expect_near(op.lse, {0.930717754, 1.19162492, 2.00305914, 0.99253869, 1.53525335, 2.56087825});
}

// Three steps of torch.optim.AdamW.
TEST(Reference, AdamWIsTorchs) {
  Numbers w{1, -2}, m(2), v(2);
  const std::vector<std::pair<Numbers, Numbers>> steps{{{0.5, -1}, {0.895199601, -1.8900999}},
                                                       {{2, 0.01}, {0.802522267, -1.81433495}},
                                                       {{-0.25, 0}, {0.738376664, -1.75390194}}};
  for (size_t t = 0; t < steps.size(); ++t) {
    Numbers doubled = steps[t].first;
    for (double& g : doubled) g *= 2;
    reference::run(generic::AdamW<double>{.w = view(w, 2),
                                          .m = view(m, 2),
                                          .v = view(v, 2),
                                          .dw = view(doubled, 2),
                                          .learning_rate = 0.1,
                                          .beta1 = 0.9,
                                          .beta2 = 0.99,
                                          .eps = 1e-3,
                                          .weight_decay = 0.05,
                                          .gradient_scale = 0.5,
                                          .step = static_cast<i64>(t) + 1});
    expect_near(view(w, 2), steps[t].second);
  }
}

// Pair i of a head of four turned by 90 degrees: (a, b) becomes (-b, a).
TEST(Reference, RopeTurnsThePairsOfItsPairing) {
  Numbers x{1, 2, 3, 4, 5}, y(5), cosine{1, 1, 0, 0}, sine{0, 0, 1, 1};  // position 0 stays, position 1 turns
  const i32 one = 1;
  const auto turn = [&](Pairing pairing) {
    reference::run(generic::Rope<double>{.y = view(y, 1, 1, 5),
                                         .x = view(x, 1, 1, 5),
                                         .positions = In<i32, 1>(&one, {1}),
                                         .cosine = view(cosine, 2, 2),
                                         .sine = view(sine, 2, 2),
                                         .pairing = pairing,
                                         .inverse = false});
  };
  turn(Pairing::halves);
  EXPECT_EQ(y, (Numbers{-3, -4, 1, 2, 5}));
  turn(Pairing::interleaved);
  EXPECT_EQ(y, (Numbers{-2, 1, -4, 3, 5}));
}

TEST(Reference, SumsAndTables) {
  Numbers a{1, 2, 3, 4}, b{10, 20, 30, 40}, y(4), norm(1);
  reference::run(generic::Add<double>{view(y, 2, 2), view(a, 2, 2), view(b, 2, 2)});
  EXPECT_EQ(y, (Numbers{11, 22, 33, 44}));
  reference::run(generic::SquaredNorm<double>{view(norm, 1), view(a, 4)});
  EXPECT_EQ(norm[0], 30);
  const std::array<i32, 2> tokens{1, 1};
  reference::run(generic::Embedding<double>{view(y, 2, 2), In<i32, 1>(tokens.data(), {2}), as_matrix(view(b, 2, 2))});
  EXPECT_EQ(y, (Numbers{30, 40, 30, 40}));
}

// Rounding to bf16 takes both factors: 1 + 2^-9 becomes 1.
TEST(Reference, Bf16RoundsBothFactors) {
  Numbers x{1 + 0x1p-9}, w{1 + 0x1p-9}, y(1);
  for (const auto& [compute, expected] :
       std::vector<std::pair<Compute, double>>{{Compute::f32, (1 + 0x1p-9) * (1 + 0x1p-9)}, {Compute::bf16, 1.0}}) {
    reference::run(generic::Matmul<double>{
        .y = view(y, 1, 1), .x = view(x, 1, 1), .w = as_matrix(view(w, 1, 1)), .compute = compute});
    EXPECT_EQ(y[0], expected);
  }
}

TEST(Functions, HaveNamesAndSynonyms) {
  EXPECT_THAT(function_names(),
              ::testing::ElementsAre("relu", "relu2", "gelu", "gelu_tanh", "silu", "fatrelu", "sigmoid"));
  for (const std::string& name : function_names()) EXPECT_EQ(name_of(function_from_name(name, "test")), name);
  EXPECT_EQ(function_from_name("swish", "test"), Function::silu);
  EXPECT_EQ(function_from_name("gelu_new", "test"), Function::gelu_tanh);
  EXPECT_EQ(function_from_name("gelu_pytorch_tanh", "test"), Function::gelu_tanh);
  EXPECT_EQ(function_from_name("relu_squared", "test"), Function::relu2);
  EXPECT_THAT(error_of([] { function_from_name("sliu", "config.json"); }),
              ::testing::AllOf(::testing::HasSubstr("config.json"), ::testing::HasSubstr("'sliu'"),
                               ::testing::HasSubstr("did you mean silu")));
}

}  // namespace
}  // namespace sparsam
