// The arithmetic that the reference's operations share: they compute in Wide<Real>, which is double (or Bounded), and
// round factors of inner products as Compute says.
#pragma once

#include <cmath>
#include <vector>

#include "ops/compute.h"
#include "ops/reference/bounded.h"
#include "tensor/matrix.h"
#include "tensor/view.h"

namespace sparsam::reference {

using std::erf, std::exp, std::log, std::pow, std::sqrt, std::tanh;

template <class Real>
struct Widened {
  using type = double;
};
template <>
struct Widened<Bounded> {
  using type = Bounded;
};
template <class Real>
using Wide = typename Widened<Real>::type;

template <class Real>
Wide<Real> wide(Real value) {
  return static_cast<Wide<Real>>(value);
}

template <class Real>
Real rounded(Real value, Compute compute) {
  return compute == Compute::bf16 ? static_cast<Real>(bf16_to_float(float_to_bf16(static_cast<float>(value)))) : value;
}

// A factor that an operation makes itself (a probability, a logit's gradient): with bf16 a backend may round it, the
// reference does not.
inline double freely_rounded(double value, Compute) { return value; }
inline Bounded freely_rounded(Bounded value, Compute compute) {
  return {value.value, value.error + (compute == Compute::bf16 ? 0x1p-8 * std::abs(value.value) : 0)};
}

// One side of an inner product as the operation reads it: converted to Real, rounded to bf16 if so asked.
template <class Real, int Rank>
class Factors : public In<Real, Rank> {
 public:
  Factors(In<Real, Rank> view, Compute compute) : In<Real, Rank>(view) {
    if (compute == Compute::f32) return;
    for (const Real& value : view) values_.push_back(rounded(value, compute));
    view_values(view.shape());
  }
  Factors(const Matrix& matrix, Compute compute) requires(Rank == 2) {
    values_.reserve(static_cast<size_t>(matrix.size()));
    std::vector<float> numbers(static_cast<size_t>(is_quantised(matrix.dtype) ? matrix.cols : 0));
    for (i64 row = 0; row < matrix.rows; ++row) {
      if (!numbers.empty()) dequantize_row(matrix.dtype, matrix.row(row), numbers);
      for (i64 col = 0; col < matrix.cols; ++col) {
        const Real value =
            numbers.empty() ? matrix.at<Real>(row, col) : static_cast<Real>(numbers[static_cast<size_t>(col)]);
        values_.push_back(rounded(value, compute));
      }
    }
    view_values({matrix.rows, matrix.cols});
  }
  Factors(const Factors&) = delete;
  Factors& operator=(const Factors&) = delete;

 private:
  void view_values(Shape<Rank> shape) { static_cast<In<Real, Rank>&>(*this) = {values_.data(), shape}; }
  std::vector<Real> values_;
};

template <class Real>
Wide<Real> dot(const Real* a, const Real* b, i64 n) {
  Wide<Real> sum = 0;
  for (i64 i = 0; i < n; ++i) sum += wide(a[i]) * wide(b[i]);
  return sum;
}

template <class Real>
using Sums = std::vector<Wide<Real>>;

// sums += factor x
template <class Real>
void add_scaled(std::type_identity_t<Sums<Real>>& sums, std::type_identity_t<Wide<Real>> factor, const Real* x) {
  for (size_t i = 0; i < sums.size(); ++i) sums[i] += factor * wide(x[i]);
}
// out = sums
template <class Real>
void store(const std::type_identity_t<Sums<Real>>& sums, Real* out) {
  for (size_t i = 0; i < sums.size(); ++i) out[i] = static_cast<Real>(sums[i]);
}
// out += sums
template <class Real>
void accumulate(const std::type_identity_t<Sums<Real>>& sums, Real* out) {
  for (size_t i = 0; i < sums.size(); ++i) out[i] += static_cast<Real>(sums[i]);
}

// log sum exp(x). The largest is taken out first, so that no exponential overflows.
template <class W>
W log_sum_exp(const std::vector<W>& x) {
  W largest = x[0], sum = 0;
  for (const W& value : x)
    if (largest < value) largest = value;
  for (const W& value : x) sum += exp(value - largest);
  return largest + log(sum);
}

}  // namespace sparsam::reference
