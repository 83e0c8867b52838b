// How fast a model runs, and what fraction of the machine's limit that is: prefill is bound by matrix products, decode
// by the memory that every token reads.
#pragma once

#include <functional>
#include <vector>

#include "infer/session.h"
#include "ops/machine.h"

namespace sparsam {

struct Repeated {  // tokens per second over the repetitions
  double median = 0, least = 0, most = 0;
};
Repeated summarize(std::vector<double> values);  // at least one

struct PrefillSpeed {
  i64 tokens = 0;
  Repeated tokens_per_second;
  double flops = 0;             // floating-point operations of one run; the head only for the last token
  double fraction_of_peak = 0;  // of the matrix products' peak in the type computed in, at the median
};
struct DecodeSpeed {
  i64 tokens = 0, depth = 0;  // tokens generated after `depth` others
  Repeated tokens_per_second;
  double bytes_per_token = 0;        // weights, and the mean of the keys and values read
  double fraction_of_bandwidth = 0;  // at the median
};

struct SpeedOptions {
  SessionOptions session;  // positions are set here
  i64 repetitions = 3;
  u64 seed = 0;  // of the random tokens
};
// One more run comes first and is not counted.
PrefillSpeed measure_prefill(const Model& model, Backend& backend, i64 tokens, const SpeedOptions& options,
                             const MachinePeaks& peaks);
DecodeSpeed measure_decode(const Model& model, Backend& backend, i64 tokens, i64 depth, const SpeedOptions& options,
                           const MachinePeaks& peaks);

// Decoding by several sessions token by token in turns, so that what else the machine does meets all alike.
struct DecodeTurns {
  std::vector<Repeated> tokens_per_second;  // of each repetition's median token
  std::vector<double> speedup;              // over the first session: the median over all tokens
};
DecodeTurns decode_in_turns(std::span<Session* const> sessions, std::span<const i32> tokens, i64 repetitions);

// Decoding that skips neurons which are zero beside decoding that reads all weights and leaves nothing out, token by
// token in turns.
struct SparseSpeed {
  double active = 0;       // fraction of what skipping products read that was not zero: of neurons, or of inputs
  Repeated dense, sparse;  // tokens per second, of each repetition's median token
  double speedup = 0;      // the median over all pairs of tokens
  double bound = 0;        // what the bytes allow: all that a dense token reads over what a sparse one has to
  std::vector<Crossover> crossovers = {};  // found before decoding
};
SparseSpeed measure_sparse_decode(const Model& model, Backend& backend, std::span<const i32> tokens,
                                  const SpeedOptions& options);
std::vector<i32> random_tokens(i64 count, i64 vocab, u64 seed);

}  // namespace sparsam
