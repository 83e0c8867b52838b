// What the two halves of `sparsam sparsity` share: neurons of the MLPs (sparsity.cpp) and inputs of all projections
// (input_sparsity.cpp).
#pragma once

#include <optional>

#include "cli/common.h"
#include "measure/activation_sparsity.h"
#include "measure/perplexity.h"

namespace sparsam {

struct InputFlags {
  bool wanted = false;
  std::vector<double> targets;
  std::string allocation = "greedy";
  i64 dense_positions = 4, greedy_tokens = 256;
};
struct SparsityFlags {
  ModelFlags model;
  std::vector<std::string> calibrate, data;
  std::string protocol = "stride", plot, out;
  std::vector<double> percents{1, 5, 10};
  std::optional<double> store;
  bool compare = false;
  i64 held_out_tokens = 16384;
  WindowOptions windows;
  ProfileOptions profile;
  InputFlags inputs;
};

std::vector<TokenText> load_texts(const std::vector<std::string>& paths, const Tokenizer& tokenizer);
// What is fitted to the text that judges it would be judged too well: Error (usage) where a tenth of one stands in the
// other.
void check_different(const std::vector<TokenText>& calibration, const std::vector<TokenText>& held_out);
Perplexity held_out_perplexity(const Transformer& model, const Tokenizer& tokenizer,
                               const std::vector<TokenText>& held_out, const WindowOptions& windows);
std::vector<i32> joined(const std::vector<TokenText>& texts);

// `stored`: which of the targets, or else percentages, is written to --out.
Exit run_input_sparsity(const SparsityFlags& flags, const OpenModel& open, const WindowOptions& windows,
                        const std::vector<TokenText>& calibration, const std::vector<TokenText>& held_out,
                        size_t stored, const Common& common);

}  // namespace sparsam
