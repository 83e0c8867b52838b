// The first stage of linearize: each new layer is fitted to the outputs of the one in whose place it stands.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "levers/linearize.h"
#include "measure/windows.h"

namespace sparsam {

namespace {

class Fitting {
 public:
  Fitting(const Transformer& model, const Linearized& student, i64 sequence)
      : model_(model),
        student_(student),
        rotary_(student.model.config.rotary, head_dim(), sequence),
        gradients_(student.specs),
        m_(student.specs),
        v_(student.specs),
        errors_(student.model.config.layers.size()) {
    rotary_.require(sequence);
  }

  // Gradients of all new layers on one batch, and AdamW's step.
  void step(const Tokens& batch, double learning_rate) {
    std::fill(gradients_.all().begin(), gradients_.all().end(), 0.0f);
    for_each_new_layer(
        batch, [&](size_t layer, const Execution& e, In<float, 2> x, In<float, 2> y) { learn(layer, e, x, y); });
    ++steps_;
    for_each_parameter(
        student_.specs,
        [&](const std::string&, const ParameterSpec& spec, const Out<float, 2>& w, const Out<float, 2>& m,
            const Out<float, 2>& v, const Out<float, 2>& dw) {
          const auto flat = [](const Out<float, 2>& view) { return view.as(view.size()); };
          model_.backend().run(AdamW{.w = flat(w),
                                     .m = flat(m),
                                     .v = flat(v),
                                     .dw = flat(dw),
                                     .learning_rate = static_cast<float>(learning_rate * (spec.is_vector ? 10 : 1)),
                                     .beta1 = 0.9f,
                                     .beta2 = 0.95f,
                                     .eps = 1e-8f,
                                     .weight_decay = 0,
                                     .gradient_scale = 1,
                                     .step = steps_});
        },
        student_.weights->views, m_.views, v_.views, gradients_.views);
  }

  // Where a new layer begins: its features deviate by about 2, and the state has on average that share of each head's
  // weights which softmax gives to what is beyond the window.
  void balance(const Tokens& batch) {
    for_each_new_layer(batch, [&](size_t layer, const Execution& e, In<float, 2> x, In<float, 2>) {
      const auto& weights = student_.weights->views.layers[layer].attention;
      LogSumExpActivations kept;
      forward(layer, e, x, kept);
      constexpr double deviation = 2;
      const float scale = static_cast<float>(deviation / root_mean_square(kept.q_turned, kept.k_turned));
      for (const Out<float, 2>& map : {weights.q_map, weights.k_map})
        for (float& value : map) value *= scale;
      if (weights.state_logit.empty()) return;
      kept = {};
      forward(layer, e, x, kept);
      AttentionActivations softmax;
      attention_forward(e, std::get<SoftmaxAttention>(model_.model().config.layers[layer].mixer),
                        model_.model().weights.layers[layer].attention, x, softmax, nullptr, 0);
      for (i64 h = 0; h < weights.state_logit.size(); ++h)
        weights.state_logit.data()[h] = balanced_logit(softmax.lse, kept.lse, kept.window_lse, h, mixer(layer).window);
    });
  }

  void clear_errors() { std::fill(errors_.begin(), errors_.end(), SquaredError()); }
  void measure(const Tokens& batch) {
    for_each_new_layer(batch, [&](size_t layer, const Execution& e, In<float, 2> x, In<float, 2> y) {
      LogSumExpActivations kept;
      add_error(layer, forward(layer, e, x, kept), y);
    });
  }
  double error_of(i64 layer) const {
    const SquaredError& error = errors_[static_cast<size_t>(layer)];
    return std::sqrt(error.difference / error.size);
  }

 private:
  struct SquaredError {
    double difference = 0, size = 0;  // squared
  };

  // The logit with which the mean share of the state, sigmoid(logit + state - window), is that of what softmax sees
  // beyond the window, 1 - exp(window - all). Each is a log-sum-exp (B, H, T).
  static float balanced_logit(In<float, 3> all, In<float, 3> state, In<float, 3> window, i64 head, i64 seen) {
    std::vector<double> differences;
    double wanted = 0;
    for (i64 b = 0; b < all.shape(0); ++b)
      for (i64 t = seen; t < all.shape(2); ++t) {
        wanted -= std::expm1(std::min(0.0, static_cast<double>(window(b, head, t) - all(b, head, t))));
        differences.push_back(static_cast<double>(state(b, head, t) - window(b, head, t)));
      }
    double low = -60, high = 60;
    for (int i = 0; i < 50; ++i) {
      const double middle = (low + high) / 2;
      double share = 0;
      for (const double d : differences) share += 1 / (1 + std::exp(-(middle + d)));
      (share < wanted ? low : high) = middle;
    }
    return static_cast<float>(low);
  }

  static double root_mean_square(In<float, 2> q, In<float, 2> k) {
    double squares = 1e-30;
    for (const In<float, 2>& x : {q, k})
      for (const float value : x) squares += static_cast<double>(value) * static_cast<double>(value);
    return std::sqrt(squares / static_cast<double>(q.size() + k.size()));
  }

  i64 head_dim() const {
    return rotated_head_dim(student_.model.config.layers[static_cast<size_t>(student_.layers.front())]);
  }

  // Calls f(layer, execution, x, y) where y is what the softmax layer adds to x.
  template <class F>
  void for_each_new_layer(const Tokens& batch, F&& f) {
    arena_.reset();
    const auto positions = arena_.allocate<i32>(batch.ids.size());
    for (i64 n = 0; n < positions.size(); ++n) positions[n] = static_cast<i32>(n % batch.length());
    const Observer observe = [&](i64 layer, Sublayer kind, In<float, 2> before, In<float, 2> after) {
      if (kind != Sublayer::attention) return;
      if (!std::binary_search(student_.layers.begin(), student_.layers.end(), layer)) return;
      const Arena::Mark mark = arena_.mark();
      const auto y = arena_.allocate<float>(before.shape(0), before.shape(1));
      for (i64 i = 0; i < y.size(); ++i) y.data()[i] = after.data()[i] - before.data()[i];
      f(static_cast<size_t>(layer),
        Execution{.backend = model_.backend(),
                  .arena = arena_,
                  .compute = Compute::f32,
                  .config = student_.model.config,
                  .rotary = rotary_,
                  .positions = positions,
                  .sequences = batch.sequences,
                  .length = batch.length(),
                  .lengths = {}},
        before, y);
      arena_.release(mark);
    };
    model_.forward(batch, teachers_, nullptr, {}, observe);
    teachers_.reset();
  }

  const LogSumExpAttention& mixer(size_t layer) const {
    return std::get<LogSumExpAttention>(student_.model.config.layers[layer].mixer);
  }
  Out<float, 2> forward(size_t layer, const Execution& e, In<float, 2> x, LogSumExpActivations& kept) const {
    return log_sum_exp_forward(e, mixer(layer), student_.model.weights.layers[layer].attention, x, kept, nullptr);
  }

  // loss = |y' - y|^2 / |y|^2 over the batch
  void learn(size_t layer, const Execution& e, In<float, 2> x, In<float, 2> y) {
    LogSumExpActivations kept;
    const auto found = forward(layer, e, x, kept);
    double size = 0;
    for (const float value : y) size += static_cast<double>(value) * static_cast<double>(value);
    const float scale = static_cast<float>(2 / std::max(size, 1e-30));
    const auto dbranch = arena_.allocate<float>(y.shape(0), y.shape(1));
    for (i64 i = 0; i < y.size(); ++i) dbranch.data()[i] = scale * (found.data()[i] - y.data()[i]);
    const auto dx = arena_.zeros<float>(x.shape(0), x.shape(1));  // of the hidden states, which are given
    log_sum_exp_backward(e, mixer(layer), student_.model.weights.layers[layer].attention,
                         gradients_.views.layers[layer].attention, kept, x, dbranch, dx);
  }

  void add_error(size_t layer, In<float, 2> found, In<float, 2> y) {
    SquaredError& error = errors_[layer];
    for (i64 i = 0; i < y.size(); ++i) {
      const double wanted = static_cast<double>(y.data()[i]), off = static_cast<double>(found.data()[i]) - wanted;
      error.difference += off * off, error.size += wanted * wanted;
    }
  }

  const Transformer& model_;
  const Linearized& student_;
  RotaryTables rotary_;
  FlatParams gradients_, m_, v_;
  std::vector<SquaredError> errors_;  // by layer
  Arena arena_, teachers_;
  i64 steps_ = 0;
};

}  // namespace

std::vector<LayerFit> fit(const Transformer& model, const Linearized& linearized, std::span<const i32> tokens,
                          const FitOptions& options, const std::function<void(double)>& progress) {
  constexpr i64 longest_default = 512;
  const i64 sequence = options.sequence ? resolve_context(options.sequence, model.model().config)
                                        : std::min(model.model().config.context, longest_default);
  const i64 windows = static_cast<i64>(tokens.size()) / sequence;
  if (windows < 2)
    fail("linearize: {} tokens of text, expected at least two windows of {}: one to fit to, one to judge by",
         tokens.size(), sequence);
  const size_t fitted = static_cast<size_t>((windows - std::max<i64>(1, windows / 20)) * sequence);
  const std::span<const i32> own = tokens.first(fitted), held_out = tokens.subspan(fitted);
  Fitting fitting(model, linearized, sequence);
  std::vector<LayerFit> fits;
  const auto measure = [&](double LayerFit::*error) {
    fitting.clear_errors();
    for_each_batch(held_out, sequence, options.batch_tokens, [&](const Tokens& batch) { fitting.measure(batch); });
    for (LayerFit& f : fits) {
      f.*error = fitting.error_of(f.layer);
      if (!std::isfinite(f.*error))
        fail("linearize: the error of layer {} is {}, expected a finite number; a smaller --lr may help", f.layer,
             f.*error);
    }
  };
  for (const i64 layer : linearized.layers) fits.push_back({.layer = layer});
  for_each_batch(own.first(static_cast<size_t>(sequence)), sequence, sequence,
                 [&](const Tokens& batch) { fitting.balance(batch); });
  measure(&LayerFit::before);
  for (i64 done = 0; done < options.tokens;) {
    for_each_batch(own, sequence, options.batch_tokens, [&](const Tokens& batch) {
      if (done >= options.tokens) return;
      const double part = static_cast<double>(done) / static_cast<double>(options.tokens);
      fitting.step(batch, options.learning_rate * (0.55 + 0.45 * std::cos(std::numbers::pi * part)));
      done += batch.ids.size();
      if (progress) progress(std::min(1.0, static_cast<double>(done) / static_cast<double>(options.tokens)));
    });
  }
  measure(&LayerFit::after);
  return fits;
}

}  // namespace sparsam
