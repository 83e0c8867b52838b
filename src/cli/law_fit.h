// sparsam law fit
#pragma once

#include <string>

#include "cli/verbs.h"

namespace sparsam {

struct LawFitFlags {
  std::string points, plot, cett = "own";
  double unit = 1e9, percent = 0;
  i64 last = 5, resamples = 500;
};
Exit run_law_fit(const LawFitFlags& flags, const Common& common);

}  // namespace sparsam
