#include "ops/activation.h"

#include <numbers>

#include "ops/reference/arithmetic.h"
#include "ops/reference/reference.h"

namespace sparsam::reference {

namespace {

const double sqrt_half = std::sqrt(0.5);
const double sqrt_2_over_pi = std::sqrt(2 / std::numbers::pi);

template <class W>
bool at_most(const W& a, const W& b) {  // false where one is NaN
  return static_cast<double>(a) <= static_cast<double>(b);
}

template <class W>
W f(Function function, W threshold, W x) {
  switch (function) {
    case Function::relu:
      return x < 0.0 ? 0.0 : x;
    case Function::relu2:
      return x < 0.0 ? 0.0 : x * x;
    case Function::gelu:
      return 0.5 * x * (1.0 + erf(sqrt_half * x));
    case Function::gelu_tanh:
      return 0.5 * x * (1.0 + tanh(sqrt_2_over_pi * (x + 0.044715 * x * x * x)));
    case Function::silu:
      return x / (1.0 + exp(-x));
    case Function::fatrelu:
      return at_most(x, threshold) ? 0.0 : x;
    case Function::sigmoid:
      return 1.0 / (1.0 + exp(-x));
  }
  return x;
}

// f'(x)
template <class W>
W derivative(Function function, W threshold, W x) {
  switch (function) {
    case Function::relu:
      return 0.0 < x ? 1.0 : x < 0.0 ? 0.0 : x;  // 0 at 0, NaN for NaN
    case Function::relu2:
      return x < 0.0 ? 0.0 : 2.0 * x;
    case Function::gelu:  // x Phi(x)  ->  Phi(x) + x phi(x)
      return 0.5 * (1.0 + erf(sqrt_half * x)) + x * (0.5 * sqrt_2_over_pi) * exp(-0.5 * x * x);
    case Function::gelu_tanh: {  // x/2 (1 + t), t = tanh(z)  ->  (1 + t)/2 + x/2 (1 - t^2) z'
      const W t = tanh(sqrt_2_over_pi * (x + 0.044715 * x * x * x));
      return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * (sqrt_2_over_pi * (1.0 + 0.134145 * x * x));
    }
    case Function::silu: {  // x s, s = 1 / (1 + exp(-x))  ->  s + x s (1 - s)
      const W s = 1.0 / (1.0 + exp(-x));
      return s * (1.0 + x * (1.0 - s));
    }
    case Function::fatrelu:
      return threshold < x ? 1.0 : at_most(x, threshold) ? 0.0 : x;  // NaN for NaN
    case Function::sigmoid: {
      const W s = 1.0 / (1.0 + exp(-x));
      return s * (1.0 - s);
    }
  }
  return x;
}

}  // namespace

// y = f(x)
template <class Real>
void run(const generic::Activation<Real>& op) {
  for (i64 i = 0; i < op.x.size(); ++i)
    op.y.data()[i] = static_cast<Real>(f(op.function, wide(op.threshold), wide(op.x.data()[i])));
}

// y = f(x)  ->  dx = dy f'(x)
template <class Real>
void run(const generic::ActivationBackward<Real>& op) {
  for (i64 i = 0; i < op.x.size(); ++i)
    op.dx.data()[i] =
        static_cast<Real>(wide(op.dy.data()[i]) * derivative(op.function, wide(op.threshold), wide(op.x.data()[i])));
}

// h = f(gate) g(up)
template <class Real>
void run(const generic::GatedProduct<Real>& op) {
  const Wide<Real> threshold = wide(op.threshold);
  for (i64 i = 0; i < op.gate.size(); ++i) {
    const Wide<Real> gate = wide(op.gate.data()[i]), up = wide(op.up.data()[i]);
    op.h.data()[i] =
        static_cast<Real>(f(op.function, threshold, gate) * (op.activate_up ? f(op.function, threshold, up) : up));
  }
}

// h = f(gate) g(up)  ->  dgate = dh g(up) f'(gate)     dup = dh f(gate) g'(up)
template <class Real>
void run(const generic::GatedProductBackward<Real>& op) {
  const Wide<Real> threshold = wide(op.threshold);
  for (i64 i = 0; i < op.gate.size(); ++i) {
    const Wide<Real> dh = wide(op.dh.data()[i]), gate = wide(op.gate.data()[i]), up = wide(op.up.data()[i]);
    const Wide<Real> g = op.activate_up ? f(op.function, threshold, up) : up;
    const Wide<Real> slope = op.activate_up ? derivative(op.function, threshold, up) : Wide<Real>(1.0);
    op.dgate.data()[i] = static_cast<Real>(dh * g * derivative(op.function, threshold, gate));
    op.dup.data()[i] = static_cast<Real>(dh * f(op.function, threshold, gate) * slope);
  }
}

template void run(const generic::Activation<float>&);
template void run(const generic::Activation<double>&);
template void run(const generic::Activation<Bounded>&);
template void run(const generic::ActivationBackward<float>&);
template void run(const generic::ActivationBackward<double>&);
template void run(const generic::ActivationBackward<Bounded>&);
template void run(const generic::GatedProduct<float>&);
template void run(const generic::GatedProduct<double>&);
template void run(const generic::GatedProduct<Bounded>&);
template void run(const generic::GatedProductBackward<float>&);
template void run(const generic::GatedProductBackward<double>&);
template void run(const generic::GatedProductBackward<Bounded>&);

}  // namespace sparsam::reference
