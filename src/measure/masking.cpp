#include "measure/masking.h"

#include <algorithm>
#include <cmath>

namespace sparsam {

Masking masking_of(const Tokenizer& tokenizer, double share, const std::string& where) {
  const auto mask = tokenizer.mask_token();
  if (!mask) fail("{}: the tokenizer has no mask token, <mask> or [MASK]", where);
  Masking masking{*mask, std::vector<bool>(static_cast<size_t>(tokenizer.vocab_size()), true), share};
  const auto keep = [&](i32 id) { masking.hideable[static_cast<size_t>(id)] = false; };
  keep(*mask);
  if (const auto end = tokenizer.end_of_text()) keep(*end);
  for (const i32 id : tokenizer.prefix()) keep(id);
  for (const i32 id : tokenizer.suffix()) keep(id);
  return masking;
}

void hide_tokens(const Masking& masking, Random random, std::span<i32> ids, std::span<i32> targets) {
  constexpr double masked = 0.8, replaced = 0.9;
  for (size_t i = 0; i < ids.size(); ++i) {
    targets[i] = -1;
    if (!masking.hideable[static_cast<size_t>(ids[i])] || random.uniform() >= masking.share) continue;
    targets[i] = ids[i];
    const double kind = random.uniform();
    if (kind < masked)
      ids[i] = masking.mask;
    else if (kind < replaced)
      ids[i] = static_cast<i32>(random.below(masking.hideable.size()));
  }
}

SampleSource hidden_tokens(SampleSource sequences, Masking masking, u64 seed) {
  return [sequences = std::move(sequences), masking = std::move(masking), seed](i64 sample, std::span<i32> ids,
                                                                                std::span<i32> targets) {
    const i64 length = sequences(sample, ids, targets);
    const size_t size = static_cast<size_t>(length);
    hide_tokens(masking, Random(seed, static_cast<u64>(sample)), ids.first(size), targets.first(size));
    return length;
  };
}

std::vector<Cluster> measure_masked(const Transformer& model, std::span<const i32> tokens, const Masking& masking,
                                    u64 seed, i64 context, i64 batch_tokens,
                                    const std::function<void(double)>& progress) {
  const i64 count = static_cast<i64>(tokens.size());
  const SampleSource windows = [&](i64 sample, std::span<i32> ids, std::span<i32>) {
    const auto window = tokens.subspan(static_cast<size_t>(sample * context));
    const size_t length = std::min(window.size(), static_cast<size_t>(context));
    std::copy_n(window.begin(), length, ids.begin());
    return static_cast<i64>(length);
  };
  const SampleSet samples{hidden_tokens(windows, masking, seed), (count + context - 1) / context};
  std::vector<Cluster> clusters;
  Arena arena;
  for_each_batch(
      model, samples, std::max<i64>(1, batch_tokens / context), context,
      [&](i64 first, const Batch& batch, In<float, 2>, In<float, 1> losses, Arena&) {
        const i64 length = batch.tokens().length();
        for (i64 b = 0; b < batch.sequences; ++b) {
          Cluster cluster;
          for (i64 n = b * length; n < (b + 1) * length; ++n) {
            if (batch.targets[static_cast<size_t>(n)] < 0) continue;
            if (!std::isfinite(losses[n]))
              fail("the loss of a hidden token in window {} is {}, expected a finite number", first + b + 1, losses[n]);
            cluster.sum += static_cast<double>(losses[n]), ++cluster.count;
          }
          if (cluster.count > 0) clusters.push_back(cluster);
        }
        if (progress) progress(static_cast<double>(first + batch.sequences) / static_cast<double>(samples.count));
      },
      arena);
  return clusters;
}

}  // namespace sparsam
