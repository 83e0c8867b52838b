// What one layer of attention costs, whatever came before it: bench_constant_cost WHAT KIND [NUMBER...]
//   decode lse|plain|softmax POSITION...  a token at each position: microseconds, and this process's resident memory
//   train  lse|plain|softmax TIME...      8192 tokens in sequences of TIME, forward and backward: nanoseconds a token
//   gguf   FILE                           the softmax model for llama.cpp, with random weights in f16
// The model has 24 heads of 32 channels, 256 tokens and, for llama.cpp, an MLP of 32 channels. lse has decay,
// convolution and window, plain has none of them. Results are lines of JSON. bench/lse_decode.py and
// bench/lse_training.py read them.
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/random.h"
#include "infer/session.h"
#include "model/gguf.h"
#include "tensor/dtype.h"

namespace sparsam {
namespace {

Config description(std::string_view kind, bool mlp) {
  Architecture a{.vocab = 256, .context = 1 << 21, .layers = 1, .dim = 768, .heads = 24, .hidden = 32};
  a.mlp = mlp, a.tied = false;
  if (kind != "softmax") a.mixer = Mixer::lse;
  if (kind == "lse") a.decay = true, a.convolution = 4, a.window = 16;
  return make_config(a);
}

std::vector<i32> random_ids(i64 count) {
  Random random(1);
  std::vector<i32> ids(static_cast<size_t>(count));
  for (i32& id : ids) id = static_cast<i32>(random.below(256));
  return ids;
}

double resident_megabytes() {
  i64 pages = 0;
  std::ifstream("/proc/self/statm") >> pages >> pages;
  return static_cast<double>(pages) * static_cast<double>(sysconf(_SC_PAGESIZE)) / (1 << 20);
}

constexpr i64 steps = 64, turns = 9, training_turns = 3;

// The shortest of some turns: what others do on this machine only adds.
double microseconds(Session& session, const std::vector<i32>& ids) {
  double best = 1e9;
  for (i64 turn = 0; turn < turns; ++turn) {
    const Stopwatch clock;
    for (i64 i = 0; i < steps; ++i) session.step(ids[static_cast<size_t>(i)]);
    best = std::min(best, clock.seconds());
  }
  return 1e6 * best / static_cast<double>(steps);
}

// A session whose caches are full of random keys and values: reading a prompt as long would only take longer.
void fill(Session& session, i64 position) {
  session.step(0);
  SessionState state = session.save();
  Random random(2);
  std::vector<u16> values(1 << 16);
  for (u16& value : values) value = float_to_f16(static_cast<float>(random.normal()) * 0.5f);
  for (std::vector<std::byte>& layer : state.layers)
    for (size_t at = 0; at < layer.size(); at += 2 * values.size())
      std::memcpy(layer.data() + at, values.data(), std::min(2 * values.size(), layer.size() - at));
  state.position = position;
  session.restore(state);
}

void decode(std::string_view kind, const std::vector<i64>& positions) {
  const Model model = random_model(description(kind, true), DType::f16, 1);
  const auto backend = make_backend("cpu");
  const i64 room = positions.back() + (turns + 1) * steps;
  const auto ids = random_ids(room);
  const auto report = [&](i64 position, Session& session) {
    const double cost = microseconds(session, ids);
    fmt::print("{{\"position\": {}, \"microseconds\": {:.2f}, \"memory_bytes\": {}, \"resident_megabytes\": {:.1f}}}\n",
               position, cost, session.cache_bytes(), resident_megabytes());
    std::fflush(stdout);
  };
  if (kind == "softmax") {
    for (const i64 position : positions) {
      const i64 all = position + (turns + 1) * steps;
      Session session(model, *backend, {.positions = all, .first_capacity = all});
      fill(session, position);
      report(position, session);
    }
    return;
  }
  Session session(model, *backend, {.positions = room});
  for (const i64 position : positions) {
    if (const i64 missing = position - session.position(); missing > 0)
      session.prefill(std::span(ids).subspan(static_cast<size_t>(session.position()), static_cast<size_t>(missing)));
    report(position, session);
  }
}

void train(std::string_view kind, const std::vector<i64>& times) {
  constexpr i64 tokens = 8192;
  const Config config = description(kind, false);
  const auto specs = parameter_specs(config);
  const auto weights = std::make_shared<FlatParams>(specs);
  initialize(specs, weights->views, 1);
  const FlatParams gradients(specs);
  const Model model = model_of(config, weights);
  const auto backend = make_backend("cpu");
  const auto ids = random_ids(tokens);
  Arena arena;
  for (const i64 time : times) {
    const Transformer transformer(model, *backend, Compute::f32, time);
    const Tokens batch{.ids = {ids.data(), {tokens}}, .sequences = tokens / time};
    double forward = 1e9, both = 1e9;
    for (i64 turn = 0; turn < training_turns; ++turn) {
      arena.reset();
      Activations kept;
      const Stopwatch clock;
      const auto hidden = transformer.forward(batch, arena, &kept);
      forward = std::min(forward, clock.seconds());
      transformer.backward(batch, hidden, kept, gradients.views, arena);
      both = std::min(both, clock.seconds());
    }
    fmt::print("{{\"time\": {}, \"forward\": {:.1f}, \"both\": {:.1f}}}\n", time, 1e9 * forward / tokens,
               1e9 * both / tokens);
    std::fflush(stdout);
  }
}

int run(const std::vector<std::string_view>& words) {
  std::vector<i64> numbers;
  for (size_t i = 2; i < words.size(); ++i) numbers.push_back(std::stoll(std::string(words[i])));
  if (words.size() == 2 && words[0] == "gguf") {
    Model model = random_model(description("softmax", true), DType::f16, 1);
    save_gguf(model, {.name = "softmax"}, std::string(words[1]));
  } else if (words.size() > 2 && words[0] == "decode") {
    decode(words[1], numbers);
  } else if (words.size() > 2 && words[0] == "train") {
    train(words[1], numbers);
  } else {
    fmt::print(stderr, "bench_constant_cost decode|train lse|plain|softmax NUMBER..., or gguf FILE\n");
    return 2;
  }
  return 0;
}

}  // namespace
}  // namespace sparsam

int main(int count, char** arguments) { return sparsam::run({arguments + 1, arguments + count}); }
