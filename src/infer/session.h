// One sequence that grows token by token: its position, and what every layer remembers of it: keys and values of
// softmax attention, which grow up to its window, or the state of log-sum-exp attention, which does not.
#pragma once

#include <span>
#include <vector>

#include "model/transformer.h"

namespace sparsam {

struct SessionOptions {
  Compute compute = Compute::f32;
  DType cache = DType::f16;  // f32, f16 or bf16
  i64 positions = 0;         // longest sequence; 0: the context of the model
  i64 first_capacity = 256;  // positions that the cache begins with; it doubles when full, up to `positions`
  i64 chunk = 512;           // tokens of one forward pass of prefill()
  bool skip_zeros = true;    // do not read what belongs to neurons that are zero (model/sparse_layers.h)
};

// What a session remembers, to be restored into a session over the same model with the same options: to go back, to
// fork, to keep a prefix.
struct SessionState {
  i64 position = 0, capacity = 0;
  std::vector<std::vector<std::byte>> layers;
};

class Session {
 public:
  // `model` and `backend` must outlive this. Error: more positions than a table of learned positions holds.
  Session(const Model& model, Backend& backend, const SessionOptions& options = {});

  // Appends tokens, at least one, and returns the logits (V) after the last. They are valid until the next call.
  // Errors: a token outside the vocabulary; more tokens than positions are left (then nothing was appended).
  In<float, 1> prefill(std::span<const i32> tokens);
  In<float, 1> step(i32 token) { return prefill({&token, 1}); }

  // Forgets everything from `position` on, 0 <= position <= position(): the next token stands there. Error: memory of
  // fixed size (states, convolutions, windows that have moved on) goes back to nothing or to what was saved alone.
  void rewind(i64 position);

  SessionState save() const;
  void restore(const SessionState& state);  // Error: the state of a session of another shape
  // Adds what another session remembers, as if its tokens had come too: equal to reading both in one piece in the first
  // layer; those above read each part without the other. In any order and grouping the result is the same. Error unless
  // every mixer is log-sum-exp attention without decay, convolution or window.
  void merge(const SessionState& other);

  i64 position() const { return position_; }  // tokens so far
  i64 positions() const { return transformer_.positions(); }
  i64 capacity() const { return capacity_; }  // positions that the cache has room for
  i64 cache_bytes() const;                    // of that room, and of the states
  i64 scratch_bytes() const { return arena_.peak_bytes(); }
  const Model& model() const { return transformer_.model(); }
  const SparseLayers& sparse() const { return transformer_.sparse(); }

 private:
  void reserve(i64 positions);
  void clear_states();

  Transformer transformer_;
  SessionOptions options_;
  Arena arena_;
  std::vector<Buffer> buffers_;     // one a layer: keys, then values; or a state
  std::vector<MixerCache> caches_;  // views of them; empty where a layer has no attention
  i64 capacity_ = 0, position_ = 0;
};

}  // namespace sparsam
