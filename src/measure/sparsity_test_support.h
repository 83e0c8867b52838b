// Models with their activation sparsity as PyTorch measures it (tools/write_sparsity_goldens.py).
#pragma once

#include <string>
#include <vector>

#include "base/files.h"
#include "formats/json.h"
#include "model/transformer.h"

namespace sparsam {

struct Golden {
  Model model;
  Json json;
  i64 length = 0;  // of each sequence, the last target left out
  std::vector<i32> calibration, inputs, targets;
};

inline std::vector<i32> flat(const Json& sequences) {
  std::vector<i32> tokens;
  for (const Json& sequence : sequences)
    for (const Json& token : sequence) tokens.push_back(token.get<i32>());
  return tokens;
}

inline Golden golden(const std::string& name) {
  const fs::path directory = fs::path(SPARSAM_TEST_DATA) / "golden/sparsity" / name;
  const std::string path = (directory / "golden.json").string();
  Golden g{load_model(directory), parse_json(read_text(path), path), 0, {}, {}, {}};
  g.calibration = flat(g.json["calibration"]);
  for (const Json& sequence : g.json["held_out"]) {
    g.length = static_cast<i64>(sequence.size()) - 1;
    for (size_t t = 0; t + 1 < sequence.size(); ++t) {
      g.inputs.push_back(sequence[t].get<i32>());
      g.targets.push_back(sequence[t + 1].get<i32>());
    }
  }
  return g;
}

inline In<i32, 1> view(const std::vector<i32>& ids) { return {ids.data(), {static_cast<i64>(ids.size())}}; }

inline double mean_loss(const Golden& g, const Transformer& model) {
  Arena arena;
  const i64 sequences = static_cast<i64>(g.inputs.size()) / g.length;
  const auto hidden = model.forward({view(g.inputs), sequences}, arena);
  double sum = 0;
  for (const float loss : model.losses(hidden, view(g.targets), arena)) sum += loss;
  return sum / static_cast<double>(g.targets.size());
}

}  // namespace sparsam
