// Forward and backward of the whole model, written by hand and mirrored: embedding, blocks, final norm.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "model/mlp.h"
#include "model/softmax_attention.h"

namespace sparsam {

// What one pass processes: B sequences of T tokens each, one after the other, at positions start ... start + T - 1.
struct Tokens {
  In<i32, 1> ids;  // (B T)  each in [0, V); checked, since they come from data: Error
  i64 sequences = 1;
  i64 start = 0;
};

struct LayerActivations {
  In<float, 2> x;  // (N, C)  input of the layer
  AttentionActivations attention;
  In<float, 2> x_mlp;  // (N, C)  input of the MLP sublayer
  MlpActivations mlp;
};

// Everything that the backward reads of a forward pass; it lies in the arena that the forward was given.
struct Activations {
  In<i32, 1> positions;  // (N)
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
  // truncates MLPs, their neurons are left out; the backward does not know of it: such a model is not trained. With
  // `skip_zeros`, few rows do not read the weights of neurons that are zero, which takes copies (SparseMlps).
  Transformer(const Model& model, Backend& backend, Compute compute, i64 positions, bool skip_zeros = false);

  // Returns the hidden states after the final norm (N, C), times logit_scale, in the arena. With `kept`, everything the
  // backward needs stays in the arena; without, each layer's scratch is given back. With `caches` (one a layer) the
  // tokens are new positions of one sequence whose earlier keys and values the caches hold.
  Out<float, 2> forward(const Tokens& tokens, Arena& arena, Activations* kept = nullptr,
                        std::span<const LayerCache> caches = {}, const Observer& observe = {}) const;
  // Adds the gradients of all parameters into `gradients`, given dhidden (N, C).
  void backward(const Tokens& tokens, In<float, 2> dhidden, const Activations& kept,
                const Params<Out<float, 2>>& gradients, Arena& arena) const;
  // hidden (n, C) -> logits (n, V), in the arena.
  Out<float, 2> logits(In<float, 2> hidden, Arena& arena) const;
  // Cross-entropy of each row against its target in nats (0 where the target is negative), in the arena.
  Out<float, 1> losses(In<float, 2> hidden, In<i32, 1> targets, Arena& arena) const;

  const Model& model() const { return model_; }
  Backend& backend() const { return backend_; }
  i64 positions() const { return positions_; }

 private:
  Execution execution(const Tokens& tokens, In<i32, 1> positions, Arena& arena) const;

  const Model& model_;
  Backend& backend_;
  Compute compute_;
  i64 positions_;
  mutable RotaryTables rotary_;  // grows with the positions that come: one thread runs a Transformer at a time
  SparseMlps sparse_;
};

}  // namespace sparsam
