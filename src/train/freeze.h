// Training of a part of a model: the parameter tokens that came with growth, beside those from before.
#pragma once

#include "model/params.h"
#include "train/options.h"

namespace sparsam {

// What training changes of a parameter: rows and columns from these on; by default all of it.
struct TrainedPart {
  i64 row = 0, col = 0;
  bool all() const { return row == 0 && col == 0; }
};

// Freeze::old: keys and values of the tokens after ParameterTokens::old, nothing else. Error (usage): there are none.
Params<TrainedPart> trained_parts(const Config& config, Freeze freeze);

// The ranges of `spec`'s row-major elements that are trained, f(begin, end), in ascending order.
void for_each_trained_range(const ParameterSpec& spec, const TrainedPart& part, auto&& f) {
  if (part.col == 0) {
    if (part.row < spec.rows) f(part.row * spec.cols, spec.size());
  } else {
    for (i64 r = part.row; r < spec.rows; ++r) f(r * spec.cols + part.col, (r + 1) * spec.cols);
  }
}

}  // namespace sparsam
