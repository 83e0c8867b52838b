// What every component of the forward and backward passes needs, and the two components that all others are made of:
// the linear projection and the norm. Forward functions allocate their results in the arena; backward functions add
// into dx.
#pragma once

#include "model/model.h"
#include "ops/ops.h"
#include "tensor/arena.h"

namespace sparsam {

// Frequencies of the rotary pairs, base^(-2 i / R), scaled as `rotary` says (config.h).
std::vector<double> rotary_frequencies(const Rotary& rotary, i64 head_dim);
// Cosines and sines of the rotary angles p f_i of positions p and pairs i (ops/rope.h). Rows are computed when they are
// first required: contexts of a million positions cost memory and time only as far as they are used.
class RotaryTables {
 public:
  RotaryTables() = default;
  RotaryTables(const Rotary& rotary, i64 head_dim, i64 positions);
  void require(i64 positions);  // rows [0, positions) are there from now on
  Out<float, 2> cosine, sine;   // (P, R/2)

 private:
  Buffer buffer_;
  std::vector<double> frequencies_;  // (R/2)
  double stretch_ = 1;
  i64 computed_ = 0;
};

struct Execution {
  Backend& backend;
  Arena& arena;
  Compute compute;
  const Config& config;
  const RotaryTables& rotary;
  In<i32, 1> positions;   // (N) of each row
  i64 sequences, length;  // B, T: N = B T rows
};

struct NormActivations {
  Out<float, 2> y;        // (N, C)
  Out<float, 1> mean, r;  // (N)  mean: layer norm only
};
NormActivations norm_forward(const Execution& e, const NormParams<Matrix>& w, In<float, 2> x);
void norm_backward(const Execution& e, const NormParams<Matrix>& w, const NormParams<Out<float, 2>>& dw,
                   const NormActivations& kept, In<float, 2> x, In<float, 2> dy, Sum<float, 2> dx);

// branch = branch_scale branch, where there is a scale.
void scale_branch(const Execution& e, Out<float, 2> branch);
// dbranch, times the scale where there is one.
In<float, 2> scaled_gradient(const Execution& e, In<float, 2> dbranch);

Out<float, 2> linear_forward(const Execution& e, const LinearParams<Matrix>& w, In<float, 2> x);
void linear_backward(const Execution& e, const LinearParams<Matrix>& w, const LinearParams<Out<float, 2>>& dw,
                     In<float, 2> x, In<float, 2> dy, Sum<float, 2> dx);

// A gradient that is a vector, stored as (1, n); empty when absent.
inline Sum<float, 1> vector_sum(const Out<float, 2>& gradient) {
  if (gradient.empty()) return {};
  return Sum<float, 1>(gradient.as(gradient.size()));
}

}  // namespace sparsam
