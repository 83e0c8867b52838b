// Linear maps of heads, mixtures weighed by what each part has seen, delays and recurrences in log space: gradients
// against central differences, closed forms, the cpu backend against the reference.
#include "ops/cpu_test_support.h"

namespace sparsam {
namespace {

TEST(Heads, Gradients) {
  Operands a(5);
  const auto x = a.normal<double>(4, 2, 3), w = a.normal<double>(2, 5, 3).as(2, 5, 3);
  check_gradients(generic::HeadLinear<double>{.y = a.normal<double>(4, 2, 5), .x = x, .w = w},
                  generic::HeadLinearBackward<double>{.dx = a.normal<double>(4, 2, 3),
                                                      .dw = a.normal<double>(2, 5, 3),
                                                      .dy = a.normal<double>(4, 2, 5),
                                                      .x = x,
                                                      .w = w});
  const auto u = a.normal<double>(4, 2, 3), v = a.normal<double>(4, 2, 3);
  const auto logit = a.normal<double>(2);
  const auto u_lse = a.normal<double>(2, 2, 2), v_lse = a.normal<double>(2, 2, 2);
  check_gradients(
      generic::HeadMix<double>{
          .y = a.normal<double>(4, 2, 3), .a = u, .b = v, .logit = logit, .a_lse = u_lse, .b_lse = v_lse},
      generic::HeadMixBackward<double>{.da = a.normal<double>(4, 2, 3),
                                       .db = a.normal<double>(4, 2, 3),
                                       .dlogit = a.normal<double>(2),
                                       .dy = a.normal<double>(4, 2, 3),
                                       .a = u,
                                       .b = v,
                                       .logit = logit,
                                       .a_lse = u_lse,
                                       .b_lse = v_lse});
  for (i64 delay : {1, 2, 5, 9}) {
    const auto in = a.normal<double>(2, 5, 3);
    check_gradients(generic::Delay<double>{.y = a.normal<double>(2, 5, 3), .x = in, .delay = delay},
                    generic::DelayBackward<double>{
                        .dx = a.normal<double>(2, 5, 3), .dy = a.normal<double>(2, 5, 3), .delay = delay});
  }
  const auto coefficient = a.normal<double>(2, 6, 3), in = a.normal<double>(2, 6, 3), y = a.normal<double>(2, 6, 3);
  check_gradients(generic::LogRecurrence<double>{.y = y, .coefficient = coefficient, .x = in},
                  generic::LogRecurrenceBackward<double>{.dcoefficient = a.normal<double>(2, 6, 3),
                                                         .dx = a.normal<double>(2, 6, 3),
                                                         .dy = a.normal<double>(2, 6, 3),
                                                         .y = y,
                                                         .coefficient = coefficient,
                                                         .x = in});
}

// Two averages become the one over both, whose lse the backward passes then get.
TEST(Heads, MixesAsOneAverage) {
  Operands a(6);
  const i64 keys = 5, first = 2;
  const auto s = a.normal<double>(keys), v = a.normal<double>(keys);
  const double logit = 0.7;
  const auto average = [&](i64 from, i64 to, double factor, double& lse) {
    double mass = 0, sum = 0;
    for (i64 u = from; u < to; ++u) mass += factor * std::exp(s[u]), sum += factor * std::exp(s[u]) * v[u];
    lse = std::log(mass);
    return sum / mass;
  };
  double lse = 0, other = 0, all = 0, mass = 0;
  const auto scalar = [&](double value) { return a.filled(value, 1, 1, 1); };
  const auto x = scalar(average(0, first, 1, lse)), y = scalar(average(first, keys, 1, other));
  for (i64 u = 0; u < keys; ++u) {
    const double weight = std::exp(s[u] + (u < first ? logit : 0));
    mass += weight, all += weight * v[u];
  }
  const auto result = scalar(NAN), joint = scalar(NAN), other_joint = scalar(NAN);
  reference::run(generic::HeadMix<double>{.y = result,
                                          .a = x,
                                          .b = y,
                                          .logit = a.filled(logit, 1),
                                          .a_lse = scalar(lse),
                                          .b_lse = scalar(other),
                                          .a_joint = joint,
                                          .b_joint = other_joint});
  EXPECT_NEAR(result(0, 0, 0), all / mass, 1e-14);
  EXPECT_NEAR(other_joint(0, 0, 0), std::log(mass), 1e-14);
  EXPECT_NEAR(joint(0, 0, 0), std::log(mass) - logit, 1e-14);
}

// A ring of the last inputs gives in pieces what one call gives.
TEST(Heads, DelaysInPieces) {
  Operands a(7);
  const i64 time = 23, channels = 3;
  for (i64 delay : {1, 4, 7}) {
    const auto x = a.normal(1, time, channels), whole = a.filled(nan_f, 1, time, channels);
    reference::run(Delay{.y = whole, .x = x, .delay = delay, .fill = -2});
    for (const char* name : {"cpu", "reference"}) {
      const auto backend = make_backend(name);
      const auto state = a.filled(-2.0f, 1, delay, channels), pieces = a.filled(nan_f, 1, time, channels);
      i64 start = 0;
      for (i64 length : {1, 1, 5, 2, 10, 1, 3}) {
        const auto part = [&](const auto& all) { return all[0].slice(start, length).as(1, length, channels); };
        backend->run(Delay{.y = part(pieces), .x = part(x), .delay = delay, .state = state, .start = start});
        start += length;
      }
      EXPECT_TRUE(std::equal(whole.begin(), whole.end(), pieces.begin())) << name << " " << delay;
    }
  }
}

TEST(Heads, RecursInPiecesAndAsItsFormula) {
  Operands a(8);
  const i64 time = 9, channels = 5;
  const auto c = a.scaled(3, 1, time, channels), x = a.scaled(3, 1, time, channels);
  const auto whole = a.filled(nan_f, 1, time, channels);
  reference::run(LogRecurrence{.y = whole, .coefficient = c, .x = x});
  for (i64 i = 0; i < channels; ++i) {
    double sum = 1;  // exp(0)
    for (i64 t = 0; t < time; ++t) {
      sum = sum / (1 + std::exp(-double{c(0, t, i)})) + std::exp(double{x(0, t, i)});
      EXPECT_NEAR(whole(0, t, i), std::log(sum), 1e-6 * (1 + std::abs(std::log(sum))));
    }
  }
  const auto backend = make_backend("cpu");
  const auto state = a.filled(0.0f, 1, channels);
  const auto pieces = a.filled(nan_f, 1, time, channels);
  i64 start = 0;
  for (i64 length : {1, 5, 3}) {
    const auto part = [&](const auto& all) { return all[0].slice(start, length).as(1, length, channels); };
    backend->run(LogRecurrence{.y = part(pieces), .coefficient = part(c), .x = part(x), .state = state});
    start += length;
  }
  for (i64 i = 0; i < whole.size(); ++i) EXPECT_NEAR(pieces.data()[i], whole.data()[i], 2e-6);
}

using CpuHeads = CpuTest;

TEST_F(CpuHeads, EqualsTheReference) {
  Operands a(9);
  for (i64 rows : {1, 3, 70})
    for (i64 size : {1, 7, 16, 33})
      for (i64 features : {1, 20, 64}) {
        const i64 heads = 3;
        const auto x = a.normal(rows, heads, size), w = a.normal(heads, features, size);
        expect_right(HeadLinear{.y = a.filled(nan_f, rows, heads, features), .x = x, .w = w});
        expect_right(HeadLinearBackward{.dx = a.filled(nan_f, rows, heads, size),
                                        .dw = a.normal(heads, features, size),
                                        .dy = a.normal(rows, heads, features),
                                        .x = x,
                                        .w = w});
      }
  for (i64 time : {1, 6})
    for (i64 size : {1, 9, 32}) {
      const i64 batch = 2, heads = 3, rows = batch * time;
      const auto x = a.normal(rows, heads, size), y = a.normal(rows, heads, size);
      const auto logit = a.normal(heads);
      const auto x_lse = a.scaled(5, batch, heads, time), y_lse = a.scaled(5, batch, heads, time);
      x_lse(1, 2, 0) = -std::numeric_limits<float>::infinity();
      expect_right(HeadMix{.y = a.filled(nan_f, rows, heads, size),
                           .a = x,
                           .b = y,
                           .logit = logit,
                           .a_lse = x_lse,
                           .b_lse = y_lse,
                           .a_joint = a.filled(nan_f, batch, heads, time),
                           .b_joint = a.filled(nan_f, batch, heads, time)});
      expect_right(HeadMixBackward{.da = a.filled(nan_f, rows, heads, size),
                                   .db = a.filled(nan_f, rows, heads, size),
                                   .dlogit = a.normal(heads),
                                   .dy = a.normal(rows, heads, size),
                                   .a = x,
                                   .b = y,
                                   .logit = logit,
                                   .a_lse = x_lse,
                                   .b_lse = y_lse});
      expect_right(
          DelayBackward{.dx = a.filled(nan_f, batch, time, size), .dy = a.normal(batch, time, size), .delay = 2});
      const auto c = a.scaled(4, batch, time, size), in = a.scaled(4, batch, time, size);
      const auto recurrence = a.filled(nan_f, batch, time, size);
      expect_right(LogRecurrence{.y = recurrence, .coefficient = c, .x = in, .state = a.normal(batch, size)});
      run_reference(LogRecurrence{.y = recurrence, .coefficient = c, .x = in});
      expect_right(LogRecurrenceBackward{.dcoefficient = a.filled(nan_f, batch, time, size),
                                         .dx = a.filled(nan_f, batch, time, size),
                                         .dy = a.normal(batch, time, size),
                                         .y = recurrence,
                                         .coefficient = c,
                                         .x = in});
    }
}

}  // namespace
}  // namespace sparsam
