// sparsam bench --sparse and --data: decoding that does not read what it does not need, beside decoding that reads all.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/threads.h"
#include "cli/bench.h"
#include "measure/input_sparsity.h"
#include "model/hugging_face.h"

namespace sparsam {

namespace {

// The number that a standard normal one exceeds with probability p.
double normal_above(double p) {
  double low = -9, high = 9;
  while (high - low > 1e-9) {
    const double middle = (low + high) / 2;
    (std::erfc(middle / std::numbers::sqrt2) / 2 > p ? low : high) = middle;
  }
  return low;
}

// The threshold that |gelu(z)| of a standard normal z reaches with probability p: twelve deviations in steps of 1/1000.
float gelu_above(double p) {
  const auto probability = [](double threshold) {
    constexpr double step = 1e-3;
    double sum = 0;
    for (double z = -6; z < 6; z += step)
      if (std::abs(z * std::erfc(-z / std::numbers::sqrt2) / 2) >= threshold) sum += std::exp(-z * z / 2);
    return sum * step / std::sqrt(2 * std::numbers::pi);
  };
  double low = 0, high = 6;
  while (high - low > 1e-6) {
    const double middle = (low + high) / 2;
    (probability(middle) > p ? low : high) = middle;
  }
  return static_cast<float>(low);
}

// Random weights have gates and normed scores that are normally distributed, of variance 1: the threshold of a FATReLU
// plants the fraction of neurons that it lets live, one of |s| that of parameter tokens. With `key_blocks` that
// fraction of blocks of so many tokens is read instead.
void plant(Config& config, double active, i64 key_blocks) {
  for (Layer& layer : config.layers) {
    if (auto* gated = std::get_if<GatedMlp>(&layer.mlp)) gated->threshold = static_cast<float>(normal_above(active));
    for (ParameterTokens* tokens : tokens_of(layer)) {
      if (!tokens || active == 1) continue;
      if (key_blocks > 0) {
        tokens->blocks.size = std::min(key_blocks, tokens->tokens);
        const double read = active * static_cast<double>(tokens->blocks.count(tokens->tokens));
        tokens->blocks.read = std::max<i64>(std::llround(read), 1);
      } else {
        tokens->truncation = {.measure = Truncation::Measure::gate, .threshold = gelu_above(active), .keep = 0};
      }
    }
  }
}

// Thresholds under which all but the fraction `active` of the inputs of each projection lie, by quantiles of what
// random tokens give.
InputSparsity planted_inputs(const Model& model, Backend& backend, double active, u64 seed) {
  constexpr i64 tokens = 64;
  const Transformer dense(model, backend, Compute::f32, tokens);
  const InputProfile profile = profile_inputs(dense, random_tokens(tokens, model.config.vocab, seed),
                                              {.context = tokens, .tokens = tokens, .dense_positions = 0});
  return input_thresholds(profile, InputAllocation(model.config.layers.size()), 1 - active);
}

Architecture sparse_shape(const BenchFlags& flags) {
  Architecture architecture = shape_of(flags.shape, "--random");
  const bool tokens = architecture.attention_tokens > 0 || architecture.mlp_tokens > 0;
  if (flags.inputs && flags.key_blocks > 0) fail_usage("bench: give --inputs or --key-blocks, not both");
  if (flags.key_blocks > 0 && !tokens)
    fail_usage("bench: --key-blocks are of parameter tokens, the shape {} has none", flags.shape);
  if (flags.inputs && architecture.mixer == Mixer::lse)
    fail_usage("bench: --inputs: log-sum-exp attention reads all of its inputs, and {} has it", flags.shape);
  if (flags.inputs) return architecture;
  if (!architecture.gated && !tokens)
    fail_usage("bench: --sparse needs a gated MLP or parameter tokens, the shape {} has neither", flags.shape);
  if (architecture.gated) architecture.activation = Function::fatrelu;
  return architecture;
}

}  // namespace

Exit bench_sparse(const BenchFlags& flags, const Common& common) {
  if (flags.shape.empty() || !flags.model.path.empty())
    fail_usage("bench: --sparse plants its own neurons: give --random SHAPE and no MODEL");
  for (const double active : flags.sparse)
    if (!(active > 0 && active <= 1)) fail_usage("bench: --sparse {}, expected a fraction above 0, at most 1", active);
  Model model = random_model(make_config(sparse_shape(flags)), weight_type(flags.type), common.seed);
  const auto backend = make_backend(flags.model.backend);
  const SpeedOptions options{.session = {.compute = compute_of(flags.model.precision, model)},
                             .repetitions = flags.repetitions,
                             .seed = common.seed};
  if (!common.json)
    fmt::print("{:>7}  {:>7}  {:>14}  {:>14}  {:>8}  {:>8}  {}  {}\n", "planted", "active", "dense tokens/s",
               "sparse tokens/s", "speed-up", "bound", "of the bound", "crossover");
  Json rows = Json::array();
  for (const double planted : flags.sparse) {
    const std::vector<Crossover> found = model.config.crossovers;
    model.config = without_thresholds(model.config);
    if (!flags.inputs)
      plant(model.config, planted, flags.key_blocks);
    else if (planted < 1)
      model.config.inputs = planted_inputs(model, *backend, planted, common.seed + 2);
    if (leaves_out(model.config))  // as sparsity writes such models
      model.config.crossovers =
          found.empty() ? SparseLayers(model, *backend, true).measure_input_crossovers(*backend) : found;
    const auto tokens = random_tokens(flags.decode.front(), model.config.vocab, common.seed + 1);
    const SparseSpeed s = measure_sparse_decode(model, *backend, tokens, options);
    const std::vector<Crossover>& crossovers = model.config.crossovers.empty() ? s.crossovers : model.config.crossovers;
    rows.push_back({{"planted", planted},
                    {"active", s.active},
                    {"dense_tokens_per_second", s.dense.median},
                    {"sparse_tokens_per_second", s.sparse.median},
                    {"speedup", s.speedup},
                    {"bound", s.bound},
                    {"fraction_of_bound", s.speedup / s.bound},
                    {"dense_repetitions", repeated_json(s.dense)},
                    {"sparse_repetitions", repeated_json(s.sparse)},
                    {"crossovers", crossovers_json(crossovers)}});
    if (!common.json)
      fmt::print("{:>7.2f}  {:>7.4f}  {:>14.2f}  {:>15.2f}  {:>8.3f}  {:>8.3f}  {:>10.1f} %  {:>9.2f}\n", planted,
                 s.active, s.dense.median, s.sparse.median, s.speedup, s.bound, 100 * s.speedup / s.bound,
                 crossovers.empty() ? 1.0f : crossovers.front().fractions[0]);
    std::fflush(stdout);
  }
  if (common.json) print_json({{"sparse", rows}, {"type", flags.type}, {"threads", threads()}});
  return Exit::done;
}

Exit bench_text(const BenchFlags& flags, const Common& common) {
  if (flags.model.path.empty()) fail_usage("bench: --data decodes a text with a MODEL, which is not given");
  const OpenModel open = open_model(flags.model);
  const TokenText text = load_text(flags.data, open.tokenizer);
  const i64 count = std::min(flags.decode.front(), static_cast<i64>(text.tokens.size()));
  if (count < 1) fail_usage("bench: --decode {}, expected 1 or more tokens of --data", flags.decode.front());
  const auto backend = make_backend(flags.model.backend);
  const SpeedOptions options{
      .session = {.compute = open.compute}, .repetitions = flags.repetitions, .seed = common.seed};
  const SparseSpeed s =
      measure_sparse_decode(open.model, *backend, std::span(text.tokens).first(static_cast<size_t>(count)), options);
  if (common.json)
    print_json({{"tokens", count},
                {"active", s.active},
                {"dense_tokens_per_second", s.dense.median},
                {"sparse_tokens_per_second", s.sparse.median},
                {"speedup", s.speedup},
                {"dense_repetitions", repeated_json(s.dense)},
                {"sparse_repetitions", repeated_json(s.sparse)},
                {"threads", threads()}});
  else
    fmt::print(
        "{} tokens of {}: {:.1f} % of what can be skipped is active; {:.1f} tokens/s, all weights read {:.1f}; "
        "{:.3f}x\n",
        count, flags.data, 100 * s.active, s.sparse.median, s.dense.median, s.speedup);
  return Exit::done;
}

}  // namespace sparsam
