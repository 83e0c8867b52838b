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

namespace {

// Counts the neurons that the down projections find.
class CountLive final : public Backend {
 public:
  explicit CountLive(Backend& inner) : inner_(inner) {}
  void run(const Op& op) override {
    inner_.run(op);
    if (const auto* product = std::get_if<SkippingMatmul>(&op)) {
      zeros_ += std::count(product->x.begin(), product->x.end(), 0.0f);
      all_ += product->x.size();
    }
  }
  double active() const { return all_ ? 1 - static_cast<double>(zeros_) / static_cast<double>(all_) : 1; }

 private:
  Backend& inner_;
  i64 zeros_ = 0, all_ = 0;
};

double seconds_of(Session& session, const std::vector<i32>& steps) {
  session.rewind(0);
  const Stopwatch clock;
  for (const i32 token : steps) session.step(token);
  return clock.seconds();
}

// Weights that belong to single neurons once the gate has decided: up (of a gated MLP) and down.
double skippable_bytes(const Model& model) {
  i64 total = 0;
  for (size_t l = 0; l < model.config.layers.size(); ++l) {
    const auto& mlp = model.weights.layers[l].mlp;
    if (std::holds_alternative<GatedMlp>(model.config.layers[l].mlp))
      total += static_cast<i64>(mlp.up.weight.bytes.size());
    total += static_cast<i64>(mlp.down.weight.bytes.size());
  }
  return static_cast<double>(total);
}

}  // namespace

SparseSpeed measure_sparse_decode(const Model& model, Backend& backend, i64 tokens, const SpeedOptions& options) {
  SessionOptions session_options = options.session;
  session_options.positions = std::max(tokens, model.config.context);
  session_options.first_capacity = tokens;
  CountLive counting(backend);
  session_options.skip_zeros = true;
  Session sparse(model, counting, session_options);  // counting costs a thousandth of a step
  session_options.skip_zeros = false;
  Session dense(model, backend, session_options);
  const std::vector<i32> steps = random_tokens(tokens, model.config.vocab, options.seed + 1);
  std::vector<double> dense_speeds, sparse_speeds;
  for (i64 r = 0; r <= options.repetitions; ++r)
    for (const bool skip : {false, true}) {
      const double speed = static_cast<double>(tokens) / seconds_of(skip ? sparse : dense, steps);
      if (r > 0) (skip ? sparse_speeds : dense_speeds).push_back(speed);
    }
  SparseSpeed result{.active = counting.active(), .dense = summarize(dense_speeds), .sparse = summarize(sparse_speeds)};
  result.speedup = result.sparse.median / result.dense.median;
  const double all = static_cast<double>(decode_bytes(model));
  result.bound = all / (all - (1 - result.active) * skippable_bytes(model));
  return result;
}

}  // namespace sparsam
