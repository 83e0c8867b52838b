// Which parameter tokens, and which neurons of MLPs, fire where in a text: how long what each adds is, |h_ti| |w_i|
// (measure/contributions.h; Geva et al. 2021, arXiv 2012.14913, read the keys of MLPs by the texts that excite them).
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "measure/contributions.h"

namespace sparsam {

struct Firing {
  i64 index = 0;       // of the token or neuron at its site; where one is followed, the position in the text
  float score = 0;     // s or h
  float strength = 0;  // |score| |w|
};

struct SiteFirings {
  NeuronSite site;
  std::vector<std::vector<Firing>> top;  // of each position, the strongest first
  std::vector<double> strength;          // (P)  mean over positions
  // Of a grown model's new tokens (ParameterTokens::old), else 0: their part of all strength and of the top ones, and
  // the mean over them of the greatest |cosine| between their scores and an old token's, over the first 1024 positions.
  double new_strength = 0, new_top = 0, overlap = 0;
};

struct FollowedNeuron {
  NeuronSite site;
  i64 index = 0;
  std::vector<Firing> contexts = {};  // positions where it is strongest, the strongest first
};

struct FiringOptions {
  i64 context = 0;  // tokens of a window; 0: the model's, at most 2048
  i64 top = 5;      // of each position
  i64 contexts = 10;
  std::vector<FollowedNeuron> follow = {};
};
struct Firings {
  i64 positions = 0;
  std::vector<SiteFirings> sites;  // in the order of neuron_sites()
  std::vector<FollowedNeuron> followed;
};
// One pass over windows side by side. Errors: no tokens; no neurons; a followed neuron that is not there.
Firings measure_firings(const Transformer& model, std::span<const i32> tokens, const FiringOptions& options,
                        const std::function<void(double)>& progress = {});

}  // namespace sparsam
