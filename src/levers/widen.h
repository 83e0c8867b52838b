// Growing in width. Every channel becomes k equal ones, and what reads them divides its weights among the copies, so
// that the function stays: HyperCloning (Samragh et al. 2024, arXiv 2409.12903) of the residual stream with its heads
// and MLPs, Net2Net's widening (Chen et al. 2015, arXiv 1511.05641) of the MLPs alone.
//   W' = W / k in each of its blocks     embeddings, gains, biases: k times over
// A norm of k equal copies is that of one (RMS and layer norm), a head's copy attends as the head does, and rotary
// positions see heads of the same size. Logits become k times as large where the head is the embedding: the gain of the
// final norm is divided by k (where it has none, Config::logit_scale), and so a Llama stays a Llama.
#pragma once

#include "levers/growth.h"

namespace sparsam {

// How the neurons of a widened MLP begin: as copies that share what each gave; or drawn at random and read by nothing.
enum class NewNeurons : u8 { copies, random };

struct Widening {
  i64 dim = 1;     // times the channels of the residual stream, heads, key-value heads and neurons
  i64 hidden = 0;  // neurons of each MLP afterwards; 0: `dim` times as many
};
// Errors (usage), naming the layer: fewer neurons than before, no MLP at all, a norm over neurons that are not copied
// equally often, thresholds that leave neurons or inputs out.
Config widened(const Config& config, const Widening& widening);

struct WidenOptions {
  NewNeurons neurons = NewNeurons::copies;  // of those beyond `dim` times as many
  // Copies with equal weights have equal gradients for ever. Weights that read copies differ from each other by normal
  // noise, this many times the root of their mean square, which sums to 0 over the copies: they give the same function.
  double noise = 0.1;
  u64 seed = 0;
};
// The model with the widths of `to`, made by widened(); the same seed gives the same bits. Copied matrices become f32,
// others are shared. Errors: quantised weights; random neurons under a norm.
Model widen(const Model& model, const Config& to, const WidenOptions& options, Numbers numbers = Numbers::weights);

}  // namespace sparsam
