// What the parts of `sparsam bench` share: prefill, decoding and training (bench.cpp), decoding that skips
// (bench_sparse.cpp).
#pragma once

#include "cli/common.h"
#include "measure/speed.h"

namespace sparsam {

struct BenchFlags {
  ModelFlags model;
  std::string shape, type = "bf16", train, data;
  std::vector<i64> prefill = {512}, decode = {128}, depth = {0};
  std::vector<double> sparse;
  i64 repetitions = 3, batch = 0, steps = 5, key_blocks = 0;
  bool operations = false, inputs = false;
};

Architecture shape_of(const std::string& name, const char* flag);  // a preset, or 1.1b
DType weight_type(const std::string& name);                        // of --type
Json repeated_json(const Repeated& r);

// A random model with planted neurons, parameter tokens or inputs: skipping the others beside dense.
Exit bench_sparse(const BenchFlags& flags, const Common& common);
// A model on a text, whose tokens decide which neurons are zero.
Exit bench_text(const BenchFlags& flags, const Common& common);

}  // namespace sparsam
