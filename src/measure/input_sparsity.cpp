#include "measure/input_sparsity.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <numeric>

#include "base/threads.h"
#include "measure/windows.h"

namespace sparsam {

namespace {

constexpr std::array<float InputThresholds::*, block_inputs> members{&InputThresholds::qkv, &InputThresholds::o,
                                                                     &InputThresholds::up, &InputThresholds::down};

// A float's exponent and seven bits behind it: 128 intervals an octave.
constexpr int dropped_bits = 16;
size_t interval_of(float value) {
  return static_cast<size_t>((std::bit_cast<u32>(value) & 0x7fffffffu) >> dropped_bits);
}
float begin_of(size_t interval) { return std::bit_cast<float>(static_cast<u32>(interval) << dropped_bits); }

// What each input of a layer was; absent ones are empty.
std::array<In<float, 2>, block_inputs> inputs_of(const Layer& layer, const LayerActivations& acts) {
  std::array<In<float, 2>, block_inputs> inputs;
  if (const auto* attention = std::get_if<SoftmaxAttention>(&layer.mixer)) {
    inputs[0] = acts.attention.norm.y;
    inputs[1] = attention->inner_norm ? acts.attention.inner.y : acts.attention.a;
  }
  if (std::holds_alternative<ParameterTokens>(layer.mlp)) inputs[2] = acts.mlp.norm.y;
  if (std::holds_alternative<Mlp>(layer.mlp)) inputs[2] = acts.mlp.norm.y, inputs[3] = acts.mlp.h;
  if (const auto* gated = std::get_if<GatedMlp>(&layer.mlp))
    inputs[2] = acts.mlp.norm.y, inputs[3] = gated->inner_norm ? acts.mlp.inner.y : acts.mlp.h;
  return inputs;
}

// What reads an input: a matrix, or the keys of parameter tokens.
const Matrix& reader(const ProjectionParams<Matrix>& w) { return w.weight.empty() ? w.tokens.keys : w.weight; }
const Matrix& reader(const MlpParams<Matrix>& w) { return w.up.weight.empty() ? w.tokens.keys : w.up.weight; }

double bytes_of(const Matrix& m) { return static_cast<double>(m.bytes.size()); }

// The squared distance of two equally long lists of numbers.
double squared_distance(In<float, 2> a, In<float, 2> b) {
  double sum = 0;
  for (i64 i = 0; i < a.size(); ++i) {
    const double difference = static_cast<double>(a.data()[i]) - b.data()[i];
    sum += difference * difference;
  }
  return sum;
}

// One block as a model of its own that reads hidden states: they are its table of token embeddings.
class BlockRunner {
 public:
  BlockRunner(const Transformer& whole, size_t layer, In<float, 2> x) : backend_(whole.backend()), tokens_(x.shape(0)) {
    const Model& model = whole.model();
    Config& config = block_.config;
    config = model.config;
    config.vocab = x.shape(0), config.tied = true, config.embedding_scale = 1, config.logit_scale = 1;
    if (config.positions != Positions::rotary) config.positions = Positions::none;  // they are in x already
    config.layers = {model.config.layers[layer]};
    if (!config.truncation.empty()) config.truncation = {model.config.truncation[layer]};
    block_.weights.token_embedding = as_matrix(x);
    block_.weights.layers = {model.weights.layers[layer]};
    block_.weights.final_norm = model.weights.final_norm;
    std::iota(tokens_.begin(), tokens_.end(), 0);
  }
  // The block's output with these thresholds, passed to `use` while it is there.
  void run(const InputThresholds& thresholds, i64 dense_positions, const std::function<void(In<float, 2>)>& use) {
    block_.config.inputs = {.layers = {thresholds}, .dense_positions = dense_positions};
    const i64 length = static_cast<i64>(tokens_.size());
    const Transformer transformer(block_, backend_, Compute::f32, length);
    arena_.reset();
    transformer.forward({.ids = {tokens_.data(), {length}}}, arena_, nullptr, {},
                        [&](i64, Sublayer sublayer, In<float, 2>, In<float, 2> after) {
                          if (sublayer == Sublayer::block) use(after);
                        });
  }

 private:
  Backend& backend_;
  Model block_;
  std::vector<i32> tokens_;
  Arena arena_;
};

// Hidden states that enter each block, copied.
std::vector<Buffer> block_inputs_of(const Transformer& model, std::span<const i32> tokens) {
  std::vector<Buffer> states;
  Arena arena;
  model.forward({.ids = {tokens.data(), {static_cast<i64>(tokens.size())}}}, arena, nullptr, {},
                [&](i64, Sublayer sublayer, In<float, 2> before, In<float, 2>) {
                  if (sublayer != Sublayer::block) return;
                  Buffer& copy = states.emplace_back(before.size() * static_cast<i64>(sizeof(float)));
                  std::copy(before.begin(), before.end(), copy.as<float>().begin());
                });
  return states;
}

// Counts what the products find to be zero, by the weight that they read.
class CountZeros final : public Backend {
 public:
  CountZeros(Backend& inner, const Model& model) : inner_(inner) {
    const auto& layers = model.weights.layers;
    counts_.resize(layers.size());
    for (size_t l = 0; l < layers.size(); ++l) {
      const auto& [attention, mlp] = layers[l];
      const auto place = [&](const Matrix& w, size_t input) {
        if (!w.empty()) places_[w.bytes.data()] = {l, input};
      };
      place(reader(attention.q), 0), place(reader(attention.o), 1), place(reader(mlp), 2), place(mlp.down.weight, 3);
    }
  }
  void run(const Op& op) override {
    inner_.run(op);
    const auto* product = std::get_if<Matmul>(&op);
    const auto place = product ? places_.find(product->w.bytes.data()) : places_.end();
    if (place == places_.end()) return;
    auto& [zeros, all] = counts_[place->second.first][place->second.second];
    zeros += static_cast<double>(std::count(product->x.begin(), product->x.end(), 0.0f));
    all += static_cast<double>(product->x.size());
  }
  InputFractions fractions(size_t layer) const {
    InputFractions result{};
    for (size_t i = 0; i < block_inputs; ++i)
      if (const auto& [zeros, all] = counts_[layer][i]; all > 0) result[i] = zeros / all;
    return result;
  }

 private:
  Backend& inner_;
  std::map<const std::byte*, std::pair<size_t, size_t>> places_;
  std::vector<std::array<std::pair<double, double>, block_inputs>> counts_;
};

double weighted(const InputFractions& fractions, const std::array<double, block_inputs>& bytes) {
  const double all = std::accumulate(bytes.begin(), bytes.end(), 0.0);
  return all > 0 ? std::inner_product(bytes.begin(), bytes.end(), fractions.begin(), 0.0) / all : 0;
}

}  // namespace

void Magnitudes::add(std::span<const float> values) {
  if (counts_.empty()) counts_.resize(interval_of(INFINITY) + 1);
  for (const float value : values) {
    if (!std::isfinite(value)) {
      finite_ = false;
      continue;
    }
    ++counts_[interval_of(value)], ++count_;
  }
}

float Magnitudes::quantile(double fraction) const {
  double left = fraction * static_cast<double>(count_);
  for (size_t i = 0; i < counts_.size() && left > 0; ++i) {
    const double here = static_cast<double>(counts_[i]);
    if (left > here) {
      left -= here;
      continue;
    }
    if (i == 0) return 0;  // zeros
    const double begin = static_cast<double>(begin_of(i)), end = static_cast<double>(begin_of(i + 1));
    return static_cast<float>(begin + left / here * (std::min(end, 3e38) - begin));
  }
  return 0;
}

InputThresholds InputProfile::thresholds(size_t layer, const InputFractions& left_out) const {
  InputThresholds result;
  for (size_t i = 0; i < block_inputs; ++i) result.*members[i] = layers[layer][i].quantile(left_out[i]);
  return result;
}

InputProfile profile_inputs(const Transformer& model, std::span<const i32> tokens, const InputProfileOptions& options,
                            const std::function<void(double)>& progress) {
  const Config& config = model.model().config;
  if (config.inputs.active()) fail("sparsity: the model has thresholds of inputs already");
  const i64 size = static_cast<i64>(tokens.size());
  InputProfile profile;
  profile.tokens = options.tokens > 0 ? std::min(options.tokens, size) : size;
  profile.dense_positions = options.dense_positions;
  profile.layers.resize(config.layers.size());
  if (profile.tokens == 0) fail("sparsity: no tokens, expected 1 or more");
  constexpr i64 batch_tokens = 1024;  // the activations of all layers are kept
  Arena arena;
  Activations kept;
  for_each_batch(
      tokens.first(static_cast<size_t>(profile.tokens)), resolve_context(options.context, config), batch_tokens,
      [&](const Tokens& batch) {
        arena.reset();
        model.forward(batch, arena, &kept);
        const i64 length = batch.ids.size() / batch.sequences;
        parallel_dynamic(static_cast<i64>(config.layers.size() * block_inputs), [&](int, i64 index) {
          const size_t l = static_cast<size_t>(index) / block_inputs, i = static_cast<size_t>(index) % block_inputs;
          const In<float, 2> x = inputs_of(config.layers[l], kept.layers[l])[i];
          for (i64 n = 0; n < x.shape(0); ++n)
            if (n % length >= options.dense_positions)
              profile.layers[l][i].add({x[n].data(), static_cast<size_t>(x.shape(1))});
        });
      },
      progress);
  for (size_t l = 0; l < profile.layers.size(); ++l)
    for (const Magnitudes& input : profile.layers[l])
      if (!input.finite()) fail("sparsity: layer {} has inputs that are not finite", l);
  return profile;
}

std::array<double, block_inputs> input_bytes(const LayerParams<Matrix>& layer) {
  const auto& [attention, mlp] = layer;
  return {bytes_of(reader(attention.q)) + bytes_of(reader(attention.k)) + bytes_of(reader(attention.v)),
          bytes_of(reader(attention.o)), bytes_of(mlp.gate.weight) + bytes_of(reader(mlp)), bytes_of(mlp.down.weight)};
}

InputAllocation::InputAllocation(const Transformer& model, const InputProfile& profile, std::span<const i32> tokens,
                                 const Greedy& greedy, const std::function<void(double)>& progress)
    : paths_(profile.layers.size()) {
  const std::vector<Buffer> states = block_inputs_of(model, tokens);
  const i64 N = static_cast<i64>(tokens.size()), C = model.model().config.dim;
  for (size_t l = 0; l < paths_.size(); ++l) {
    const auto bytes = input_bytes(model.model().weights.layers[l]);
    const double all = std::accumulate(bytes.begin(), bytes.end(), 0.0);
    BlockRunner block(model, l, {states[l].as<float>().data(), {N, C}});
    Buffer dense(N * C * static_cast<i64>(sizeof(float)));
    const Out<float, 2> expected{dense.as<float>().data(), {N, C}};
    block.run({}, 0, [&](In<float, 2> y) { std::copy(y.begin(), y.end(), expected.begin()); });
    Step step{0, {}};
    paths_[l].push_back(step);
    while (all > 0 && step.target < greedy.most) {
      double least = INFINITY;
      InputFractions best{};
      for (size_t i = 0; i < block_inputs; ++i) {
        if (bytes[i] == 0 || profile.layers[l][i].count() == 0 || step.left_out[i] >= 1) continue;
        InputFractions tried = step.left_out;
        tried[i] = std::min(tried[i] + greedy.step * all / bytes[i], 1.0);
        double error = 0;
        block.run(profile.thresholds(l, tried), profile.dense_positions,
                  [&](In<float, 2> y) { error = squared_distance(y, expected); });
        if (error < least) least = error, best = tried;
      }
      if (!std::isfinite(least)) break;
      step = {weighted(best, bytes), best};
      paths_[l].push_back(step);
    }
    if (progress) progress(static_cast<double>(l + 1) / static_cast<double>(paths_.size()));
  }
}

// Between two steps, where the target lies.
InputFractions InputAllocation::at(size_t layer, double target) const {
  const std::vector<Step>& path = paths_[layer];
  if (path.empty()) return {target, target, target, target};
  const auto after = std::find_if(path.begin(), path.end(), [&](const Step& step) { return step.target >= target; });
  if (after == path.begin()) return path.front().left_out;
  if (after == path.end()) return path.back().left_out;
  const Step& before = *(after - 1);
  const double part = (target - before.target) / (after->target - before.target);
  InputFractions result;
  for (size_t i = 0; i < block_inputs; ++i) result[i] = std::lerp(before.left_out[i], after->left_out[i], part);
  return result;
}

InputSparsity input_thresholds(const InputProfile& profile, const InputAllocation& allocation, double target) {
  InputSparsity inputs{.layers = {}, .dense_positions = profile.dense_positions};
  for (size_t l = 0; l < profile.layers.size(); ++l)
    inputs.layers.push_back(profile.thresholds(l, allocation.at(l, target)));
  return inputs;
}

InputSearch::InputSearch(const Model& model, Backend& backend, Compute compute, i64 positions, Loss nats_per_token)
    : model_(model),
      backend_(backend),
      compute_(compute),
      positions_(positions),
      loss_(std::move(nats_per_token)),
      dense_(std::exp(loss_(Transformer(model, backend, compute, positions)))) {}

InputPoint InputSearch::measure(const InputSparsity& inputs) const {
  Model thinner = model_;
  thinner.config.inputs = inputs;
  CountZeros counting(backend_, thinner);
  InputPoint point{.inputs = inputs, .layers = {}};
  point.perplexity = std::exp(loss_(Transformer(thinner, counting, compute_, positions_)));
  double read = 0, all = 0;
  for (size_t l = 0; l < inputs.layers.size(); ++l) {
    point.layers.push_back(counting.fractions(l));
    const auto bytes = input_bytes(model_.weights.layers[l]);
    const double whole = std::accumulate(bytes.begin(), bytes.end(), 0.0);
    all += whole, read += whole * (1 - weighted(point.layers.back(), bytes));
  }
  point.left_out = all > 0 ? 1 - read / all : 0;
  return point;
}

InputPoint InputSearch::at_rise(const std::function<InputSparsity(double)>& rule, double percent,
                                double resolution) const {
  const double limit = dense_ * (1 + percent / 100);
  double low = 0, high = 0.95;
  InputPoint best = measure(rule(low));
  while (high - low > resolution) {
    const double middle = (low + high) / 2;
    InputPoint point = measure(rule(middle));
    if (point.perplexity <= limit)
      low = middle, best = std::move(point);
    else
      high = middle;
  }
  best.asked = percent, best.target = low;
  return best;
}

}  // namespace sparsam
