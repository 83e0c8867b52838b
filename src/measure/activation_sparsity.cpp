#include "measure/activation_sparsity.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/clock.h"
#include "base/threads.h"
#include "measure/contributions.h"
#include "measure/windows.h"

namespace sparsam {

namespace {

// The down projection as neurons: row i is column i of the weight, (F, C).
class NeuronOutputs {
 public:
  void assign(const Matrix& down) {
    const i64 C = down.rows, F = down.cols;
    if (buffer_.size() < F * C * static_cast<i64>(sizeof(float))) buffer_ = Buffer(F * C * 4);
    rows_ = {buffer_.as<float>().data(), {F, C}};
    norms_.resize(static_cast<size_t>(F));
    column_norms(down, {norms_.data(), {F}});
    // Each thread takes a range of rows of the weight and writes its columns of the transposed one.
    parallel_ranges(C, 16, [&](int, i64 begin, i64 end) {
      std::vector<float> values(static_cast<size_t>(F));
      for (i64 c = begin; c < end; ++c) {
        read_row(down, c, values);
        for (i64 i = 0; i < F; ++i) rows_(i, c) = values[static_cast<size_t>(i)];
      }
    });
  }
  In<float, 1> row(i64 i) const { return rows_[i]; }
  const std::vector<float>& norms() const { return norms_; }

 private:
  Buffer buffer_;
  Out<float, 2> rows_;
  std::vector<float> norms_;
};

// Sums over tokens of one layer's curve; one of these a thread.
struct Sums {
  std::vector<double> cett, below;  // (K)  below: neurons under each threshold
  double exact_zeros = 0, gate_zeros = 0;

  explicit Sums(size_t thresholds) : cett(thresholds), below(thresholds) {}
  void add(const Sums& other) {
    for (size_t k = 0; k < cett.size(); ++k) cett[k] += other.cett[k], below[k] += other.below[k];
    exact_zeros += other.exact_zeros, gate_zeros += other.gate_zeros;
  }
};

// One token: neurons enter the sum in the order of the intervals they fall into; where an interval ends, the length of
// the sum so far is the error of the threshold above it.
class TokenCurve {
 public:
  TokenCurve(const std::vector<float>& thresholds, i64 neurons, i64 channels)
      : thresholds_(thresholds),
        interval_(static_cast<size_t>(neurons)),
        first_(thresholds.size() + 2),
        order_(static_cast<size_t>(neurons)),
        error_(thresholds.size()),
        sum_(static_cast<size_t>(channels)) {}

  void add(In<float, 1> h, const NeuronOutputs& outputs, Sums& sums) {
    const size_t K = thresholds_.size();
    std::fill(first_.begin(), first_.end(), 0);
    for (i64 i = 0; i < h.size(); ++i) {
      const size_t n = static_cast<size_t>(i);
      const float norm = std::abs(h[i]) * outputs.norms()[n];
      // The first threshold above the norm is the first that leaves the neuron out; none does: interval K.
      interval_[n] =
          static_cast<i32>(std::upper_bound(thresholds_.begin(), thresholds_.end(), norm) - thresholds_.begin());
      ++first_[static_cast<size_t>(interval_[n]) + 1];
      sums.exact_zeros += h[i] == 0;
    }
    std::partial_sum(first_.begin(), first_.end(), first_.begin());
    for (i64 i = 0; i < h.size(); ++i)
      order_[static_cast<size_t>(first_[static_cast<size_t>(interval_[static_cast<size_t>(i)])]++)] =
          static_cast<i32>(i);
    // first_[k] is now where interval k ends.
    std::fill(sum_.begin(), sum_.end(), 0.f);
    double length = 0;
    i32 place = 0;
    for (size_t k = 0; k <= K; ++k) {
      const i32 end = first_[k];
      if (place < end) {
        for (; place < end; ++place) accumulate(h, order_[static_cast<size_t>(place)], outputs);
        length = norm_of_sum();
      }
      if (k < K) error_[k] = length, sums.below[k] += end;
    }
    // An MLP that answers nothing loses nothing.
    if (length != 0)  // NaN stays visible
      for (size_t k = 0; k < K; ++k) sums.cett[k] += error_[k] / length;
  }

 private:
  void accumulate(In<float, 1> h, i32 neuron, const NeuronOutputs& outputs) {
    const float scale = h[neuron];
    const float* row = outputs.row(neuron).data();
    float* sum = sum_.data();
    const size_t C = sum_.size();
    for (size_t c = 0; c < C; ++c) sum[c] += scale * row[c];
  }
  double norm_of_sum() const {
    double squares = 0;
    for (const float value : sum_) squares += static_cast<double>(value) * value;
    return std::sqrt(squares);
  }

  const std::vector<float>& thresholds_;
  std::vector<i32> interval_, first_, order_;
  std::vector<double> error_;
  std::vector<float> sum_;
};

// Logarithmic from 2^-24 of the greatest contribution to above it; the first is the least number above zero.
std::vector<float> thresholds_for(In<float, 2> h, const NeuronOutputs& outputs, i64 count) {
  float greatest = 0;
  for (i64 n = 0; n < h.shape(0); ++n)
    for (i64 i = 0; i < h.shape(1); ++i)
      greatest = std::max(greatest, std::abs(h(n, i)) * outputs.norms()[static_cast<size_t>(i)]);
  if (!(greatest > 0)) greatest = 1;
  constexpr double octaves_below = 24, octaves_above = 2;  // later tokens may go further than the first batch
  std::vector<float> thresholds{std::numeric_limits<float>::min()};
  for (i64 k = 1; k < count; ++k) {
    const double at = static_cast<double>(k - 1) / static_cast<double>(std::max<i64>(count - 2, 1));
    thresholds.push_back(
        static_cast<float>(greatest * std::exp2(-octaves_below + at * (octaves_below + octaves_above))));
  }
  return thresholds;
}

struct LayerProfile {
  std::vector<float> thresholds;
  std::vector<Sums> sums;  // (threads)
};

void add_tokens(LayerProfile& profile, In<float, 2> h, In<float, 2> gate_value, const NeuronOutputs& outputs,
                i64 channels) {
  parallel_ranges(h.shape(0), 1, [&](int thread, i64 begin, i64 end) {
    TokenCurve token(profile.thresholds, h.shape(1), channels);
    Sums& sums = profile.sums[static_cast<size_t>(thread)];
    for (i64 n = begin; n < end; ++n) {
      token.add(h[n], outputs, sums);
      if (!gate_value.empty())
        sums.gate_zeros += static_cast<double>(std::count(gate_value[n].begin(), gate_value[n].end(), 0.f));
    }
  });
}

LayerCurve curve_of(NeuronSite site, const LayerProfile& profile, i64 tokens, i64 neurons) {
  Sums total(profile.thresholds.size());
  for (const Sums& sums : profile.sums) total.add(sums);
  const double all = static_cast<double>(tokens) * static_cast<double>(neurons);
  LayerCurve curve{site.layer, total.exact_zeros / all, total.gate_zeros / all, profile.thresholds, {}, {}, site.place};
  for (size_t k = 0; k < profile.thresholds.size(); ++k) {
    curve.cett.push_back(total.cett[k] / static_cast<double>(tokens));
    curve.sparsity.push_back(total.below[k] / all);
  }
  return curve;
}

// f(gate) of a gated MLP, else empty.
Out<float, 2> gate_value(const Transformer& model, const Activations& kept, NeuronSite site, Arena& arena) {
  const size_t layer = static_cast<size_t>(site.layer);
  const auto* gated = std::get_if<GatedMlp>(&model.model().config.layers[layer].mlp);
  if (!gated || site.place != SitePlace::mlp) return {};
  const Out<float, 2> gate = kept.layers[layer].mlp.gate;
  const auto value = arena.allocate<float>(gate.shape(0), gate.shape(1));
  model.backend().run(Activation{.y = value, .x = gate, .function = gated->activation, .threshold = gated->threshold});
  return value;
}

double mean_over(const std::vector<LayerCurve>& layers, double LayerCurve::*part) {
  double sum = 0;
  for (const LayerCurve& layer : layers) sum += layer.*part;
  return layers.empty() ? 0 : sum / static_cast<double>(layers.size());
}

}  // namespace

float LayerCurve::threshold_at(double limit) const {
  // Contributions can cancel, so that the mean error may dip: the first place above the limit ends the search.
  size_t k = 0;
  while (k < cett.size() && cett[k] <= limit) ++k;
  if (k == 0) return 0;
  if (k == cett.size()) return thresholds.back();
  const double low = cett[k - 1], high = cett[k];
  if (k == 1 || low <= 0) return thresholds[k - 1];
  const double at = std::log(limit / low) / std::log(high / low);
  return static_cast<float>(thresholds[k - 1] * std::pow(static_cast<double>(thresholds[k]) / thresholds[k - 1], at));
}

double ActivationProfile::exact_zeros() const { return mean_over(layers, &LayerCurve::exact_zeros); }
double ActivationProfile::gate_zeros() const { return mean_over(layers, &LayerCurve::gate_zeros); }

ActivationProfile profile_activations(const Transformer& model, std::span<const i32> tokens,
                                      const ProfileOptions& options, const std::function<void(double)>& progress) {
  const Stopwatch clock;
  const Config& config = model.model().config;
  const i64 size = static_cast<i64>(tokens.size());
  ActivationProfile result;
  result.tokens = options.tokens > 0 ? std::min(options.tokens, size) : size;
  if (result.tokens == 0) fail("sparsity: no tokens, expected 1 or more");
  const auto sites = neuron_sites(config);
  if (sites.empty()) fail("sparsity: the model has no MLP and no parameter tokens, nothing to measure");

  std::vector<LayerProfile> profiles(sites.size());
  NeuronOutputs outputs;
  Arena arena;
  Activations kept;
  constexpr i64 batch_tokens = 1024;  // the activations of all layers are kept
  for_each_batch(
      tokens.first(static_cast<size_t>(result.tokens)), resolve_context(options.context, config), batch_tokens,
      [&](const Tokens& batch) {
        arena.reset();
        model.forward(batch, arena, &kept);
        for (size_t i = 0; i < sites.size(); ++i) {
          const Arena::Mark mark = arena.mark();
          const Matrix& down = outputs_at(model.model().weights, config, sites[i]);
          const In<float, 2> h = neurons_of(model, kept, sites[i], arena);
          outputs.assign(down);
          LayerProfile& profile = profiles[i];
          if (profile.thresholds.empty()) {
            profile.thresholds = options.at.empty() ? thresholds_for(h, outputs, options.thresholds) : options.at[i];
            profile.sums.assign(static_cast<size_t>(threads()), Sums(profile.thresholds.size()));
          }
          add_tokens(profile, h, gate_value(model, kept, sites[i], arena), outputs, down.rows);
          arena.release(mark);
        }
      },
      progress);
  for (size_t i = 0; i < sites.size(); ++i) {
    result.layers.push_back(curve_of(sites[i], profiles[i], result.tokens, neurons_at(config, sites[i])));
    if (!std::isfinite(result.layers.back().cett.back()))
      fail("sparsity: layer {} has activations that are not finite", name_of(sites[i]));
  }
  result.seconds = clock.seconds();
  return result;
}

}  // namespace sparsam
