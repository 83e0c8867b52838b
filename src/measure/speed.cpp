#include "measure/speed.h"

#include <algorithm>
#include <array>

#include "base/clock.h"
#include "base/random.h"

namespace sparsam {

std::vector<i32> random_tokens(i64 count, i64 vocab, u64 seed) {
  Random random(seed);
  std::vector<i32> tokens(static_cast<size_t>(count));
  for (i32& token : tokens) token = static_cast<i32>(random.below(static_cast<u64>(vocab)));
  return tokens;
}

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
  const bool grows = keeps_all(model.config);  // else memory does not go back
  const SessionState before = grows ? SessionState{} : session.save();
  std::vector<double> speeds;
  for (i64 r = 0; r <= options.repetitions; ++r) {
    grows ? session.rewind(depth) : session.restore(before);
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
  const double state_bytes = 2.0 * static_cast<double>(state_elements(model.config)) * sizeof(float);
  result.bytes_per_token = static_cast<double>(decode_bytes(model)) + cache_bytes + state_bytes;
  result.fraction_of_bandwidth =
      result.bytes_per_token * result.tokens_per_second.median / (peaks.bandwidth_gbytes * 1e9);
  return result;
}

namespace {

// Counts the neurons that the down projections find, and the bytes of weights that need not be read.
class CountLive final : public Backend {
 public:
  explicit CountLive(Backend& inner) : inner_(inner) {}
  void run(const Op& op) override {
    inner_.run(op);
    if (const auto* product = std::get_if<SkippingMatmul>(&op)) {
      const i64 zeros = std::count(product->x.begin(), product->x.end(), 0.0f);
      zeros_ += zeros, all_ += product->x.size();
      saved_ += static_cast<double>(zeros) * product->t.bytes_per_row();
    }
    if (const auto* product = std::get_if<SelectedMatmul>(&op))
      saved_ += static_cast<double>(std::count(product->s.begin(), product->s.end(), 0.0f) * product->w.row_bytes());
  }
  double active() const { return all_ ? 1 - static_cast<double>(zeros_) / static_cast<double>(all_) : 1; }
  double saved_bytes() const { return saved_; }

 private:
  Backend& inner_;
  i64 zeros_ = 0, all_ = 0;
  double saved_ = 0;
};

double seconds_of(Session& session, i32 token) {
  const Stopwatch clock;
  session.step(token);
  return clock.seconds();
}

}  // namespace

DecodeTurns decode_in_turns(std::span<Session* const> sessions, std::span<const i32> tokens, i64 repetitions) {
  std::vector<std::vector<double>> speeds(sessions.size()), ratios(sessions.size());
  for (i64 r = 0; r <= repetitions; ++r) {
    std::vector<std::vector<double>> seconds(sessions.size());
    for (Session* session : sessions) session->rewind(0);
    for (const i32 token : tokens)
      for (size_t i = 0; i < sessions.size(); ++i) {
        seconds[i].push_back(seconds_of(*sessions[i], token));
        if (r > 0) ratios[i].push_back(seconds[0].back() / seconds[i].back());
      }
    for (size_t i = 0; r > 0 && i < sessions.size(); ++i) speeds[i].push_back(1 / summarize(seconds[i]).median);
  }
  DecodeTurns result;
  for (size_t i = 0; i < sessions.size(); ++i) {
    result.tokens_per_second.push_back(summarize(speeds[i]));
    result.speedup.push_back(summarize(ratios[i]).median);
  }
  return result;
}

SparseSpeed measure_sparse_decode(const Model& model, Backend& backend, std::span<const i32> tokens,
                                  const SpeedOptions& options) {
  const i64 count = static_cast<i64>(tokens.size());
  SessionOptions session_options = options.session;
  session_options.positions = std::max(count, model.config.context);
  session_options.first_capacity = count;
  CountLive counting(backend);
  session_options.skip_zeros = true;
  Session sparse(model, counting, session_options);  // counting costs a thousandth of a step
  session_options.skip_zeros = false;
  Model whole = model;
  whole.config = without_thresholds(model.config);
  Session dense(whole, backend, session_options);
  const std::array<Session*, 2> sessions{&dense, &sparse};
  const DecodeTurns turns = decode_in_turns(sessions, tokens, options.repetitions);
  SparseSpeed result{
      .active = counting.active(), .dense = turns.tokens_per_second[0], .sparse = turns.tokens_per_second[1]};
  result.speedup = turns.speedup[1];
  result.crossovers = sparse.sparse().crossovers();
  const double all = static_cast<double>(decode_bytes(model));
  const double steps = static_cast<double>((options.repetitions + 1) * count);
  const double added = static_cast<double>(sparse.sparse().choosing_bytes());
  result.bound = all / (all - counting.saved_bytes() / steps + added);
  return result;
}

}  // namespace sparsam
