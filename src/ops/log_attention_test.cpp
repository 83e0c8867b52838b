// Log-sum-exp attention and its companions: gradients against central differences, the reference against the quadratic
// form and closed forms, the cpu backend against the reference.
#include <algorithm>

#include "ops/cpu_test_support.h"

namespace sparsam {
namespace {

struct Heads {
  i64 batch, time, heads, groups, key_dim, value_dim;
};

// Operands of one attention and of its backward, in Real.
template <class Real>
struct Case {
  Operands a;
  generic::LogAttention<Real> forward;
  generic::LogAttentionBackward<Real> backward;

  Case(const Heads& s, u64 seed, double deviation = 1) : a(seed) {
    const auto [B, T, H, G, E, D] = s;
    forward.y = a.filled(Real(NAN), B, T, H, D), forward.lse = a.filled(Real(NAN), B, H, T);
    forward.q = a.template scaled<Real>(deviation, B, T, H, E);
    forward.k = a.template scaled<Real>(deviation, B, T, G, E);
    forward.v = a.template normal<Real>(B, T, G, D);
    backward.dq = a.filled(Real(NAN), B, T, H, E), backward.dk = a.filled(Real(NAN), B, T, G, E);
    backward.dv = a.filled(Real(NAN), B, T, G, D);
    backward.dy = a.template normal<Real>(B, T, H, D);
    share();
  }
  Case& gated(double size) {
    const auto [B, T, H, G, E, D] = forward.shape();
    const auto gate = a.template scaled<Real>(size, B, T, G, E);
    for (Real& g : gate) g = -std::abs(g);
    forward.gate = gate, backward.dgate = a.filled(Real(NAN), B, T, G, E);
    return share();
  }
  Case& with_states() {
    const auto [B, T, H, G, E, D] = forward.shape();
    forward.initial_sums = a.template normal<Real>(B, G, E, D),
    forward.initial_scale = a.template normal<Real>(B, G, E);
    const auto mass = a.template normal<Real>(B, G, E);
    for (Real& m : mass) m = std::abs(m) + Real(0.5);
    forward.initial_mass = mass;
    forward.final_sums = a.filled(Real(NAN), B, G, E, D), forward.final_mass = a.filled(Real(NAN), B, G, E);
    forward.final_scale = a.filled(Real(NAN), B, G, E);
    backward.dinitial_sums = a.filled(Real(NAN), B, G, E, D), backward.dinitial_mass = a.filled(Real(NAN), B, G, E);
    backward.dinitial_scale = a.filled(Real(NAN), B, G, E);
    backward.dfinal_sums = a.template normal<Real>(B, G, E, D),
    backward.dfinal_scale = a.template normal<Real>(B, G, E);
    return share();
  }
  Case& in_log_space() {
    forward.log_values = true;
    for (const Real& x : forward.initial_sums) const_cast<Real&>(x) = std::abs(x) + Real(0.1);
    return share();
  }
  Case& bidirectional() {
    forward.causal = false;
    return share();
  }
  View<Real, 4> keys() const { return {const_cast<Real*>(forward.k.data()), forward.k.shape()}; }
  View<Real, 4> queries() const { return {const_cast<Real*>(forward.q.data()), forward.q.shape()}; }

 private:
  Case& share() {
    auto& b = backward;
    const auto& f = forward;
    b.y = f.y, b.lse = f.lse, b.q = f.q, b.k = f.k, b.v = f.v, b.gate = f.gate, b.initial_sums = f.initial_sums;
    b.initial_mass = f.initial_mass, b.initial_scale = f.initial_scale, b.causal = f.causal;
    b.log_values = f.log_values;
    return *this;
  }
};

const std::vector<Heads> small_shapes{{1, 1, 1, 1, 1, 1}, {2, 5, 4, 2, 3, 2}, {1, 6, 3, 1, 2, 4}, {1, 4, 2, 2, 4, 3}};

TEST(LogAttention, Gradients) {
  for (const Heads& s : small_shapes)
    for (int options = 0; options < 8; ++options) {
      Case<double> c(s, 1);
      if (options & 1) c.gated(0.5);
      if (options & 2) c.with_states();
      if (options & 4) c.in_log_space();
      check_gradients(c.forward, c.backward);
    }
  for (const Heads& s : small_shapes)
    for (int options = 0; options < 4; ++options) {
      Case<double> c(s, 2);
      if (options & 1) c.with_states();
      if (options & 2) c.in_log_space();
      check_gradients(c.bidirectional().forward, c.backward);
    }
}

TEST(LogAttention, GradientsOfItsCompanions) {
  Operands a(3);
  for (i64 taps : {1, 2, 4, 7}) {
    const auto x = a.normal<double>(2, 5, 3), w = a.normal<double>(1, 3, taps);
    check_gradients(generic::CausalConvolution<double>{.y = a.normal<double>(2, 5, 3), .x = x, .w = w[0]},
                    generic::CausalConvolutionBackward<double>{.dx = a.normal<double>(2, 5, 3),
                                                               .dw = a.normal<double>(3, taps),
                                                               .dy = a.normal<double>(2, 5, 3),
                                                               .x = x,
                                                               .w = w[0]});
  }
  const auto matrix = [&] { return a.normal<double>(3, 2, 4); };
  for (double cap : {0.0, 1.5})
    for (bool scaled : {true, false}) {
      const auto x = matrix(), y = matrix();
      const auto scale = scaled ? a.normal<double>(2) : View<double, 1>();
      check_gradients(generic::HeadScale<double>{.y = y, .x = x, .scale = scale, .cap = cap},
                      generic::HeadScaleBackward<double>{.dx = matrix(),
                                                         .dscale = scaled ? a.normal<double>(2) : scale,
                                                         .dy = matrix(),
                                                         .x = x,
                                                         .y = y,
                                                         .scale = scale,
                                                         .cap = cap});
    }
  const auto x = matrix(), b = matrix();
  const auto logit = a.normal<double>(2);
  check_gradients(generic::HeadMix<double>{.y = matrix(), .a = x, .b = b, .logit = logit},
                  generic::HeadMixBackward<double>{.da = matrix(),
                                                   .db = matrix(),
                                                   .dlogit = a.normal<double>(2),
                                                   .dy = matrix(),
                                                   .a = x,
                                                   .b = b,
                                                   .logit = logit});
  const auto u = a.normal<double>(3, 5);
  check_gradients(generic::LogDecay<double>{.y = a.normal<double>(3, 5), .x = u, .divisor = 16},
                  generic::LogDecayBackward<double>{
                      .dx = a.normal<double>(3, 5), .dy = a.normal<double>(3, 5), .x = u, .divisor = 16});
}

using CpuLogAttention = CpuTest;

const std::vector<Heads> ragged_shapes{{1, 1, 1, 1, 1, 1},    {2, 3, 2, 1, 5, 7},  {1, 64, 1, 1, 16, 16},
                                       {1, 70, 2, 1, 17, 33}, {2, 67, 2, 2, 8, 5}, {1, 150, 2, 1, 3, 4}};

TEST_F(CpuLogAttention, Attention) {
  for (const Heads& s : ragged_shapes)
    for (int options = 0; options < 16; ++options) {
      const bool gated = options & 1, states = options & 2, logs = options & 4, causal = !(options & 8);
      if (gated && !causal) continue;
      if (s.time != 70 && options != 0 && options != 7 && options != 14) continue;
      Case<float> c(s, 4);
      if (gated) c.gated(0.2);
      if (states) c.with_states();
      if (logs) c.in_log_space();
      if (!causal) c.bidirectional();
      const std::string what = fmt::format("T {}, H {}, G {}, E {}, D {}, options {}", s.time, s.heads, s.groups,
                                           s.key_dim, s.value_dim, options);
      expect_right(c.forward, what);
      run_reference(c.forward);
      expect_right(c.backward, what);
    }
}

TEST_F(CpuLogAttention, Step) {
  for (const Heads& s : ragged_shapes)
    for (int options = 0; options < 8; ++options) {
      Operands a(5, s.key_dim % 3);
      const auto [B, T, H, G, E, D] = s;
      const auto mass = a.normal(B, G, E), gate = a.normal(B, G, E), scale = a.normal(B, G, E);
      for (float& m : mass) m = std::abs(m) + 0.5f;
      for (float& g : gate) g = -std::abs(g);
      if (options & 2) scale(0, 0, 0) = -INFINITY, mass(0, 0, 0) = 0;
      const auto sums = a.normal(B, G, E, D);
      if (options & 4)
        for (float& x : sums) x = std::abs(x) + 0.1f;
      LogAttentionStep step{.y = a.filled(nan_f, B, H, D),
                            .sums = sums,
                            .mass = mass,
                            .scale = scale,
                            .q = a.normal(B, H, E),
                            .k = a.scaled(options & 2 ? 30 : 1, B, G, E),
                            .v = a.normal(B, G, D)};
      if (options & 2)
        for (float& x : sums[0][0][0]) x = 0;
      if (options & 1) step.gate = gate;
      step.log_values = options & 4;
      expect_right(step, fmt::format("H {}, G {}, E {}, D {}, options {}", H, G, E, D, options));
    }
}

TEST_F(CpuLogAttention, Companions) {
  Operands a(6);
  for (i64 size : {1, 4, 7, 16, 33}) {
    const i64 rows = 41, heads = 3;
    const auto normal = [&] { return a.normal(rows, heads, size); };
    const auto fresh = [&] { return a.filled(nan_f, rows, heads, size); };
    for (float cap : {0.0f, 2.0f})
      for (bool scaled : {true, false}) {
        const auto x = normal(), y = fresh();
        const auto scale = scaled ? a.normal(heads) : View<float, 1>();
        expect_right(HeadScale{.y = y, .x = x, .scale = scale, .cap = cap});
        run_reference(HeadScale{.y = y, .x = x, .scale = scale, .cap = cap});
        expect_right(HeadScaleBackward{.dx = fresh(),
                                       .dscale = scaled ? a.normal(heads) : scale,
                                       .dy = normal(),
                                       .x = x,
                                       .y = y,
                                       .scale = scale,
                                       .cap = cap});
      }
    const auto x = normal(), y = normal();
    const auto logit = a.scaled(3, heads);
    expect_right(HeadMix{.y = fresh(), .a = x, .b = y, .logit = logit});
    expect_right(HeadMixBackward{
        .da = fresh(), .db = fresh(), .dlogit = a.normal(heads), .dy = normal(), .a = x, .b = y, .logit = logit});
    const auto u = a.scaled(10, rows, size);
    expect_right(LogDecay{.y = a.filled(nan_f, rows, size), .x = u, .divisor = 16});
    expect_right(
        LogDecayBackward{.dx = a.filled(nan_f, rows, size), .dy = a.normal(rows, size), .x = u, .divisor = 16});
    for (i64 taps : {1, 2, 4})
      for (i64 time : {1, 2, 9}) {
        const auto w = a.normal(size, taps);
        const auto in = a.normal(2, time, size);
        expect_right(CausalConvolution{.y = a.filled(nan_f, 2, time, size), .x = in, .w = w});
        if (taps > 1)
          expect_right(CausalConvolution{
              .y = a.filled(nan_f, 2, time, size), .x = in, .w = w, .state = a.normal(2, taps - 1, size)});
        expect_right(CausalConvolutionBackward{.dx = a.filled(nan_f, 2, time, size),
                                               .dw = a.normal(size, taps),
                                               .dy = a.normal(2, time, size),
                                               .x = in,
                                               .w = w});
      }
  }
}

// The literal definition in double on the same operands.
class Exact {
 public:
  explicit Exact(const LogAttention& op) {
    LogAttention::fields([this](const char*, auto& to, const auto& from) { convert(to, from); }, exact_, op);
    reference::run(exact_);
  }
  const generic::LogAttention<double>* operator->() const { return &exact_; }

 private:
  template <int Rank>
  void convert(View<const double, Rank>& to, const View<const float, Rank>& from) {
    if (!from.empty()) to = {values_.emplace_back(from.begin(), from.end()).data(), from.shape()};
  }
  template <int Rank>
  void convert(View<double, Rank>& to, const View<float, Rank>& from) {
    if (!from.empty()) to = {values_.emplace_back(from.begin(), from.end()).data(), from.shape()};
  }
  void convert(bool& to, bool from) { to = from; }
  generic::LogAttention<double> exact_{};
  std::deque<std::vector<double>> values_;
};

// Root of the mean square of the differences, relative to that of the expected.
template <class A, class B>
double distance(const A& found, const B& expected) {
  double difference = 0, size = 0;
  EXPECT_EQ(found.size(), expected.size());
  for (i64 i = 0; i < expected.size(); ++i) {
    const double x = static_cast<double>(expected.data()[i]), gap = static_cast<double>(found.data()[i]) - x;
    difference += gap * gap, size += x * x;
  }
  return std::sqrt(difference / size);
}
void run_cpu(const Op& op) { make_backend("cpu")->run(op); }

// Inputs on which exponentials overflow, or one token hides all before it.
TEST(LogAttention, EqualsTheQuadraticFormUnderStress) {
  const Heads shape{1, 130, 2, 1, 8, 8};
  struct Level {
    double deviation, limit;
  };
  for (const Level& level : {Level{1, 2e-6}, Level{5, 3e-6}, Level{20, 4e-6}, Level{60, 6e-6}}) {
    const double deviation = level.deviation, limit = level.limit;
    Case<float> c(shape, 7, deviation);
    const auto run = [&](const char* what) {
      run_cpu(c.forward);
      const Exact exact(c.forward);
      EXPECT_LT(distance(c.forward.y, exact->y), limit) << what << ", deviation " << deviation;
      EXPECT_LT(distance(c.forward.lse, exact->lse), 3e-7) << what << ", deviation " << deviation;
    };
    run("plain");
    for (float& k : c.keys()) k += 200;
    run("keys shifted by 200");
    for (i64 t = 0; t < shape.time; ++t)
      for (float& k : c.keys()[0][t].span()) k += static_cast<float>(t) - 300;
    run("rising keys");
    for (float& k : c.keys()[0][70].span()) k += 90;
    run("one key 90 above the others");
    for (i64 t : {0, 1, 33, 64, 65}) std::fill(c.keys()[0][t].begin(), c.keys()[0][t].end(), -INFINITY);
    const Exact exact(c.forward);
    run_cpu(c.forward);
    for (i64 i = 0; i < 2 * 2 * 8; ++i) EXPECT_EQ(c.forward.y.data()[i], 0);  // nothing is seen
    EXPECT_EQ(c.forward.lse(0, 1, 1), -INFINITY);
    EXPECT_LT(distance(c.forward.y, exact->y), limit) << "padded";
    c.bidirectional(), run("bidirectional");
  }
}

TEST(LogAttention, ShiftsThatChangeNothing) {
  Case<double> c({1, 20, 2, 1, 4, 3}, 8);
  reference::run(c.forward);
  const std::vector<double> before(c.forward.y.begin(), c.forward.y.end());
  for (i64 t = 0; t < 20; ++t)
    for (double& q : c.queries()[0][t].span()) q += 3.0 * static_cast<double>(t);  // of a query, over all channels
  for (double& k : c.keys()) k -= 11;                                              // of all keys
  reference::run(c.forward);
  for (size_t i = 0; i < before.size(); ++i) EXPECT_NEAR(c.forward.y.data()[i], before[i], 1e-12);
}

TEST(LogAttention, GradientsSumToZero) {
  Case<float> c({1, 150, 2, 1, 8, 8}, 9, 2);
  run_cpu(c.forward), run_cpu(c.backward);
  double keys = 0, size = 0;
  for (i64 t = 0; t < 150; ++t)
    for (i64 h = 0; h < 2; ++h) {
      const auto dq = c.backward.dq[0][t][h];
      double sum = 0, largest = 0;
      for (const float x : dq)
        sum += static_cast<double>(x), largest = std::max(largest, std::abs(static_cast<double>(x)));
      EXPECT_LE(std::abs(sum), 1e-5 * largest + 2e-6);
    }
  for (const float x : c.backward.dk) keys += static_cast<double>(x), size += std::abs(static_cast<double>(x));
  EXPECT_LT(std::abs(keys), 1e-6 * size);
}

TEST(LogAttention, LogarithmsOfValues) {
  Case<double> c({1, 30, 2, 1, 4, 3}, 10);
  c.in_log_space();
  reference::run(c.forward);
  const std::vector<double> logs(c.forward.y.begin(), c.forward.y.end());
  for (const double& v : c.forward.v) const_cast<double&>(v) = std::exp(v);
  c.forward.log_values = false;
  reference::run(c.forward);
  for (size_t i = 0; i < logs.size(); ++i) EXPECT_NEAR(logs[i], std::log(c.forward.y.data()[i]), 1e-13);
}

// Slices of one sequence's operands, tokens [begin, end).
LogAttention piece(const LogAttention& op, i64 begin, i64 end) {
  LogAttention part = op;
  const auto cut = [&](const auto& view) {
    auto slice = view[0].slice(begin, end - begin);
    return slice.as(1, slice.shape(0), slice.shape(1), slice.shape(2));
  };
  part.q = cut(op.q), part.k = cut(op.k), part.v = cut(op.v), part.y = cut(op.y), part.lse = {};
  if (!op.gate.empty()) part.gate = cut(op.gate);
  return part;
}

// Cut anywhere, the state carried over; by steps too.
TEST(LogAttention, PiecesEqualTheWhole) {
  for (const bool logs : {false, true})
    for (const bool gated : {false, true}) {
      const i64 T = 150, H = 4, G = 2, E = 8, D = 12;
      Case<float> c({1, T, H, G, E, D}, 11, 2);
      c.with_states();
      if (gated) c.gated(0.3);
      if (logs) c.in_log_space();
      const Exact whole(c.forward);
      Operands a(12);
      for (i64 cut : {1, 7, 63, 64, 65, 149}) {
        auto first = piece(c.forward, 0, cut), second = piece(c.forward, cut, T);
        first.final_sums = a.normal(1, G, E, D), first.final_mass = a.normal(1, G, E);
        first.final_scale = a.normal(1, G, E);
        second.initial_sums = first.final_sums, second.initial_mass = first.final_mass;
        second.initial_scale = first.final_scale;
        run_cpu(first), run_cpu(second);
        EXPECT_LT(distance(c.forward.y, whole->y), 1e-6) << cut << gated << logs;
        EXPECT_LT(distance(second.final_sums, whole->final_sums), 1e-6) << cut << gated << logs;
        EXPECT_LT(distance(second.final_scale, whole->final_scale), 1e-6) << cut << gated << logs;
      }
      auto copy = [&](const auto& from, auto to) {
        std::copy(from.begin(), from.end(), to.begin());
        return to;
      };
      const auto sums = copy(c.forward.initial_sums, a.normal(1, G, E, D));
      const auto mass = copy(c.forward.initial_mass, a.normal(1, G, E));
      const auto scale = copy(c.forward.initial_scale, a.normal(1, G, E));
      std::fill(c.forward.y.begin(), c.forward.y.end(), nan_f);
      for (i64 t = 0; t < T; ++t) {
        LogAttentionStep step{.y = c.forward.y[0].slice(t, 1),
                              .sums = sums,
                              .mass = mass,
                              .scale = scale,
                              .q = c.forward.q[0].slice(t, 1),
                              .k = c.forward.k[0].slice(t, 1),
                              .v = c.forward.v[0].slice(t, 1),
                              .log_values = logs};
        if (gated) step.gate = c.forward.gate[0].slice(t, 1);
        run_cpu(step);
      }
      EXPECT_LT(distance(c.forward.y, whole->y), 1e-6) << "steps" << gated << logs;
    }
}

TEST(LogAttention, SeesAllAsItsLastCausalQueryDoes) {
  Case<float> c({1, 90, 2, 1, 8, 8}, 13, 2);
  run_cpu(c.forward);
  const auto last = c.forward.y[0][89];
  const std::vector<float> causal(last.begin(), last.end());
  run_cpu(c.bidirectional().forward);
  for (size_t i = 0; i < causal.size(); ++i) EXPECT_NEAR(last.data()[i], causal[i], 1e-6);
}

// A gate of zero changes nothing; one of -infinity begins a new document.
TEST(LogAttention, GatesThatKeepAllOrNothing) {
  Case<float> c({1, 100, 2, 1, 8, 8}, 14, 2);
  run_cpu(c.forward);
  const std::vector<float> before(c.forward.y.begin(), c.forward.y.end());
  c.gated(0);
  run_cpu(c.forward);
  EXPECT_TRUE(std::equal(before.begin(), before.end(), c.forward.y.begin()));
  for (i64 reset : {40, 64, 99}) {
    const auto gate = c.forward.gate[0][reset];
    for (i64 i = 0; i < gate.size(); ++i) const_cast<float*>(gate.data())[i] = -INFINITY;
  }
  run_cpu(c.forward), run_cpu(c.backward);
  for (i64 begin : {40, 64, 99}) {
    auto alone = piece(c.forward, begin, begin == 40 ? 64 : begin == 64 ? 99 : 100);
    const std::vector<float> found(alone.y.begin(), alone.y.end());
    run_cpu(alone);
    EXPECT_LT(distance(In<float, 1>(found.data(), {alone.y.size()}), alone.y), 1e-6);
  }
  const Exact exact(c.forward);
  EXPECT_LT(distance(c.forward.y, exact->y), 1e-6);
  for (const float x : c.backward.dgate) EXPECT_TRUE(std::isfinite(x));
}

}  // namespace
}  // namespace sparsam
