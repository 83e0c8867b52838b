// Forward and backward of the whole model, written by hand and mirrored: embedding, blocks, final norm.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "model/log_sum_exp_attention.h"
#include "model/mlp.h"
#include "model/recurrent_positions.h"
#include "model/softmax_attention.h"

namespace sparsam {

// What one pass processes: B sequences of T tokens each, one after the other, at positions start ... start + T - 1.
struct Tokens {
  In<i32, 1> ids;  // (B T)  each in [0, V); checked, since they come from data: Error
  i64 sequences = 1;
  i64 start = 0;
  // (B) in [1, T]: so many tokens of each sequence are real, the rest is padding, which no result depends on. Hidden
  // states of padding mean nothing; gradients that come from it must be 0. Empty: no padding.
  In<i32, 1> lengths = {};
  i64 length() const { return ids.size() / sequences; }  // T
};

// What a session keeps of one layer: of the first two, the one that its mixer needs. Recurrent positions have a cache
// after those of the layers.
struct MixerCache {
  LayerCache attention;
  LogSumExpCache log_sum_exp;
  Out<float, 2> positions = {};  // (1, C)
};

// Error: a token outside the vocabulary.
void check_tokens(std::span<const i32> ids, const Config& config);

struct LayerActivations {
  In<float, 2> x;  // (N, C)  input of the layer
  AttentionActivations attention;
  LogSumExpActivations log_sum_exp;
  In<float, 2> x_mlp;  // (N, C)  input of the MLP sublayer
  MlpActivations mlp;
};

// Everything that the backward reads of a forward pass; it lies in the arena that the forward was given.
struct Activations {
  In<i32, 1> positions;  // (N)
  Tokens tokens;
  RecurrentPositions recurrent;
  std::vector<LayerActivations> layers;
  In<float, 2> x;  // (N, C)  input of the final norm
  NormActivations final_norm;
};

enum class Sublayer : u8 { attention, mlp, block };
// Called with the residual stream (N, C) before and after each sublayer that is there, and each block.
using Observer = std::function<void(i64 layer, Sublayer sublayer, In<float, 2> before, In<float, 2> after)>;

class Transformer {
 public:
  // `model` and `backend` must outlive this; `positions` is the longest sequence that will come. Where the description
  // truncates MLPs or has thresholds of inputs, neurons and inputs are left out; the backward does not know of it: such
  // a model is not trained. With `skip_zeros`, few rows do not read the weights of what is zero, which takes copies and
  // a measurement of the crossover (SparseLayers).
  Transformer(const Model& model, Backend& backend, Compute compute, i64 positions, bool skip_zeros = false);

  // Returns the hidden states after the final norm (N, C), times logit_scale, in the arena. With `kept`, everything the
  // backward needs stays in the arena; without, each layer's scratch is given back. With `caches` (one a layer) the
  // tokens are new positions of one sequence whose earlier keys and values, or states, the caches hold.
  Out<float, 2> forward(const Tokens& tokens, Arena& arena, Activations* kept = nullptr,
                        std::span<const MixerCache> caches = {}, const Observer& observe = {}) const;
  // Adds the gradients of all parameters into `gradients`, given dhidden (N, C). The loss has the summand
  // l1 sum_n mean_i |h_ni| for each MLP's hidden activations h, beside what dhidden comes from.
  void backward(const Tokens& tokens, In<float, 2> dhidden, const Activations& kept,
                const Params<Out<float, 2>>& gradients, Arena& arena, float l1 = 0) const;
  // What the head reads, in the arena: the hidden states (N, C) themselves, of a classifier the means of each
  // sequence's (B, C); and the gradient of the hidden states, given that of what the head reads.
  Out<float, 2> head_input(const Tokens& tokens, Out<float, 2> hidden, Arena& arena) const;
  Out<float, 2> head_input_backward(const Tokens& tokens, Out<float, 2> dinput, Arena& arena) const;
  // Rows of what the head reads (n, C) -> logits (n, V), of a classifier (n, classes), in the arena.
  Out<float, 2> logits(In<float, 2> hidden, Arena& arena) const;
  // Cross-entropy of each row against its target in nats (0 where the target is negative), in the arena.
  Out<float, 1> losses(In<float, 2> hidden, In<i32, 1> targets, Arena& arena) const;

  const Model& model() const { return model_; }
  Backend& backend() const { return backend_; }
  i64 positions() const { return positions_; }
  const SparseLayers& sparse() const { return sparse_; }

 private:
  Execution execution(const Tokens& tokens, In<i32, 1> positions, Arena& arena) const;

  const Model& model_;
  Backend& backend_;
  Compute compute_;
  i64 positions_;
  mutable RotaryTables rotary_;  // grows with the positions that come: one thread runs a Transformer at a time
  SparseLayers sparse_;
};

}  // namespace sparsam
