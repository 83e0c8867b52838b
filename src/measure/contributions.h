// How much each neuron of an MLP and each parameter token adds to what it is part of.
//   o_t = sum_i h_ti w_i         |h_ti w_i|^2 = h_ti^2 |w_i|^2
//   mean_square   score_i = mean_t |h_ti w_i|^2 / mean_t |o_t|^2
//   peak          score_i =  max_t |h_ti w_i|^2 / mean_t |o_t|^2
// h: hidden activations and columns w of the down projection; of parameter tokens s and the values V. The first is the
// relative square error of o that leaving out i alone makes. Neurons that are strong on few tokens count for little in
// it, though those tokens may hang on them: by the peak the perplexity of what is left was lower (docs/shrink.md).
//
// Parameter tokens share a norm, and what is left of it without some of them is known from
//   share_i = mean_t n_ti^2 / N_t^2      n the scores that are normed, N their norm; of a softmax mean_t s_ti / tau^2
// which sum to 1: see levers/shrink.h. Of neurons there is no norm, and no share.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "model/neuron_sites.h"
#include "model/transformer.h"

namespace sparsam {

struct Contributions {
  NeuronSite site;
  std::vector<double> scores;  // (P)
  std::vector<double> shares;  // (P)  empty for an MLP
};

enum class Score : u8 { peak, mean_square };

struct ContributionOptions {
  i64 context = 0;     // tokens of a window; 0: the model's, at most 2048
  i64 tokens = 65536;  // at most; 0: all of the text
  Score score = Score::peak;
};
// Of every site, in the order of neuron_sites(). One pass over windows side by side, summed in double precision in an
// order that does not depend on the threads. Errors: no tokens; nothing to score; what is not finite, by its site.
std::vector<Contributions> measure_contributions(const Transformer& model, std::span<const i32> tokens,
                                                 const ContributionOptions& options,
                                                 const std::function<void(double)>& progress = {});

// What the site's neurons were in a pass whose activations were kept (N, P); those of parameter tokens are made again,
// in the arena. Neurons that a threshold leaves out are 0.
In<float, 2> neurons_of(const Transformer& model, const Activations& kept, NeuronSite site, Arena& arena);

}  // namespace sparsam
