#include "ops/activation.h"

#include <cmath>
#include <numbers>

#include "ops/reference/reference.h"

namespace sparsam::reference {

namespace {

const double sqrt_2_over_pi = std::sqrt(2 / std::numbers::pi);

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

double value(Function function, double x) {
  switch (function) {
    case Function::relu:
      return x < 0 ? 0 : x;
    case Function::relu2:
      return x < 0 ? 0 : x * x;
    case Function::gelu:
      return x / 2 * std::erfc(-x / std::numbers::sqrt2);  // 1 + erf(z) = erfc(-z), exact for large negative x too
    case Function::gelu_tanh:                              // (1 + tanh(z)) / 2 = sigmoid(2 z)
      return x * sigmoid(2 * sqrt_2_over_pi * (x + 0.044715 * x * x * x));
    case Function::silu:
      return x * sigmoid(x);
  }
  return 0;
}

double derivative(Function function, double x) {
  switch (function) {
    case Function::relu:
      return x > 0 ? 1 : x <= 0 ? 0 : x;
    case Function::relu2:
      return x < 0 ? 0 : 2 * x;
    case Function::gelu:  // x Phi(x)  ->  Phi(x) + x phi(x)
      return std::erfc(-x / std::numbers::sqrt2) / 2 + x * std::exp(-x * x / 2) / std::sqrt(2 * std::numbers::pi);
    case Function::gelu_tanh: {  // x s(2 z)  ->  s + x s (1 - s) 2 z'
      const double s = sigmoid(2 * sqrt_2_over_pi * (x + 0.044715 * x * x * x));
      return s + x * s * (1 - s) * 2 * sqrt_2_over_pi * (1 + 3 * 0.044715 * x * x);
    }
    case Function::silu: {  // x s(x)  ->  s + x s (1 - s)
      const double s = sigmoid(x);
      return s + x * s * (1 - s);
    }
  }
  return 0;
}

}  // namespace

// y = f(x)
template <class Real>
void run(const generic::Activation<Real>& op) {
  for (i64 i = 0; i < op.x.size(); ++i)
    op.y.data()[i] = static_cast<Real>(value(op.function, static_cast<double>(op.x.data()[i])));
}

// y = f(x)  ->  dx = dy f'(x)
template <class Real>
void run(const generic::ActivationBackward<Real>& op) {
  for (i64 i = 0; i < op.x.size(); ++i) {
    const double dy = static_cast<double>(op.dy.data()[i]), x = static_cast<double>(op.x.data()[i]);
    op.dx.data()[i] = static_cast<Real>(dy * derivative(op.function, x));
  }
}

// h = f(gate) up
template <class Real>
void run(const generic::GatedProduct<Real>& op) {
  for (i64 i = 0; i < op.gate.size(); ++i) {
    const double gate = static_cast<double>(op.gate.data()[i]), up = static_cast<double>(op.up.data()[i]);
    op.h.data()[i] = static_cast<Real>(value(op.function, gate) * up);
  }
}

// h = f(gate) up  ->  dgate = dh up f'(gate)     dup = dh f(gate)
template <class Real>
void run(const generic::GatedProductBackward<Real>& op) {
  for (i64 i = 0; i < op.gate.size(); ++i) {
    const double gate = static_cast<double>(op.gate.data()[i]), up = static_cast<double>(op.up.data()[i]);
    const double dh = static_cast<double>(op.dh.data()[i]);
    op.dgate.data()[i] = static_cast<Real>(dh * up * derivative(op.function, gate));
    op.dup.data()[i] = static_cast<Real>(dh * value(op.function, gate));
  }
}

template void run(const generic::Activation<float>&);
template void run(const generic::Activation<double>&);
template void run(const generic::ActivationBackward<float>&);
template void run(const generic::ActivationBackward<double>&);
template void run(const generic::GatedProduct<float>&);
template void run(const generic::GatedProduct<double>&);
template void run(const generic::GatedProductBackward<float>&);
template void run(const generic::GatedProductBackward<double>&);

}  // namespace sparsam::reference
