#include "model/execution.h"

#include <cmath>

namespace sparsam {

RotaryTables::RotaryTables(const Rotary& rotary, i64 head_dim, i64 positions) {
  const i64 channels = rotary.channels ? rotary.channels : head_dim, pairs = channels / 2;
  buffer_ = Buffer(2 * positions * pairs * static_cast<i64>(sizeof(float)));
  float* data = buffer_.as<float>().data();
  cosine = {data, {positions, pairs}};
  sine = {data + positions * pairs, {positions, pairs}};
  for (i64 i = 0; i < pairs; ++i) {
    const double frequency =
        std::pow(static_cast<double>(rotary.base), -2.0 * static_cast<double>(i) / static_cast<double>(channels));
    for (i64 p = 0; p < positions; ++p) {
      const double angle = static_cast<double>(p) * frequency;
      cosine(p, i) = static_cast<float>(std::cos(angle));
      sine(p, i) = static_cast<float>(std::sin(angle));
    }
  }
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
