// Replacing softmax attention in a trained model by attention at constant cost per token, in two stages (as LoLCATs,
// Zhang et al. 2024, arXiv 2410.10254): each chosen layer becomes log-sum-exp attention with learned feature maps
// beside a window of exact softmax attention, both under one sum of weights, and is fitted to what the softmax layer
// gives for the same hidden states. What is left of the error, training by distillation heals (train --from --teacher).
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "measure/redundancy.h"

namespace sparsam {

// What takes the place of a layer's softmax attention.
struct LinearAttention {
  i64 window = 64;      // tokens of exact softmax attention; 0: none, the state alone
  i64 features = 0;     // channels of the state's keys; 0: twice those of a head
  i64 convolution = 0;  // taps; 0: what the layer has
  bool decay = false;
};

// "all": those with softmax attention; "1,3": these; "least:2", "50%": so many or that part of those with softmax
// attention, the ones that need it least.
struct LayerChoice {
  std::vector<i64> layers = {};
  i64 least = 0;  // else so many, by score
};
// Errors (usage): a list that is not understood, a layer out of range or named twice, more than there are, none.
LayerChoice parse_layers(std::string_view list, const Config& config);
// The `count` layers of softmax attention whose attention scores lowest.
std::vector<i64> least_in_need(const Config& config, std::span<const SublayerScore> scores, i64 count);

// A model whose new layers have weights of their own, which may be fitted; all else reads those of the model it is
// from.
struct Linearized {
  Model model;
  std::vector<i64> layers;              // the new ones, in order
  Params<ParameterSpec> specs;          // of what follows
  std::shared_ptr<FlatParams> weights;  // of the new layers' attention, f32
};
// Projections are copied, feature maps begin with the channels of the heads and their negatives; where the window
// holds all tokens, the function is the same. Errors: a layer whose attention cannot be replaced, and why.
Linearized linearize(const Model& model, std::span<const i64> layers, const LinearAttention& attention);

struct FitOptions {
  i64 tokens = 262'144;  // that are fitted to, over and over where the text is shorter
  i64 sequence = 0;      // tokens of a window; 0: the model's context, at most 512
  i64 batch_tokens = 1024;
  double learning_rate = 1e-3;  // of AdamW for matrices, ten times that for vectors (maps, shares); falls to a tenth
};
struct LayerFit {
  i64 layer = 0;
  double before = 0, after = 0;  // |y' - y| / |y| over tokens that were not fitted to, y the softmax layer's outputs
};
// Each new layer, on the hidden states of `model` and apart from the other new ones, learns the outputs of the layer in
// whose place it stands: from maps and shares that suit the first window, by least squares, all weights of the
// sublayer. The last twentieth of the text is held out for the errors. Errors: too little text; numbers that are not
// finite.
std::vector<LayerFit> fit(const Transformer& model, const Linearized& linearized, std::span<const i32> tokens,
                          const FitOptions& options, const std::function<void(double)>& progress = {});

}  // namespace sparsam
