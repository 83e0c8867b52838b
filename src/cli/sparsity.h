// What the parts of `sparsam sparsity` share: neurons of the MLPs and values of parameter tokens (sparsity.cpp), inputs
// of all projections (input_sparsity.cpp), and keys (block_sparsity.cpp).
#pragma once

#include <optional>

#include "cli/held_out.h"
#include "measure/activation_sparsity.h"

namespace sparsam {

struct InputFlags {
  bool wanted = false;
  std::vector<double> targets;
  std::string allocation = "greedy";
  i64 dense_positions = 4, greedy_tokens = 256;
};
struct BlockFlags {
  i64 size = 0;  // 0: not wanted
  std::vector<double> reads;
};
struct SparsityFlags : HeldOutFlags {
  ModelFlags model;
  std::string plot, out;
  std::vector<double> percents{1, 5, 10};
  std::optional<double> store;
  bool compare = false;
  ProfileOptions profile;
  InputFlags inputs;
  BlockFlags blocks;
};

// Writes --out: the model with thresholds, and from which live fraction on its weights are read as a whole here.
void save_thinner(Model model, const OpenModel& open, const SparsityFlags& flags, const Json& manifest);

// `stored`: which of the targets, or else percentages, is written to --out.
Exit run_input_sparsity(const SparsityFlags& flags, const OpenModel& open, const WindowOptions& windows,
                        const std::vector<TokenText>& calibration, const std::vector<TokenText>& held_out,
                        size_t stored, const Common& common);
Exit run_block_sparsity(const SparsityFlags& flags, const OpenModel& open, const WindowOptions& windows,
                        const std::vector<TokenText>& held_out, size_t stored, const Common& common);

}  // namespace sparsam
