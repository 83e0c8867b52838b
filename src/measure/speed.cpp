#include "measure/speed.h"

#include <algorithm>

#include "base/clock.h"
#include "base/random.h"

namespace sparsam {

namespace {

std::vector<i32> random_tokens(i64 count, i64 vocab, u64 seed) {
  Random random(seed);
  std::vector<i32> tokens(static_cast<size_t>(count));
  for (i32& token : tokens) token = static_cast<i32>(random.below(static_cast<u64>(vocab)));
  return tokens;
}

}  // namespace

Repeated summarize(std::vector<double> values) {
  check(!values.empty(), "no repetitions");
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  const double median = values.size() % 2 ? values[half] : (values[half - 1] + values[half]) / 2;
  return {median, values.front(), values.back()};
}

PrefillSpeed measure_prefill(const Model& model, Backend& backend, i64 tokens, const SpeedOptions& options,
                             const MachinePeaks& peaks) {
  SessionOptions session_options = options.session;
  session_options.positions = std::max(tokens, model.config.context);
  Session session(model, backend, session_options);
  const std::vector<i32> prompt = random_tokens(tokens, model.config.vocab, options.seed);
  std::vector<double> speeds;
  for (i64 r = 0; r <= options.repetitions; ++r) {
    session.rewind(0);
    const Stopwatch clock;
    session.prefill(prompt);
    if (r > 0) speeds.push_back(static_cast<double>(tokens) / clock.seconds());
  }
  const double count = static_cast<double>(tokens);
  const double head = 2 * static_cast<double>(model.config.vocab) * static_cast<double>(model.config.dim);
  PrefillSpeed result{.tokens = tokens, .tokens_per_second = summarize(speeds), .flops = 0, .fraction_of_peak = 0};
  result.flops = count * (flops_per_token(model.config, (count + 1) / 2) - head) + head;
  const double peak = options.session.compute == Compute::bf16 ? peaks.bf16_gflops : peaks.f32_gflops;
  result.fraction_of_peak = result.flops / count * result.tokens_per_second.median / (peak * 1e9);
  return result;
}

DecodeSpeed measure_decode(const Model& model, Backend& backend, i64 tokens, i64 depth, const SpeedOptions& options,
                           const MachinePeaks& peaks) {
  SessionOptions session_options = options.session;
  session_options.positions = std::max(depth + tokens, model.config.context);
  session_options.first_capacity = depth + tokens;  // no copy of a growing cache in what is timed
  Session session(model, backend, session_options);
  if (depth > 0) session.prefill(random_tokens(depth, model.config.vocab, options.seed));
  const std::vector<i32> steps = random_tokens(tokens, model.config.vocab, options.seed + 1);
  std::vector<double> speeds;
  for (i64 r = 0; r <= options.repetitions; ++r) {
    session.rewind(depth);
    const Stopwatch clock;
    for (const i32 token : steps) session.step(token);
    if (r > 0) speeds.push_back(static_cast<double>(tokens) / clock.seconds());
  }
  DecodeSpeed result{.tokens = tokens,
                     .depth = depth,
                     .tokens_per_second = summarize(speeds),
                     .bytes_per_token = 0,
                     .fraction_of_bandwidth = 0};
  const double mean_context = static_cast<double>(depth) + static_cast<double>(tokens + 1) / 2;
  const double cache_bytes = static_cast<double>(cache_elements_per_token(model.config)) * mean_context *
                             static_cast<double>(size_of(session_options.cache));
  result.bytes_per_token = static_cast<double>(decode_bytes(model)) + cache_bytes;
  result.fraction_of_bandwidth =
      result.bytes_per_token * result.tokens_per_second.median / (peaks.bandwidth_gbytes * 1e9);
  return result;
}

}  // namespace sparsam
