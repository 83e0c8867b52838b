// sparsam inspect --tokens: which parameter tokens and neurons of a model fire where in a text.
#pragma once

#include "cli/common.h"

namespace sparsam {

struct FiringFlags {
  std::string file, text;             // one of them: what is read
  std::vector<std::string> followed;  // "3.mlp.17"
  std::string at;                     // "3.mlp": its strongest at each position
  i64 top = 5, contexts = 10, most = 1024;
  bool wanted() const { return !file.empty() || !text.empty(); }
};
void add_firing_flags(CLI::App* verb, FiringFlags& flags);
Exit inspect_firings(const ModelFlags& model, const FiringFlags& flags, const Common& common);

}  // namespace sparsam
