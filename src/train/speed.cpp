#include "train/speed.h"

#include <algorithm>
#include <fstream>
#include <string>

#include "base/clock.h"
#include "ops/machine.h"

namespace sparsam {

namespace {

i64 peak_resident_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return 1024 * std::stoll(line.substr(6));  // in kB
  return 0;
}

}  // namespace

double training_flops_per_token(const Config& config, i64 sequence) {
  const double context = static_cast<double>(sequence);
  return 3 * flops_per_token(config, config.causal ? context / 2 : context);
}

double measure_peak_flops(Compute compute) {
  const MachinePeaks peaks = measure_machine(0.5);
  return 1e9 * (compute == Compute::bf16 ? peaks.bf16_gflops : peaks.f32_gflops);
}

TrainSpeed measure_training(const Config& config, const Recipe& recipe, Backend& backend, i64 steps,
                            double least_seconds) {
  const auto specs = parameter_specs(config);
  auto weights = std::make_shared<FlatParams>(specs);
  initialize(specs, weights->views, 1);
  Timed timed(backend);
  Trainer trainer(config, weights, recipe, timed);
  const i64 outputs = trainer.model().head().rows;
  const SampleSource random_tokens = [&](i64 sample, std::span<i32> ids, std::span<i32> targets) {
    Random random(1, static_cast<u64>(sample));
    for (i32& id : ids) id = static_cast<i32>(random.below(static_cast<u64>(config.vocab)));
    for (i32& target : targets) target = static_cast<i32>(random.below(static_cast<u64>(outputs)));
    return recipe.sequence;
  };
  constexpr double learning_rate = 1e-5;
  trainer.step(random_tokens, learning_rate);
  timed.reset();
  std::vector<double> seconds;
  const Stopwatch clock;
  for (i64 i = 0; i < std::max<i64>(steps, 1) || clock.seconds() < least_seconds; ++i)
    seconds.push_back(trainer.step(random_tokens, learning_rate).seconds);
  std::nth_element(seconds.begin(), seconds.begin() + static_cast<i64>(seconds.size() / 2), seconds.end());

  TrainSpeed speed;
  speed.seconds_per_step = seconds[seconds.size() / 2];
  speed.tokens_per_second = static_cast<double>(trainer.step_tokens()) / speed.seconds_per_step;
  speed.operations = timed.usage();
  speed.peak_bytes = trainer.memory_bytes();
  speed.peak_resident_bytes = peak_resident_bytes();
  return speed;
}

TrainSpeed measure_training(const Architecture& architecture, i64 batch, i64 length, Compute compute, int steps) {
  const Config config = make_config(architecture);
  Recipe recipe;
  recipe.batch = batch, recipe.sequence = length, recipe.precision = compute;
  const auto backend = make_backend("cpu");
  TrainSpeed speed = measure_training(config, recipe, *backend, steps);
  speed.peak_flops = measure_peak_flops(compute);
  speed.fraction_of_peak = speed.tokens_per_second * training_flops_per_token(config, length) / speed.peak_flops;
  return speed;
}

}  // namespace sparsam
