// Sequences and what is to be predicted of them: what training and evaluation read, whatever the task.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "model/transformer.h"

namespace sparsam {

// Writes sequence number `sample` to the beginning of `ids` and returns its length, at least 1; writes what is to be
// predicted: of a classifier the label, targets (1); else of each token a token, or -1 for nothing, targets (length).
// Pure: the same number gives the same sequence.
using SampleSource = std::function<i64(i64 sample, std::span<i32> ids, std::span<i32> targets)>;
struct SampleSet {
  SampleSource read = {};
  i64 count = 0;
};

// Several sequences, padded to one length: that of the longest, rounded up so that few lengths occur.
struct Batch {
  std::vector<i32> ids = {}, targets = {};  // (B T); (B T), of a classifier (B)
  std::vector<i32> lengths = {};            // (B), or empty: no padding
  i64 sequences = 0;                        // B
  i64 real_tokens = 0, predictions = 0;

  Tokens tokens() const;  // views of this
  In<i32, 1> wanted() const { return {targets.data(), {static_cast<i64>(targets.size())}}; }
};
// Samples [first, first + count) of at most `longest` tokens.
Batch read_batch(const SampleSource& source, i64 first, i64 count, i64 longest, bool classifies);

// The tokens of a file side by side in sequences of T, the last one shorter, each token predicting the next: all, or
// the first `most` (0: all). `tokens` must outlive the result.
class TokenFile;
SampleSet next_tokens(const TokenFile& tokens, i64 length, i64 most);

// Runs the model over all samples, `sequences` at a time. consume(first sample, batch, rows, losses, arena): rows is
// what the head read, losses are in nats, 0 where nothing was to be predicted. With `kept` the pass leaves its
// activations there.
using ConsumeBatch =
    std::function<void(i64 first, const Batch& batch, In<float, 2> rows, In<float, 1> losses, Arena& arena)>;
void for_each_batch(const Transformer& model, const SampleSet& samples, i64 sequences, i64 longest,
                    const ConsumeBatch& consume, Arena& arena, Activations* kept = nullptr);

}  // namespace sparsam
