// What the reference's inner products share: factors rounded as Compute says, sums in double.
#pragma once

#include <vector>

#include "ops/compute.h"
#include "tensor/matrix.h"
#include "tensor/view.h"

namespace sparsam::reference {

template <class Real>
Real rounded(Real value, Compute compute) {
  return compute == Compute::bf16 ? static_cast<Real>(bf16_to_float(float_to_bf16(static_cast<float>(value)))) : value;
}

// One side of an inner product as the operation reads it: converted to Real, rounded to bf16 if so asked.
template <class Real, int Rank>
class Factors : public In<Real, Rank> {
 public:
  Factors(In<Real, Rank> view, Compute compute) : In<Real, Rank>(view) {
    if (compute == Compute::f32) return;
    for (Real value : view) values_.push_back(rounded(value, compute));
    view_values(view.shape());
  }
  Factors(const Matrix& matrix, Compute compute) requires(Rank == 2) {
    values_.reserve(static_cast<size_t>(matrix.size()));
    for (i64 row = 0; row < matrix.rows; ++row)
      for (i64 col = 0; col < matrix.cols; ++col) values_.push_back(rounded(matrix.at<Real>(row, col), compute));
    view_values({matrix.rows, matrix.cols});
  }
  Factors(const Factors&) = delete;
  Factors& operator=(const Factors&) = delete;

 private:
  void view_values(Shape<Rank> shape) { static_cast<In<Real, Rank>&>(*this) = {values_.data(), shape}; }
  std::vector<Real> values_;
};

template <class Real>
double dot(const Real* a, const Real* b, i64 n) {
  double sum = 0;
  for (i64 i = 0; i < n; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

// sum += factor x
template <class Real>
void add_scaled(std::vector<double>& sum, double factor, const Real* x) {
  for (size_t i = 0; i < sum.size(); ++i) sum[i] += factor * static_cast<double>(x[i]);
}

}  // namespace sparsam::reference
