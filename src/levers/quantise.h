// Quantisation: matrices in fewer bits (tensor/blocks.h), each by its role as llama.cpp's mixtures choose; vectors stay
// f32. With the importance of each column, errors are moved to where inputs are small.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/transformer.h"

namespace sparsam {

// "f32", "bf16", "f16", "q8_0", "q6_k", "q5_k_m", "q5_k_s", "q5_1", "q5_0", "q4_k_m", "q4_k_s", "q4_1", "q4_0",
// "iq4_nl", "q3_k_m", "q2_k": a format for most matrices, and finer ones for some. Capital letters are accepted.
std::vector<std::string> recipe_names();
std::string check_recipe(std::string_view name);  // in lower case; Error (usage) with the known names

// Of each matrix the mean square of its inputs, by column: what the error of a column's weights is multiplied with in
// the output. Empty for vectors, tables that no product reads and matrices that no token reached.
struct Importance {
  Params<std::vector<float>> of;
  i64 tokens = 0;  // that were seen
};
struct CalibrationOptions {
  i64 context = 0;          // tokens of a window; 0: the model's, at most 2048
  i64 tokens = 65536;       // at most; 0: all of the text
  i64 batch_tokens = 4096;  // about how many go through the model at once
  Compute compute = Compute::f32;
};
// One streaming pass over windows side by side. Errors: no tokens; an input that is not finite.
Importance measure_importance(const Model& model, Backend& backend, std::span<const i32> tokens,
                              const CalibrationOptions& options = {}, const std::function<void(double)>& progress = {});

// What became of one matrix.
struct QuantisedMatrix {
  std::string name;                   // "model.layers.0.mlp.down_proj.weight"
  DType from, to, wanted;             // wanted: by the recipe; another than `to` where blocks do not divide the rows
  i64 rows = 0, cols = 0, bytes = 0;  // bytes: after
  double relative = 0;                // sqrt(sum (x - y)^2 / sum x^2)
  double weighted = 0;                // the same with each column's importance; without importance equal to `relative`
  double largest = 0;                 // max |x - y|
};
struct Quantised {
  Model model;
  std::vector<QuantisedMatrix> matrices;  // in the order of the parameters
};
// The model with its matrices in the formats of the recipe. Matrices that have theirs already are shared, not copied;
// other quantised ones are read and rounded again. Where 256 does not divide the columns, formats of 32 take their
// place (q4_k: q5_0, q5_k: q5_1, q6_k: q8_0, q2_k, q3_k: q4_0), and f16 where 32 does not either. A table of positions
// keeps its format, except in "f32". Errors name the tensor: a weight that is not finite, or beyond f16.
Quantised quantise(const Model& model, std::string_view recipe, const Importance* importance = nullptr,
                   const std::function<void(double)>& progress = {});

// The format of one matrix by the recipe, before the shape is looked at. `name` is the parameter's.
DType recipe_type(std::string_view recipe, std::string_view name, const Config& config, bool calibrated);

// A line a matrix: name, shape, formats, bits a weight, errors; then the total. Notes say where blocks did not fit.
std::string error_table(std::span<const QuantisedMatrix> matrices);

}  // namespace sparsam
