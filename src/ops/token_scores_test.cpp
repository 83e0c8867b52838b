// Token scores: gradients by central differences, the kernel against the reference, closed forms, rows of zeros.
#include "ops/cpu_test_support.h"

namespace sparsam {
namespace {

constexpr std::array<Theta, 3> thetas{Theta::l2_gelu, Theta::gelu_l2, Theta::softmax};
std::string text(Theta theta) { return fmt::format("theta {}", static_cast<int>(theta)); }

// The function, and the mask of tokens that came with growth.
struct Case {
  Theta theta;
  double mask = 1;
};
const std::vector<Case> cases{
    {Theta::l2_gelu}, {Theta::gelu_l2}, {Theta::softmax}, {Theta::l2_gelu, 0.3}, {Theta::l2_gelu, 0}};

TEST(TokenScores, Gradients) {
  for (const auto& [theta, mask] : cases)
    for (const auto& [rows, tokens] : std::vector<std::pair<i64, i64>>{{1, 1}, {1, 7}, {3, 2}, {5, 16}})
      for (const bool wanted : {false, true}) {
        SCOPED_TRACE(fmt::format("{}, mask {}", text(theta), mask));
        const i64 old = mask == 1 ? 0 : (tokens + 1) / 2;
        Operands a(1);
        const auto scores = [&, N = rows, P = tokens] { return a.normal<double>(N, P); };
        const auto x = scores(), s = scores();
        const auto norm = a.normal<double>(rows);
        // An epsilon of the norm's own size: its place in the derivative shows.
        check_gradients(
            generic::TokenScores<double>{
                .s = s, .norm = norm, .a = x, .tau = 2.5, .eps = 0.5, .theta = theta, .old = old, .mask = mask},
            generic::TokenScoresBackward<double>{.da = scores(),
                                                 .s = wanted ? scores() : View<double, 2>(),
                                                 .ds = scores(),
                                                 .a = x,
                                                 .norm = norm,
                                                 .tau = 2.5,
                                                 .eps = 0.5,
                                                 .theta = theta,
                                                 .old = old,
                                                 .mask = mask});
      }
}

class CpuTokenScores : public CpuTest {};

TEST_F(CpuTokenScores, AsTheReference) {
  std::vector<std::pair<i64, i64>> sizes{{37, 257}, {150, 97}, {3, 9001}};
  for (const i64 tokens : ragged_sizes) sizes.emplace_back(1 + tokens % 4, tokens);
  for (const auto& [theta, wide_mask] : cases)
    for (const auto& [rows, tokens] : sizes)
      for (const double size : {1e-3, 1.0, 30.0}) {
        const float mask = static_cast<float>(wide_mask);
        const i64 old = mask == 1 ? 0 : tokens / 3;
        const std::string what = fmt::format("({}, {}) of {}, {}, mask {}", rows, tokens, size, text(theta), mask);
        Operands a(2, tokens % 3);
        const float tau = std::sqrt(static_cast<float>(tokens)), eps = 1e-6f;
        const auto x = a.scaled(size, rows, tokens), ds = a.normal(rows, tokens);
        const auto norm = a.filled(nan_f, rows);
        const auto out = [&, N = rows, P = tokens] { return a.filled(nan_f, N, P); };
        TokenScores forward{
            .s = out(), .norm = norm, .a = x, .tau = tau, .eps = eps, .theta = theta, .old = old, .mask = mask};
        expect_right(forward, what);
        run_reference(forward);
        TokenScoresBackward backward{.da = out(),
                                     .s = out(),
                                     .ds = ds,
                                     .a = x,
                                     .norm = norm,
                                     .tau = tau,
                                     .eps = eps,
                                     .theta = theta,
                                     .old = old,
                                     .mask = mask};
        expect_right(backward, what);
        backward.da = ds, backward.s = {};
        expect_right(backward, what + " in place");
        if (theta == Theta::l2_gelu && mask == 1) {
          forward.root = a.scaled(size, rows, 1 + tokens % 40);
          expect_right(forward, what + ", given the norm");
          forward.root = {};
        }
        forward.s = x, forward.norm = {};
        expect_right(forward, what + " in place");
      }
}

// s once more, bit for bit: what is not kept is not lost.
TEST_F(CpuTokenScores, TheBackwardGivesTheForwardsScores) {
  for (const Theta theta : {Theta::l2_gelu, Theta::gelu_l2}) {
    Operands a(3);
    const auto x = a.normal(7, 131), s = a.normal(7, 131), again = a.normal(7, 131), da = a.normal(7, 131);
    const auto norm = a.normal(7);
    const auto backend = make_backend("cpu");
    backend->run(TokenScores{.s = s, .norm = norm, .a = x, .tau = 11, .eps = 1e-6f, .theta = theta});
    backend->run(TokenScoresBackward{
        .da = da, .s = again, .ds = x, .a = x, .norm = norm, .tau = 11, .eps = 1e-6f, .theta = theta});
    for (i64 i = 0; i < s.size(); ++i) EXPECT_EQ(s.data()[i], again.data()[i]) << text(theta) << i;
  }
}

// What the definitions say without computing: softmax sums to tau^2, gelu_l2 has length tau, l2_gelu and gelu_l2 do not
// see keys of zeros, l2_gelu does not see the size of x.
TEST(TokenScores, ClosedForms) {
  Operands a(4);
  const i64 P = 64, more = 40;
  const auto x = a.normal(1, P), grown = a.filled(0.0f, 1, P + more), twice = a.filled(0.0f, 1, P);
  std::copy(x.begin(), x.end(), grown.begin());
  std::transform(x.begin(), x.end(), twice.begin(), [](float v) { return 1024 * v; });
  const auto backend = make_backend("cpu");
  const auto scores = [&](In<float, 2> from, Theta theta) {
    const auto s = a.filled(nan_f, 1, from.shape(1));
    backend->run(TokenScores{.s = s, .a = from, .tau = 8, .eps = 0, .theta = theta});
    return s;
  };
  double sum = 0, squares = 0;
  for (const float s : scores(x, Theta::softmax)) sum += s;
  for (const float s : scores(x, Theta::gelu_l2)) squares += static_cast<double>(s) * s;
  EXPECT_NEAR(sum, 64, 64e-6);
  EXPECT_NEAR(squares, 64, 64e-6);
  for (const Theta theta : {Theta::l2_gelu, Theta::gelu_l2}) {
    const auto before = scores(x, theta), after = scores(grown, theta);
    for (i64 p = 0; p < P + more; ++p) EXPECT_NEAR(after(0, p), p < P ? before(0, p) : 0, 1e-6 * 8) << text(theta) << p;
  }
  const auto one = scores(x, Theta::l2_gelu), other = scores(twice, Theta::l2_gelu);
  for (i64 p = 0; p < P; ++p) EXPECT_EQ(one(0, p), other(0, p)) << p;  // 1024 is a power of two
}

// The published code divides 0 by 0 there.
TEST_F(CpuTokenScores, RowsOfZerosGiveZeros) {
  for (const Theta theta : {Theta::l2_gelu, Theta::gelu_l2}) {
    Operands a(5);
    const auto x = a.filled(0.0f, 2, 33), s = a.filled(nan_f, 2, 33), da = a.filled(nan_f, 2, 33);
    const auto ds = a.normal(2, 33);
    const auto norm = a.filled(nan_f, 2);
    x(1, 4) = 1;
    run_everywhere(TokenScores{.s = s, .norm = norm, .a = x, .tau = 5, .eps = 1e-6f, .theta = theta}, [&] {
      EXPECT_EQ(norm[0], 0);
      for (i64 p = 0; p < 33; ++p) EXPECT_EQ(s(0, p), 0) << p;
      EXPECT_GT(s(1, 4), 4.9f);
    });
    const TokenScoresBackward backward{
        .da = da, .ds = ds, .a = x, .norm = norm, .tau = 5, .eps = 1e-6f, .theta = theta};
    run_everywhere(backward, [&] {
      for (i64 p = 0; p < 33; ++p) EXPECT_TRUE(std::isfinite(da(0, p)) && std::isfinite(da(1, p))) << p;
    });
    expect_right(backward, text(theta));
  }
}

// A NaN shows in its row and in no other.
TEST_F(CpuTokenScores, NanIsNotLost) {
  for (const Theta theta : thetas) {
    Operands a(6);
    const auto x = a.normal(3, 33), s = a.filled(0.0f, 3, 33);
    x(1, 20) = nan_f;
    run_everywhere(TokenScores{.s = s, .a = x, .tau = 5, .eps = 1e-6f, .theta = theta}, [&] {
      for (i64 p = 0; p < 33; ++p)
        EXPECT_TRUE(std::isnan(s(1, p)) && std::isfinite(s(0, p)) && std::isfinite(s(2, p))) << text(theta) << p;
    });
  }
}

}  // namespace
}  // namespace sparsam
