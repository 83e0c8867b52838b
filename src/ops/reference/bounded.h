// Bounded: a number that knows how far a float32 computation of it may be off. The reference run in this arithmetic
// gives, for each element of each result, the tolerance that a fast kernel must keep: running error analysis (Higham
// 2002, Accuracy and Stability of Numerical Algorithms, section 3.3), with partial sums bounded in any order.
#pragma once

#include <cmath>
#include <numbers>

namespace sparsam::reference {

struct Bounded {
  static constexpr double unit = 0x1p-24;  // float32 rounds by at most this fraction

  double value = 0;      // in double precision
  double error = 0;      // bound of |float32 result - value|
  double magnitude = 0;  // sum of the absolute values of the terms added so far: bounds every partial sum

  Bounded() = default;
  Bounded(double exact) : value(exact), magnitude(std::abs(exact)) {}  // NOLINT(google-explicit-constructor)
  Bounded(double value, double error) : value(value), error(error), magnitude(std::abs(value) + error) {}
  explicit operator double() const { return value; }
  explicit operator float() const { return static_cast<float>(value); }

  Bounded& operator+=(const Bounded& b) {
    value += b.value;
    magnitude += b.magnitude;
    error += b.error + unit * magnitude;
    return *this;
  }
  friend Bounded operator+(Bounded a, const Bounded& b) { return a += b; }
  friend Bounded operator-(Bounded a) {
    a.value = -a.value;
    return a;
  }
  friend Bounded operator-(const Bounded& a, const Bounded& b) { return a + -b; }
  friend Bounded operator*(const Bounded& a, const Bounded& b) {
    const double x = std::abs(a.value), y = std::abs(b.value);
    return {a.value * b.value, a.error * y + b.error * x + a.error * b.error + unit * x * y};
  }
  friend Bounded operator/(const Bounded& a, const Bounded& b) {
    const double quotient = a.value / b.value;
    return {quotient, (a.error + std::abs(quotient) * b.error) / std::abs(b.value) + unit * std::abs(quotient)};
  }
  friend bool operator<(const Bounded& a, const Bounded& b) { return a.value < b.value; }
};

// f(x) with |f'| as given: the argument's error passes on, the function itself rounds relative to `size`.
inline Bounded evaluated(double value, double derivative, const Bounded& x, double size) {
  return {value, std::abs(derivative) * x.error + 2 * Bounded::unit * size};
}
inline Bounded exp(const Bounded& x) {
  const double value = std::exp(x.value);
  return evaluated(value, value, x, value);
}
inline Bounded log(const Bounded& x) {  // near 1 the logarithm itself is below its rounding
  return evaluated(std::log(x.value), 1 / x.value, x, 1 + std::abs(std::log(x.value)));
}
inline Bounded sqrt(const Bounded& x) {
  const double value = std::sqrt(x.value);
  if (value == 0) return {0, std::sqrt(x.error)};
  return evaluated(value, 0.5 / value, x, value);
}
inline Bounded erf(const Bounded& x) {
  return evaluated(std::erf(x.value), 2 * std::numbers::inv_sqrtpi * std::exp(-x.value * x.value), x, 1);
}
inline Bounded tanh(const Bounded& x) {
  const double value = std::tanh(x.value);
  return evaluated(value, 1 - value * value, x, 1);
}
inline Bounded pow(const Bounded& x, double y) {
  const double value = std::pow(x.value, y);
  return evaluated(value, y * std::pow(x.value, y - 1), x, std::abs(value));
}

}  // namespace sparsam::reference
