// sparsam bench: tokens per second, and what fraction of the machine's limits they are.
#include "cli/bench.h"

#include <algorithm>

#include "base/progress.h"
#include "base/threads.h"
#include "measure/speed.h"
#include "ops/decorators.h"
#include "train/speed.h"

namespace sparsam {

namespace {

// TinyLlama 1.1B (Zhang et al. 2024, arXiv 2401.02385).
const Architecture tiny_llama{.vocab = 32000,
                              .context = 2048,
                              .layers = 22,
                              .dim = 2048,
                              .heads = 32,
                              .kv_heads = 4,
                              .head_dim = 64,
                              .hidden = 5632,
                              .tied = false};

}  // namespace

Architecture shape_of(const std::string& name, const char* flag) {
  if (name == "1.1b") return tiny_llama;
  std::vector<std::string> known = preset_names();
  if (std::find(known.begin(), known.end(), name) != known.end()) return preset(name);
  known.emplace_back("1.1b");
  fail_unknown("shape", name, known, flag, Exit::usage);
}

DType weight_type(const std::string& name) {
  const std::vector<std::string> known{"bf16", "f32", "f16", "q8_0", "q4_0"};
  const auto dtype = dtype_from_name(name);
  if (std::find(known.begin(), known.end(), name) == known.end())
    fail_unknown("type", name, known, "--type", Exit::usage);
  return *dtype;
}

Json repeated_json(const Repeated& r) { return {{"median", r.median}, {"least", r.least}, {"most", r.most}}; }

namespace {

Exit bench_inference(const BenchFlags& flags, const Common& common) {
  if (flags.model.path.empty() == flags.shape.empty())
    fail_usage("bench: give a MODEL directory or --random SHAPE{}", flags.shape.empty() ? "" : ", not both");
  const Model model = flags.shape.empty() ? load_model(flags.model.path)
                                          : random_model(make_config(shape_of(flags.shape, "--random")),
                                                         weight_type(flags.type), common.seed);
  require_language_model(model.config, flags.model.path);
  const auto backend = make_backend(flags.model.backend);
  Timed timed(*backend);
  const SpeedOptions options{.session = {.compute = compute_of(flags.model.precision, model)},
                             .repetitions = flags.repetitions,
                             .seed = common.seed};
  constexpr double peak_seconds = 1;
  const MachinePeaks peaks = measure_machine(peak_seconds);
  const double peak_gflops = options.session.compute == Compute::bf16 ? peaks.bf16_gflops : peaks.f32_gflops;
  Json prefill = Json::array(), decode = Json::array();
  if (!common.json)
    fmt::print("{} parameters, weights in {}, products in {}; this machine: {:.0f} GFLOP/s, {:.1f} GB/s\n",
               format_count(static_cast<double>(parameter_count(model.config))),
               name_of(model.weights.token_embedding.dtype), name_of(options.session.compute), peak_gflops,
               peaks.bandwidth_gbytes);
  for (const i64 tokens : flags.prefill) {
    if (tokens == 0) continue;
    const PrefillSpeed s = measure_prefill(model, timed, tokens, options, peaks);
    prefill.push_back({{"tokens", s.tokens},
                       {"tokens_per_second", s.tokens_per_second.median},
                       {"fraction_of_peak", s.fraction_of_peak},
                       {"repetitions", repeated_json(s.tokens_per_second)}});
    if (!common.json)
      fmt::print("prompt of {:>6} tokens             {:>10.1f} tokens/s ({:.1f} to {:.1f})  {:5.1f} % of the peak\n",
                 s.tokens, s.tokens_per_second.median, s.tokens_per_second.least, s.tokens_per_second.most,
                 100 * s.fraction_of_peak);
  }
  for (const i64 depth : flags.depth) {
    for (const i64 tokens : flags.decode) {
      if (tokens == 0) continue;
      const DecodeSpeed s = measure_decode(model, timed, tokens, depth, options, peaks);
      decode.push_back({{"tokens", s.tokens},
                        {"depth", s.depth},
                        {"tokens_per_second", s.tokens_per_second.median},
                        {"fraction_of_bandwidth", s.fraction_of_bandwidth},
                        {"bytes_per_token", s.bytes_per_token},
                        {"repetitions", repeated_json(s.tokens_per_second)}});
      if (!common.json)
        fmt::print(
            "{:>6} tokens after {:>6}           {:>10.1f} tokens/s ({:.1f} to {:.1f})  {:5.1f} % of the "
            "bandwidth\n",
            s.tokens, s.depth, s.tokens_per_second.median, s.tokens_per_second.least, s.tokens_per_second.most,
            100 * s.fraction_of_bandwidth);
    }
  }
  if (flags.operations) fmt::print(stderr, "{}", usage_table(timed.usage()));
  if (common.json)
    print_json({{"prefill", prefill},
                {"decode", decode},
                {"peak_gflops", peak_gflops},
                {"bandwidth_gbytes", peaks.bandwidth_gbytes},
                {"precision", name_of(options.session.compute)},
                {"parameters", parameter_count(model.config)},
                {"weight_bytes", weight_bytes(model)},
                {"decode_bytes", decode_bytes(model)},
                {"threads", threads()}});
  return Exit::done;
}

Exit bench_training(const BenchFlags& flags, const Common& common) {
  if (!flags.model.path.empty() || !flags.shape.empty())
    fail_usage("bench: --train PRESET makes its own model; give no MODEL and no --random");
  const Architecture architecture = shape_of(flags.train, "--train");
  const std::string precision = flags.model.precision == "auto" ? "bf16" : flags.model.precision;
  const Compute compute = compute_of(precision, {});
  // As `train` would run it, where the preset has a batch and a length of its own.
  const bool known = flags.train != "1.1b";
  const Recipe recipe = known ? RunOptions::of_preset(flags.train).recipe : Recipe{.batch = 1};
  const i64 batch = flags.batch ? flags.batch : recipe.batch;
  const i64 length = recipe.sequence ? recipe.sequence : architecture.context;
  const TrainSpeed s = measure_training(architecture, batch, length, compute, static_cast<int>(flags.steps));
  if (flags.operations) fmt::print(stderr, "{}", usage_table(s.operations));
  if (common.json)
    print_json({{"tokens_per_second", s.tokens_per_second},
                {"fraction_of_peak", s.fraction_of_peak},
                {"peak_bytes", s.peak_bytes},
                {"peak_gflops", s.peak_flops / 1e9},
                {"seconds_per_step", s.seconds_per_step},
                {"batch", batch},
                {"length", length},
                {"precision", name_of(compute)},
                {"threads", threads()}});
  else
    fmt::print("training {} in {}: {:.1f} tokens/s, {:.1f} % of {:.0f} GFLOP/s, {} of memory\n", flags.train,
               name_of(compute), s.tokens_per_second, 100 * s.fraction_of_peak, s.peak_flops / 1e9,
               format_bytes(static_cast<double>(s.peak_bytes)));
  return Exit::done;
}

}  // namespace

void add_bench(CLI::App& program, Command& command) {
  const auto flags = std::make_shared<BenchFlags>();
  CLI::App* verb = add_verb(program, command, "bench", "how fast a model runs or trains on this machine");
  verb->add_option("MODEL", flags->model.path, "model directory");
  add_compute_flags(verb, flags->model);
  verb->add_option("--random", flags->shape, "random weights instead: a preset of train, or 1.1b (TinyLlama's shape)");
  verb->add_option("--type", flags->type, "of random weights: bf16, f32, f16, q8_0 or q4_0")->capture_default_str();
  const auto counts = [&](const char* name, std::vector<i64>& values, const char* what) {
    verb->add_option(name, values, what)
        ->check(in_range(0, i64{1} << 24))
        ->allow_extra_args(false)
        ->capture_default_str();
  };
  counts("-p,--prompt-tokens", flags->prefill, "lengths of the prompt; 0: none");
  counts("-n,--tokens", flags->decode, "how many tokens to generate; 0: none");
  counts("-d,--depth", flags->depth, "how many tokens are there before those");
  verb->add_option("-r,--repetitions", flags->repetitions, "of each measurement, after one that does not count")
      ->check(in_range(1, 1000))
      ->capture_default_str();
  verb->add_option(
          "--sparse", flags->sparse,
          "fractions of neurons or parameter tokens to plant in a random model: skipping the others beside dense")
      ->delimiter(',')
      ->allow_extra_args(false);
  verb->add_flag("--inputs", flags->inputs, "with --sparse: the fractions are those of the inputs of all projections");
  verb->add_option("--key-blocks", flags->key_blocks,
                   "with --sparse: tokens of a block; of the blocks of parameter tokens those fractions are read")
      ->check(in_range(1, i64{1} << 20));
  verb->add_option("--train", flags->train, "training steps of a preset instead");
  verb->add_option("--batch", flags->batch, "sequences of a training step; 0: as train does")
      ->check(in_range(0, 65536))
      ->capture_default_str();
  verb->add_option("--steps", flags->steps, "training steps to measure")
      ->check(in_range(1, 100000))
      ->capture_default_str();
  verb->add_option("--data", flags->data,
                   "decode this text instead, with and without what thresholds and zeros leave out");
  verb->add_flag("--operations", flags->operations, "also say, on standard error, where the time goes");
  add_example(verb, "sparsam bench --random 1.1b -p 512 -n 128\n  sparsam bench --train mini");
  on_chosen(verb, command, [flags, &command] {
    if ((flags->key_blocks > 0 || flags->inputs) && flags->sparse.empty())
      fail_usage("bench: {}: give --sparse, whose fractions are read", flags->inputs ? "--inputs" : "--key-blocks");
    if (!flags->sparse.empty()) return bench_sparse(*flags, command.common);
    if (!flags->data.empty()) return bench_text(*flags, command.common);
    return flags->train.empty() ? bench_inference(*flags, command.common) : bench_training(*flags, command.common);
  });
}

}  // namespace sparsam
