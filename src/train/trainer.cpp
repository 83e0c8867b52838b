#include "train/trainer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

#include "base/clock.h"
#include "base/threads.h"
#include "train/mup.h"

namespace sparsam {

double Evaluation::perplexity() const { return std::exp(loss); }
double Evaluation::bits_per_byte() const {
  return bytes ? loss * static_cast<double>(tokens) / static_cast<double>(bytes) / std::numbers::ln2 : 0;
}

Trainer::Trainer(const Config& config, std::shared_ptr<FlatParams> weights, const Recipe& recipe, Backend& backend)
    : recipe_(recipe),
      backend_(backend),
      weights_(std::move(weights)),
      specs_(parameter_specs(config)),
      model_(model_of(config, weights_)),
      transformer_(model_, backend, recipe.precision, recipe.sequence),
      gradients_(specs_),
      m_(specs_),
      v_(specs_),
      activity_(config) {}

i64 Trainer::memory_bytes() const {
  return weights_->buffer.size() + gradients_.buffer.size() + m_.buffer.size() + v_.buffer.size() + arena_.peak_bytes();
}

double Trainer::micro_batch(const WindowSource& windows, i64 first_sample, double l1) {
  const i64 B = recipe_.batch, T = recipe_.sequence;
  const Arena::Mark mark = arena_.mark();
  const auto window = arena_.allocate<i32>(T + 1);
  const auto ids = arena_.allocate<i32>(B * T), targets = arena_.allocate<i32>(B * T);
  for (i64 b = 0; b < B; ++b) {
    windows(first_sample + b, window.span());
    std::copy_n(window.data(), T, ids.data() + b * T);
    std::copy_n(window.data() + 1, T, targets.data() + b * T);
  }
  const Tokens tokens{.ids = ids, .sequences = B};
  Activations kept;
  const Out<float, 2> hidden = transformer_.forward(tokens, arena_, &kept);
  activity_.add(kept, backend_, arena_);
  const auto loss = arena_.allocate<float>(B * T);
  const auto dhidden = arena_.allocate<float>(B * T, hidden.shape(1));
  const Config& config = model_.config;
  backend_.run(
      LinearCrossEntropyBackward{.loss = loss,
                                 .dx = dhidden,
                                 .dhead = config.tied ? gradients_.views.token_embedding : gradients_.views.head,
                                 .x = hidden,
                                 .head = model_.head(),
                                 .targets = targets,
                                 .scale = static_cast<float>(1.0 / static_cast<double>(step_tokens())),
                                 .compute = recipe_.precision});
  transformer_.backward(tokens, dhidden, kept, gradients_.views, arena_,
                        static_cast<float>(l1 / static_cast<double>(step_tokens())));
  double sum = 0;
  for (const float value : loss.span()) sum += static_cast<double>(value);
  arena_.release(mark);
  return sum;
}

double Trainer::gradient_norm() {
  double squared = 0;
  backend_.run(SquaredNorm{.sum = Out<double, 1>(&squared, {1}), .x = gradients_.all()});
  return std::sqrt(squared);
}

// Matrices decay, vectors (norms, biases) do not, as in nanoGPT.
void Trainer::update(double learning_rate, double gradient_scale) {
  for_each_parameter(
      specs_,
      [&](const std::string& name, const ParameterSpec& spec, const Out<float, 2>& w, const Out<float, 2>& m,
          const Out<float, 2>& v, const Out<float, 2>& dw) {
        const auto flat = [](const Out<float, 2>& view) { return view.as(view.size()); };
        const double rate = learning_rate * mup_rate(name, spec, model_.config.dim, recipe_.mup_base);
        backend_.run(AdamW{.w = flat(w),
                           .m = flat(m),
                           .v = flat(v),
                           .dw = flat(dw),
                           .learning_rate = static_cast<float>(rate),
                           .beta1 = static_cast<float>(recipe_.beta1),
                           .beta2 = static_cast<float>(recipe_.beta2),
                           .eps = static_cast<float>(recipe_.eps),
                           .weight_decay = spec.is_vector ? 0.f : static_cast<float>(recipe_.weight_decay),
                           .gradient_scale = static_cast<float>(gradient_scale),
                           .step = step_ + 1});
      },
      weights_->views, m_.views, v_.views, gradients_.views);
}

StepMetrics Trainer::step(const WindowSource& windows, double learning_rate, double l1) {
  const Stopwatch clock;
  const Out<float, 1> gradients = gradients_.all();
  parallel_ranges(gradients.size(), i64{1} << 14,
                  [&](int, i64 begin, i64 end) { std::fill(gradients.data() + begin, gradients.data() + end, 0.f); });
  activity_.clear();
  double loss = 0;
  for (i64 a = 0; a < recipe_.accumulate; ++a)
    loss += micro_batch(windows, (step_ * recipe_.accumulate + a) * recipe_.batch, l1);
  loss /= static_cast<double>(step_tokens());
  const double norm = gradient_norm();
  if (!std::isfinite(loss) || !std::isfinite(norm))
    fail("train: step {}: loss is {} and gradient norm {}, expected finite numbers; a smaller --lr may help", step_ + 1,
         loss, norm);
  const double scale = recipe_.clip > 0 && norm > recipe_.clip ? recipe_.clip / norm : 1;
  update(learning_rate, scale);
  ++step_;
  return {.step = step_,
          .tokens = step_ * step_tokens(),
          .loss = loss,
          .learning_rate = learning_rate,
          .gradient_norm = norm,
          .l1 = l1,
          .activity = activity_.layers(),
          .seconds = clock.seconds(),
          .step_tokens = step_tokens()};
}

Evaluation Trainer::evaluate(const TokenFile& tokens, i64 most, std::span<const i32> token_bytes) {
  const i64 T = recipe_.sequence, available = tokens.size() - 1;  // the last token is a target only
  const i64 total = std::max<i64>(0, most > 0 ? std::min(most, available) : available);
  Evaluation result;
  Activations kept;
  activity_.clear();
  double sum = 0;
  for (i64 done = 0; done < total;) {
    // As many whole windows as a batch holds, or the rest of the text alone.
    const i64 sequences = std::min(recipe_.batch, (total - done) / T), length = sequences > 0 ? T : total - done;
    const i64 rows = std::max<i64>(sequences, 1) * length;
    const Arena::Mark mark = arena_.mark();
    const auto ids = arena_.allocate<i32>(rows), targets = arena_.allocate<i32>(rows);
    tokens.copy(done, rows, ids.data());
    tokens.copy(done + 1, rows, targets.data());
    const Out<float, 2> hidden = transformer_.forward({.ids = ids, .sequences = rows / length}, arena_, &kept);
    activity_.add(kept, backend_, arena_);
    for (const float loss : transformer_.losses(hidden, targets, arena_).span()) sum += static_cast<double>(loss);
    for (const i32 id : targets.span()) result.bytes += token_bytes[static_cast<size_t>(id)];
    arena_.release(mark);
    done += rows;
  }
  result.tokens = total;
  result.activity = activity_.layers();
  result.loss = total > 0 ? sum / static_cast<double>(total) : 0;
  return result;
}

}  // namespace sparsam
