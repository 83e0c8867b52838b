// What layers need to leave neurons and small inputs out, and not to read the weights that belong to them: made once
// from a model's weights.
#pragma once

#include <array>

#include "model/key_blocks.h"
#include "model/neuron_sites.h"

namespace sparsam {

// Parameter tokens of which those that contribute little are left out.
struct SparseTokens {
  Truncation truncation;
  In<float, 1> norms;       // (P)  |V_p|, for Truncation::Measure::output
  InputMajor keys, values;  // for few rows, as in SparseLayer
  KeyBlocks blocks;
};

struct SparseLayer {
  Truncation truncation;
  In<float, 1> norms;  // (F)  |Wdown[:, i]|, for Truncation::Measure::output
  InputThresholds inputs;
  i64 dense_positions = 0;
  // For few rows: weights of which what each input adds lies together. Empty: not wanted, or of a format that is not
  // stored so.
  InputMajor q, k, v, o, gate, up, down;
  std::array<SparseTokens, places> tokens;
  bool selects_up = false;  // few rows: the gate decides which rows of up are read
  // The fractions of those rows from which on all are read in their order, for one row of x and for several.
  std::array<float, 2> up_crossover{1, 1};
};

// Whether the activation function gives exact zeros, so that neurons can be skipped without loss.
bool gives_zeros(Function function);
// Whether so few rows are worth skipping anything: of more, nearly all is wanted by one.
constexpr bool are_few(i64 rows) { return rows <= 8; }

class SparseLayers {
 public:
  SparseLayers() = default;
  // With `skip`, also copies, input by input, of what has zeros to skip: down where neurons are left out (a third of a
  // gated MLP's weights), and every matrix whose input has a threshold. Formats that InputMajor does not hold are read
  // in full, zeros or not.
  SparseLayers(const Model& model, Backend& backend, bool skip);
  // Measures each layer's up_crossover on this machine (model/crossover.h). What is computed does not hang on it.
  void find_crossovers(const Model& model, Backend& backend);

  const SparseLayer* of(size_t layer) const { return layers_.empty() ? nullptr : &layers_[layer]; }
  i64 bytes() const;
  i64 choosing_bytes() const;  // that a token reads beside its weights, to choose blocks of keys
  const std::vector<Crossover>& crossovers() const { return crossovers_; }  // of up projections
  // For Config::crossovers, of all weights that are stored by inputs: takes some forty readings of each shape.
  std::vector<Crossover> measure_input_crossovers(Backend& backend) const;

 private:
  std::vector<Buffer> buffers_;
  std::vector<SparseLayer> layers_;  // (L) or empty
  std::vector<Crossover> crossovers_;
  std::vector<std::pair<Matrix, InputMajor>> stored_;  // the same weights
};

// Leaves small inputs out in place: x_j = 0 where |x_j| < threshold, but for rows of the first positions.
void leave_out_small(const Execution& e, Out<float, 2> x, float threshold, i64 dense_positions);
// Sets to zero, in place, the h of neurons that do not pass; `s` is what Measure::gate looks at, `norms` the lengths of
// what reads them.
void leave_out_weak(Backend& backend, Arena& arena, const Truncation& truncation, In<float, 1> norms, Out<float, 2> h,
                    In<float, 2> s);
// linear_forward(), skipping zeros of x where there is a weight by inputs and rows are few.
Out<float, 2> sparse_forward(const Execution& e, const LinearParams<Matrix>& w, const InputMajor& by_input,
                             In<float, 2> x);

// Lengths of the columns of a matrix, (C, F) -> (F), summed in double precision.
void column_norms(const Matrix& matrix, Out<float, 1> norms);

}  // namespace sparsam
