// One sequence that grows token by token: its position, and the keys and values of every layer that has attention.
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
  bool skip_zeros = true;    // do not read what belongs to neurons that are zero (model/sparse_neurons.h)
};

class Session {
 public:
  // `model` and `backend` must outlive this. Error: more positions than a table of learned positions holds.
  Session(const Model& model, Backend& backend, const SessionOptions& options = {});

  // Appends tokens, at least one, and returns the logits (V) after the last. They are valid until the next call.
  // Errors: a token outside the vocabulary; more tokens than positions are left (then nothing was appended).
  In<float, 1> prefill(std::span<const i32> tokens);
  In<float, 1> step(i32 token) { return prefill({&token, 1}); }

  // Forgets everything from `position` on, 0 <= position <= position(): the next token stands there.
  void rewind(i64 position);

  i64 position() const { return position_; }  // tokens so far
  i64 positions() const { return transformer_.positions(); }
  i64 capacity() const { return capacity_; }  // positions that the cache has room for
  i64 cache_bytes() const;                    // of that room
  i64 scratch_bytes() const { return arena_.peak_bytes(); }
  const Model& model() const { return transformer_.model(); }

 private:
  void reserve(i64 positions);

  Transformer transformer_;
  SessionOptions options_;
  Arena arena_;
  std::vector<Buffer> buffers_;     // one a layer: keys, then values
  std::vector<LayerCache> caches_;  // views of them; empty where a layer has no attention
  i64 capacity_ = 0, position_ = 0;
};

}  // namespace sparsam
