#include "measure/perplexity.h"

#include <cmath>
#include <numbers>

#include "base/clock.h"

namespace sparsam {

void Losses::add(const Losses& other) {
  nats.insert(nats.end(), other.nats.begin(), other.nats.end());
  bytes += other.bytes;
  seconds += other.seconds;
}

Perplexity summarize(const Losses& losses) {
  Perplexity result;
  result.nats_per_token = clustered_mean(losses.nats);
  double nats = 0;
  for (const Cluster& c : losses.nats) result.tokens += c.count, nats += c.sum;
  result.bytes = losses.bytes;
  result.windows = static_cast<i64>(losses.nats.size());
  result.perplexity = std::exp(result.nats_per_token.mean);
  result.low = std::exp(result.nats_per_token.low), result.high = std::exp(result.nats_per_token.high);
  result.bits_per_byte = nats / std::numbers::ln2 / static_cast<double>(losses.bytes);
  result.seconds = losses.seconds;
  return result;
}

Losses measure_losses(const Transformer& model, const Tokenizer& tokenizer, const TokenText& text,
                      const WindowOptions& resolved, const std::function<void(double)>& progress) {
  const Stopwatch clock;
  const WindowedText windowed = cut(text, resolved);
  Losses losses;
  const Transformer* models[] = {&model};
  for_each_window(
      models, windowed, resolved.batch_tokens,
      [&](i64 index, std::span<const In<float, 2>> hidden, In<i32, 1> targets, Arena& arena) {
        const auto nats = model.losses(hidden[0], targets, arena);
        const Window& window = windowed.windows[static_cast<size_t>(index)];
        Cluster cluster{0, targets.size()};
        for (i64 i = 0; i < targets.size(); ++i) {
          if (!std::isfinite(nats[i]))
            fail("{}: the loss of token {} is {}, expected a finite number", text.name,
                 window.begin + window.first_scored + i, nats[i]);
          cluster.sum += static_cast<double>(nats[i]);
          losses.bytes += static_cast<i64>(tokenizer.bytes_of(targets[i]).size());
        }
        losses.nats.push_back(cluster);
      },
      progress);
  losses.seconds = clock.seconds();
  return losses;
}

}  // namespace sparsam
