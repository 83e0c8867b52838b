#include "model/execution.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/threads.h"

namespace sparsam {

namespace {

constexpr double two_pi = 2 * std::numbers::pi;

// Changes the frequencies in place.
struct Scaler {
  std::vector<double>& frequencies;
  double base, channels;

  void operator()(std::monostate) const {}
  void operator()(const LinearScaling& s) const {
    for (double& f : frequencies) f /= static_cast<double>(s.factor);
  }
  void operator()(const FactorScaling& s) const {
    for (size_t i = 0; i < frequencies.size(); ++i) frequencies[i] /= static_cast<double>(s.factors[i]);
  }
  // Turns within the original context: more than `high` remain, fewer than `low` are stretched.
  void operator()(const Llama3Scaling& s) const {
    const double low = static_cast<double>(s.low_frequency_factor), high = static_cast<double>(s.high_frequency_factor);
    for (double& f : frequencies) {
      const double turns = static_cast<double>(s.original_context) * f / two_pi;
      const double kept = std::clamp((turns - low) / (high - low), 0.0, 1.0);
      f = (1 - kept) * f / static_cast<double>(s.factor) + kept * f;
    }
  }
  // The pair that turns `turns` times within the original context.
  double pair_of(double turns, i64 context) const {
    return channels * std::log(static_cast<double>(context) / (turns * two_pi)) / (2 * std::log(base));
  }
  void operator()(const YarnScaling& s) const {
    double low = pair_of(static_cast<double>(s.beta_fast), s.original_context);
    double high = pair_of(static_cast<double>(s.beta_slow), s.original_context);
    if (s.truncate) low = std::floor(low), high = std::ceil(high);
    low = std::max(low, 0.0), high = std::min(high, channels - 1);
    if (low == high) high += 0.001;
    for (size_t i = 0; i < frequencies.size(); ++i) {
      const double stretched = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
      double& f = frequencies[i];
      f = stretched * f / static_cast<double>(s.factor) + (1 - stretched) * f;
    }
  }
};

}  // namespace

std::vector<double> rotary_frequencies(const Rotary& rotary, i64 head_dim) {
  const i64 channels = rotary.channels ? rotary.channels : head_dim;
  const double base = static_cast<double>(rotary.base), R = static_cast<double>(channels);
  std::vector<double> frequencies;
  for (i64 i = 0; i < channels / 2; ++i) frequencies.push_back(std::pow(base, -2.0 * static_cast<double>(i) / R));
  std::visit(Scaler{frequencies, base, R}, rotary.scaling);
  return frequencies;
}

RotaryTables::RotaryTables(const Rotary& rotary, i64 head_dim, i64 positions)
    : frequencies_(rotary_frequencies(rotary, head_dim)) {
  constexpr i64 rows = 4096;
  make_room(std::min(positions, rows));
  if (const auto* yarn = std::get_if<YarnScaling>(&rotary.scaling))
    stretch_ = static_cast<double>(yarn->attention_factor);
}

void RotaryTables::make_room(i64 rows) {
  const i64 pairs = static_cast<i64>(frequencies_.size());
  buffer_ = Buffer(2 * rows * pairs * static_cast<i64>(sizeof(float)));
  float* data = buffer_.as<float>().data();
  cosine = {data, {rows, pairs}};
  sine = {data + rows * pairs, {rows, pairs}};
}

void RotaryTables::require(i64 begin, i64 end) {
  if (begin < first || end > first + cosine.shape(0)) {
    if (end - begin > cosine.shape(0)) make_room(end - begin);
    first = begin, computed_ = 0;
  }
  if (end <= first + computed_) return;
  constexpr i64 least = 1024;
  const i64 done = computed_, pairs = cosine.shape(1);
  computed_ = std::min(std::max({end - first, 2 * done, least}), cosine.shape(0));
  parallel_ranges(computed_ - done, 64, [&](int, i64 from, i64 to) {
    for (i64 row = done + from; row < done + to; ++row)
      for (i64 i = 0; i < pairs; ++i) {
        const double angle = static_cast<double>(first + row) * frequencies_[static_cast<size_t>(i)];
        cosine(row, i) = static_cast<float>(stretch_ * std::cos(angle));
        sine(row, i) = static_cast<float>(stretch_ * std::sin(angle));
      }
  });
}

NormActivations norm_forward(const Execution& e, const NormParams<Matrix>& w, In<float, 2> x) {
  NormActivations a;
  const i64 rows = x.shape(0);
  a.y = e.arena.allocate<float>(rows, x.shape(1));
  a.r = e.arena.allocate<float>(rows);
  const float eps = e.config.norm.eps;
  if (e.config.norm.kind == NormKind::rms) {
    e.backend.run(RmsNorm{.y = a.y, .r = a.r, .x = x, .gain = as_vector(w.gain), .eps = eps});
  } else {
    a.mean = e.arena.allocate<float>(rows);
    e.backend.run(LayerNorm{
        .y = a.y, .mean = a.mean, .r = a.r, .x = x, .gain = as_vector(w.gain), .bias = as_vector(w.bias), .eps = eps});
  }
  return a;
}

void norm_backward(const Execution& e, const NormParams<Matrix>& w, const NormParams<Out<float, 2>>& dw,
                   const NormActivations& kept, In<float, 2> x, In<float, 2> dy, Sum<float, 2> dx) {
  if (e.config.norm.kind == NormKind::rms)
    e.backend.run(RmsNormBackward{
        .dx = dx, .dgain = vector_sum(dw.gain), .dy = dy, .x = x, .gain = as_vector(w.gain), .r = kept.r});
  else
    e.backend.run(LayerNormBackward{.dx = dx,
                                    .dgain = vector_sum(dw.gain),
                                    .dbias = vector_sum(dw.bias),
                                    .dy = dy,
                                    .x = x,
                                    .gain = as_vector(w.gain),
                                    .mean = kept.mean,
                                    .r = kept.r});
}

void scale_branch(const Execution& e, Out<float, 2> branch) {
  if (e.config.branch_scale == 1) return;
  e.backend.run(Scale{.y = branch, .x = branch, .factor = e.config.branch_scale});
}
In<float, 2> scaled_gradient(const Execution& e, In<float, 2> dbranch) {
  if (e.config.branch_scale == 1) return dbranch;
  const auto scaled = e.arena.allocate<float>(dbranch.shape(0), dbranch.shape(1));
  e.backend.run(Scale{.y = scaled, .x = dbranch, .factor = e.config.branch_scale});
  return scaled;
}

Out<float, 2> linear_forward(const Execution& e, const LinearParams<Matrix>& w, In<float, 2> x) {
  const auto y = e.arena.allocate<float>(x.shape(0), w.weight.rows);
  e.backend.run(Matmul{.y = y, .x = x, .w = w.weight, .bias = as_vector(w.bias), .compute = e.compute});
  return y;
}

void linear_backward(const Execution& e, const LinearParams<Matrix>& w, const LinearParams<Out<float, 2>>& dw,
                     In<float, 2> x, In<float, 2> dy, Sum<float, 2> dx) {
  e.backend.run(MatmulBackwardInput{.dx = dx, .dy = dy, .w = w.weight, .compute = e.compute});
  e.backend.run(
      MatmulBackwardWeight{.dw = dw.weight, .dbias = vector_sum(dw.bias), .dy = dy, .x = x, .compute = e.compute});
}

}  // namespace sparsam
