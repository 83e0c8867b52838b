// The cpu backend against the reference: operations on rows and on elements.
#include "ops/cpu_test_support.h"

namespace sparsam {
namespace {

constexpr std::array<Function, 6> functions{Function::relu,      Function::relu2, Function::gelu,
                                            Function::gelu_tanh, Function::silu,  Function::fatrelu};

// (rows, columns, elements before the operand): all ragged widths, and enough for several threads.
struct Size {
  i64 rows, columns, lead;
};
std::vector<Size> sizes() {
  std::vector<Size> all;
  for (i64 columns : ragged_sizes) all.push_back({1 + columns % 4, columns, columns % 3});
  all.insert(all.end(), {{37, 257, 1}, {150, 97, 0}, {3, 9001, 1}});
  return all;
}
std::string text(const Size& s) { return fmt::format("({}, {}), lead {}", s.rows, s.columns, s.lead); }

using CpuRows = CpuTest;

TEST_F(CpuRows, Add) {
  for (const Size& s : sizes()) {
    Operands a(1, s.lead);
    const auto x = a.normal(s.rows, s.columns), y = a.normal(s.rows, s.columns);
    expect_right(Add{.y = a.filled(nan_f, s.rows, s.columns), .a = x, .b = y}, text(s));
    expect_right(Add{.y = x, .a = x, .b = y}, text(s) + " in place");
  }
}

TEST_F(CpuRows, Scale) {
  for (const Size& s : sizes()) {
    Operands a(1, s.lead);
    const auto x = a.normal(s.rows, s.columns);
    expect_right(Scale{.y = a.filled(nan_f, s.rows, s.columns), .x = x, .factor = -1.7f}, text(s));
    expect_right(Scale{.y = x, .x = x, .factor = 12}, text(s) + " in place");
  }
}

TEST_F(CpuRows, RmsNorm) {
  for (const Size& s : sizes())
    for (bool gained : {true, false}) {
      Operands a(2, s.lead);
      const auto x = a.scaled(3.0, s.rows, s.columns);
      const auto r = a.filled(nan_f, s.rows);
      const auto gain = gained ? a.normal(s.columns) : View<float, 1>();
      const RmsNorm forward{.y = a.filled(nan_f, s.rows, s.columns),
                            .r = gained ? r : View<float, 1>(),
                            .x = x,
                            .gain = gain,
                            .eps = 1e-5f};
      expect_right(forward, text(s));
      run_reference(RmsNorm{.y = forward.y, .r = r, .x = x, .gain = gain, .eps = 1e-5f});
      expect_right(RmsNormBackward{.dx = a.normal(s.rows, s.columns),
                                   .dgain = gained ? a.normal(s.columns) : gain,
                                   .dy = a.normal(s.rows, s.columns),
                                   .x = x,
                                   .gain = gain,
                                   .r = r},
                   text(s));
    }
}

TEST_F(CpuRows, LayerNorm) {
  for (const Size& s : sizes())
    for (int present : {0, 1, 3}) {
      Operands a(3, s.lead);
      const auto x = a.scaled(3.0, s.rows, s.columns);
      for (float& value : x) value += 10;  // the mean is larger than the deviation
      const auto mean = a.filled(nan_f, s.rows), r = a.filled(nan_f, s.rows);
      const auto optional = [&](bool wanted) { return wanted ? a.normal(s.columns) : View<float, 1>(); };
      LayerNorm forward{.y = a.filled(nan_f, s.rows, s.columns),
                        .x = x,
                        .gain = optional(present & 1),
                        .bias = optional(present & 2),
                        .eps = 1e-5f};
      expect_right(forward, text(s));
      forward.mean = mean, forward.r = r;
      expect_right(forward, text(s));
      run_reference(forward);
      expect_right(LayerNormBackward{.dx = a.normal(s.rows, s.columns),
                                     .dgain = optional(present & 1),
                                     .dbias = optional(present & 2),
                                     .dy = a.normal(s.rows, s.columns),
                                     .x = x,
                                     .gain = forward.gain,
                                     .mean = mean,
                                     .r = r},
                   text(s));
    }
}

// Operands from tiny to large, both signs: the functions' tails and their steep parts.
View<float, 2> wide_range(Operands& a, const Size& s) {
  const auto x = a.normal(s.rows, s.columns);
  const std::array<float, 6> scales{1, 1e-3f, 3, 12, 40, 1e4f};
  for (i64 i = 0; i < x.size(); ++i) x.data()[i] *= scales[static_cast<size_t>(i) % scales.size()];
  return x;
}

TEST_F(CpuRows, Activation) {
  for (Function function : functions)
    for (const Size& s : sizes()) {
      Operands a(4, s.lead);
      const std::string what = text(s) + " " + std::string(name_of(function));
      const auto x = wide_range(a, s), dy = a.normal(s.rows, s.columns);
      const auto out = [&] { return a.filled(nan_f, s.rows, s.columns); };
      constexpr float threshold = 0.3f;
      expect_right(Activation{.y = out(), .x = x, .function = function, .threshold = threshold}, what);
      expect_right(ActivationBackward{.dx = out(), .dy = dy, .x = x, .function = function, .threshold = threshold},
                   what);
      const auto up = a.normal(s.rows, s.columns);
      for (bool both : {false, true}) {
        expect_right(
            GatedProduct{
                .h = out(), .gate = x, .up = dy, .function = function, .threshold = threshold, .activate_up = both},
            what);
        expect_right(GatedProductBackward{.dgate = out(),
                                          .dup = out(),
                                          .dh = dy,
                                          .gate = x,
                                          .up = up,
                                          .function = function,
                                          .threshold = threshold,
                                          .activate_up = both},
                     what);
      }
    }
}

TEST_F(CpuRows, Rope) {
  struct Heads {
    i64 heads, size, turned;
  };
  for (i64 rows : {1, 3, 70})
    for (const Heads& h : {Heads{1, 2, 2}, Heads{2, 8, 8}, Heads{3, 16, 4}, Heads{2, 20, 12}, Heads{5, 64, 64},
                           Heads{2, 80, 32}, Heads{1, 128, 128}, Heads{2, 7, 6}, Heads{1, 34, 34}})
      for (Pairing pairing : {Pairing::halves, Pairing::interleaved})
        for (bool inverse : {false, true}) {
          Operands a(5, h.size % 3);
          const i64 positions = 100;
          const auto x = a.normal(rows, h.heads, h.size);
          Rope rope{.y = a.filled(nan_f, rows, h.heads, h.size),
                    .x = x,
                    .positions = a.below(positions, rows),
                    .cosine = a.normal(positions, h.turned / 2),
                    .sine = a.normal(positions, h.turned / 2),
                    .pairing = pairing,
                    .inverse = inverse};
          const std::string what = fmt::format("{} rows, {} of {}", rows, h.turned, h.size);
          expect_right(rope, what);
          rope.y = x;
          expect_right(rope, what + " in place");
        }
}

TEST_F(CpuRows, L1Norm) {
  for (const Size& s : sizes()) {
    Operands a(9, s.lead);
    const auto h = wide_range(a, s);
    for (i64 i = 0; i < h.size(); i += 3) h.data()[i] = i % 2 ? 0.0f : -0.0f;
    expect_right(L1Norm{.norm = a.filled(nan_f, 1), .active = a.filled(1.0f, s.columns), .h = h}, text(s));
    expect_right(L1NormBackward{.dh = a.normal(s.rows, s.columns), .h = h, .scale = 0.3f}, text(s));
  }
}

TEST_F(CpuRows, SquaredNorm) {
  for (i64 n : ragged_sizes) {
    Operands a(6, n % 3);
    expect_right(SquaredNorm{.sum = a.filled(0.0, 1), .x = a.normal(n)});
  }
  Operands a(6, 1);
  expect_right(SquaredNorm{.sum = a.filled(0.0, 1), .x = a.scaled(1e-25, 100'003)});  // squares below float32
}

TEST_F(CpuRows, AdamW) {
  std::vector<i64> lengths = ragged_sizes;
  lengths.push_back(30'011);
  for (i64 n : lengths)
    for (i64 step : {1, 2, 100'000}) {
      Operands a(7, n % 3);
      const auto v = a.normal(n);
      for (float& value : v) value *= value;
      expect_right(AdamW{.w = a.normal(n),
                         .m = a.normal(n),
                         .v = v,
                         .dw = a.normal(n),
                         .learning_rate = 3e-3f,
                         .beta1 = 0.9f,
                         .beta2 = 0.95f,
                         .eps = 1e-8f,
                         .weight_decay = 0.1f,
                         .gradient_scale = 0.37f,
                         .step = step},
                   fmt::format("{} at step {}", n, step));
    }
}

// A NaN in a row shows in that row and nowhere else.
TEST_F(CpuRows, NanIsNotLost) {
  for (i64 at : {0, 5, 32}) {
    Operands a(8);
    const auto x = a.normal(3, 33), y = a.filled(0.0f, 3, 33);
    x(1, at) = nan_f;
    const auto expect_row = [&] {
      for (i64 c = 0; c < 33; ++c) {
        EXPECT_TRUE(std::isnan(y(1, c))) << c;
        EXPECT_TRUE(std::isfinite(y(0, c)) && std::isfinite(y(2, c))) << c;
      }
    };
    run_everywhere(RmsNorm{.y = y, .x = x, .eps = 1e-5f}, expect_row);
    run_everywhere(LayerNorm{.y = y, .x = x, .eps = 1e-5f}, expect_row);
    for (Function function : functions)
      run_everywhere(Activation{.y = y, .x = x, .function = function},
                     [&] { EXPECT_TRUE(std::isnan(y(1, at))) << name_of(function); });
  }
}

}  // namespace
}  // namespace sparsam
