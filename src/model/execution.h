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
// Cosines and sines of the rotary angles p f_i of positions p and pairs i (ops/rope.h), of some thousand positions at a
// time: a session at its millionth token has no larger tables than at its first.
class RotaryTables {
 public:
  RotaryTables() = default;
  RotaryTables(const Rotary& rotary, i64 head_dim, i64 positions);  // the last that will come is below `positions`
  void require(i64 end) { require(0, end); }
  void require(i64 begin, i64 end);  // these positions are there until the next call
  Out<float, 2> cosine, sine;        // (rows, R/2)  of the positions first, first + 1, ...
  i64 first = 0;

 private:
  void make_room(i64 rows);
  Buffer buffer_;
  std::vector<double> frequencies_;  // (R/2)
  double stretch_ = 1;
  i64 computed_ = 0;
};

// Sequences that go through one operation together: equally long and without padding, `first` being their first row.
struct SequenceRun {
  i64 first, sequences, length;
  Out<float, 2> rows(Out<float, 2> x) const { return x.slice(first, sequences * length); }
  Out<float, 4> heads(Out<float, 2> x, i64 count) const {  // (N, H D) -> (B, T, H, D)
    return rows(x).as(sequences, length, count, x.shape(1) / count);
  }
  Out<float, 3> lse(Out<float, 3> x) const {  // (B, H, T)
    return {x.data() + first * x.shape(1), {sequences, x.shape(1), length}};
  }
};
// Calls f(run) for all of B sequences of T rows at once or, where `lengths` says that some are padded, for each alone.
void for_each_run(i64 sequences, i64 length, In<i32, 1> lengths, auto&& f) {
  if (lengths.empty()) return f(SequenceRun{0, sequences, length});
  for (i64 b = 0; b < sequences; ++b) f(SequenceRun{b * length, 1, lengths[b]});
}

struct Execution {
  Backend& backend;
  Arena& arena;
  Compute compute;
  const Config& config;
  const RotaryTables& rotary;
  In<i32, 1> positions;   // (N) of each row
  i64 sequences, length;  // B, T: N = B T rows
  In<i32, 1> lengths;     // (B) as Tokens::lengths

  // What mixes tokens does so run by run, into rows of which those of padding are 0. Where tokens see only those before
  // them, padding, which comes last, is left where it is.
  In<i32, 1> seen_lengths() const { return config.causal ? In<i32, 1>{} : lengths; }
  void for_each_run(auto&& f) const { sparsam::for_each_run(sequences, length, seen_lengths(), f); }
  Out<float, 2> mixed_rows(i64 cols) const {
    const i64 rows = sequences * length;
    return seen_lengths().empty() ? arena.allocate<float>(rows, cols) : arena.zeros<float>(rows, cols);
  }
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
