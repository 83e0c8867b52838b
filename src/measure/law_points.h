// Measured points of the sparsing law, one JSON object a line: what `law run` writes and `law fit` reads.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/files.h"
#include "formats/json.h"

namespace sparsam {

// Neurons left out at one CETT (measure/activation_sparsity.h).
struct TriedCett {
  double cett = 0, activation_ratio = 0, perplexity = 0;
};

// One model at one checkpoint. The first four fields suffice for a fit; 0 or empty: not known.
struct LawPoint {
  std::string model, activation;
  double tokens = 0;            // trained on so far
  double activation_ratio = 0;  // at the greatest CETT whose perplexity is at most (1 + percent / 100) the dense one
  i64 dim = 0, layers = 0, parameters = 0;       // parameters without embeddings
  double percent = 0, cett = 0, perplexity = 0;  // perplexity: dense
  double nonzero_ratio = 0;                      // of the neurons: not exactly zero
  std::vector<TriedCett> tried = {};             // ascending; the first is 0: dense
};

Json to_json(const LawPoint& point);
// Empty when the file is not there. Error naming file and line: no JSON, a field that is unknown, missing or out of its
// range, a second point of the same model and tokens.
std::vector<LawPoint> read_law_points(const fs::path& path);

// One CETT for all checkpoints of a model (arXiv 2411.02335, appendix E), so that their ratios differ by training alone
// and not by the noise of each search: the CETT at which the mean perplexity of the last `last` points is (1 + percent
// / 100) times their mean dense one. Nothing when one of them says nothing of other CETTs.
std::optional<double> shared_cett(std::span<const LawPoint> points, i64 last, double percent);
// Between the CETTs tried: the logarithm of the perplexity is linear in the square of the CETT, the ratio in its
// logarithm, at most that of the dense model.
double perplexity_at(const LawPoint& point, double cett);
double activation_ratio_at(const LawPoint& point, double cett);

void write_law_points(const fs::path& path, std::span<const LawPoint> points);  // whole or not at all

}  // namespace sparsam
