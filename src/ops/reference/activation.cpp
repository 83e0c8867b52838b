#include "ops/activation.h"

#include <numbers>

#include "ops/reference/arithmetic.h"
#include "ops/reference/reference.h"

namespace sparsam::reference {

namespace {

const double sqrt_half = std::sqrt(0.5);
const double sqrt_2_over_pi = std::sqrt(2 / std::numbers::pi);

template <class W>
W f(Function function, W x) {
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
  }
  return x;
}

// f'(x)
template <class W>
W derivative(Function function, W x) {
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
  }
  return x;
}

}  // namespace

// y = f(x)
template <class Real>
void run(const generic::Activation<Real>& op) {
  for (i64 i = 0; i < op.x.size(); ++i) op.y.data()[i] = static_cast<Real>(f(op.function, wide(op.x.data()[i])));
}

// y = f(x)  ->  dx = dy f'(x)
template <class Real>
void run(const generic::ActivationBackward<Real>& op) {
  for (i64 i = 0; i < op.x.size(); ++i)
    op.dx.data()[i] = static_cast<Real>(wide(op.dy.data()[i]) * derivative(op.function, wide(op.x.data()[i])));
}

// h = f(gate) up
template <class Real>
void run(const generic::GatedProduct<Real>& op) {
  for (i64 i = 0; i < op.gate.size(); ++i)
    op.h.data()[i] = static_cast<Real>(f(op.function, wide(op.gate.data()[i])) * wide(op.up.data()[i]));
}

// h = f(gate) up  ->  dgate = dh up f'(gate)     dup = dh f(gate)
template <class Real>
void run(const generic::GatedProductBackward<Real>& op) {
  for (i64 i = 0; i < op.gate.size(); ++i) {
    const Wide<Real> dh = wide(op.dh.data()[i]), gate = wide(op.gate.data()[i]), up = wide(op.up.data()[i]);
    op.dgate.data()[i] = static_cast<Real>(dh * up * derivative(op.function, gate));
    op.dup.data()[i] = static_cast<Real>(dh * f(op.function, gate));
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
