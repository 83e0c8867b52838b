// What a layer's MLP needs to leave neurons out: made once from its weights.
#pragma once

#include "model/model.h"

namespace sparsam {

struct SparseNeurons {
  Truncation truncation;
  In<float, 1> norms;      // (F)     |Wdown[:, i]|, for Truncation::Measure::output
  Matrix down_transposed;  // (F, C)  for few rows: what each neuron adds, lying together; empty: not wanted
  bool leaves_out() const { return truncation.active() || !down_transposed.empty(); }
};

// Whether the activation function gives exact zeros, so that neurons can be skipped without loss.
bool gives_zeros(Function function);

class SparseMlps {
 public:
  SparseMlps() = default;
  // With `skip`, also the transposed down projections of the layers that have zeros to skip: a copy of a third of a
  // gated MLP's weights. A quantised one is quantised anew along its rows, in the same format where they are whole
  // blocks, else in bf16.
  SparseMlps(const Model& model, bool skip);
  const SparseNeurons* of(size_t layer) const {
    return layers_.empty() || !layers_[layer].leaves_out() ? nullptr : &layers_[layer];
  }
  i64 bytes() const;

 private:
  std::vector<Buffer> buffers_;
  std::vector<SparseNeurons> layers_;  // (L) or empty
};

// Lengths of the columns of a matrix, (C, F) -> (F), summed in double precision.
void column_norms(const Matrix& matrix, Out<float, 1> norms);

}  // namespace sparsam
