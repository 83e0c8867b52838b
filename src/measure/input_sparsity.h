// Leaving small inputs of the projections out (TEAL, Liu et al. 2024, arXiv 2408.14690): which thresholds, and what
// they cost.
//   s_t(x)_j = x_j where |x_j| >= t, else 0        y = s_t(x) W^T for every projection of a block
// A block's four inputs (config.h: InputThresholds) have thresholds of their own, quantiles of |x| over a calibration
// text. Uniformly, each leaves out the same fraction; greedily (the paper's algorithm 1), the input whose next step
// costs the block's output least goes ahead. A fraction of a block is weighted by the bytes of the matrices that read
// an input: what it counts is bytes that decoding does not read.
#pragma once

#include <array>
#include <functional>
#include <span>
#include <vector>

#include "model/transformer.h"

namespace sparsam {

// Counts of |x| in bounded memory: 128 intervals an octave, of equal width.
class Magnitudes {
 public:
  void add(std::span<const float> values);
  // The magnitude below which `fraction` of the values lie, by interpolation within an interval: at most 1/128 of it
  // from the exact quantile. 0 where that many are 0, or nothing was added.
  float quantile(double fraction) const;
  u64 count() const { return count_; }
  bool finite() const { return finite_; }  // what is not finite is not counted

 private:
  std::vector<u64> counts_;  // by the upper bits of the number
  u64 count_ = 0;
  bool finite_ = true;
};

constexpr size_t block_inputs = 4;  // qkv, o, up, down
using InputFractions = std::array<double, block_inputs>;

// What each input of each layer is like; inputs that a layer does not have are empty.
struct InputProfile {
  std::vector<std::array<Magnitudes, block_inputs>> layers;  // (L)
  i64 tokens = 0, dense_positions = 0;
  InputThresholds thresholds(size_t layer, const InputFractions& left_out) const;
};
struct InputProfileOptions {
  i64 context = 0;          // tokens of a window; 0: the model's, at most 2048
  i64 tokens = 16384;       // at most; 0: all of the text
  i64 dense_positions = 4;  // the first of each window are left whole, and do not count
};
// One dense pass over windows side by side. Errors: no tokens; thresholds that the model has already;
// an input that is not finite.
InputProfile profile_inputs(const Transformer& model, std::span<const i32> tokens, const InputProfileOptions& options,
                            const std::function<void(double)>& progress = {});

// Bytes of the matrices of a layer, and of the keys of its parameter tokens, that read each input.
std::array<double, block_inputs> input_bytes(const LayerParams<Matrix>& layer);

// Fractions of each layer's inputs for a fraction of its bytes.
class InputAllocation {
 public:
  explicit InputAllocation(size_t layers) : paths_(layers) {}  // uniform
  // `tokens` (one window) are what the blocks' outputs are compared on; steps of `step` of a block's bytes, up to
  // `most` of them.
  struct Greedy {
    double step = 0.02, most = 0.9;
  };
  InputAllocation(const Transformer& model, const InputProfile& profile, std::span<const i32> tokens,
                  const Greedy& greedy, const std::function<void(double)>& progress = {});
  InputFractions at(size_t layer, double target) const;

 private:
  struct Step {
    double target;
    InputFractions left_out;
  };
  std::vector<std::vector<Step>> paths_;  // (L)  empty: uniform
};
InputSparsity input_thresholds(const InputProfile& profile, const InputAllocation& allocation, double target);

struct InputPoint {
  double asked = 0;     // percent: of the bytes, or of the rise of the perplexity
  double target = 0;    // fraction of each block's bytes
  double left_out = 0;  // the fraction found in the held-out text
  double perplexity = 0;
  InputSparsity inputs;
  std::vector<InputFractions> layers;  // (L)  found, by input
};

class InputSearch {
 public:
  // `nats_per_token` measures a held-out text; it is called once for every point tried.
  using Loss = std::function<double(const Transformer&)>;
  InputSearch(const Model& model, Backend& backend, Compute compute, i64 positions, Loss nats_per_token);

  double dense_perplexity() const { return dense_; }
  InputPoint measure(const InputSparsity& inputs) const;
  // The greatest target found whose perplexity is at most (1 + percent / 100) times the dense one, by bisection to
  // within `resolution`.
  InputPoint at_rise(const std::function<InputSparsity(double target)>& rule, double percent,
                     double resolution = 1.0 / 256) const;

 private:
  const Model& model_;
  Backend& backend_;
  Compute compute_;
  i64 positions_;
  Loss loss_;
  double dense_ = 0;
};

}  // namespace sparsam
