#include "train/trainer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

#include "base/clock.h"
#include "base/threads.h"
#include "model/neuron_sites.h"
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
      trained_(trained_parts(config, recipe.freeze)),
      model_(model_of(config, weights_)),
      transformer_(model_, backend, recipe.precision, recipe.sequence),
      gradients_(specs_),
      m_(specs_),
      v_(specs_),
      activity_(config) {}

i64 Trainer::memory_bytes() const {
  return weights_->buffer.size() + gradients_.buffer.size() + m_.buffer.size() + v_.buffer.size() + arena_.peak_bytes();
}

SampleSource samples_of(WindowSource windows, i64 length) {
  return [windows = std::move(windows), length](i64 sample, std::span<i32> ids, std::span<i32> targets) {
    std::vector<i32> window(static_cast<size_t>(length) + 1);
    windows(sample, window);
    std::copy_n(window.begin(), length, ids.begin());
    std::copy_n(window.begin() + 1, length, targets.begin());
    return length;
  };
}

double Trainer::micro_batch(const Batch& batch, double scale, double l1) {
  const Arena::Mark mark = arena_.mark();
  const Tokens tokens = batch.tokens();
  Activations kept;
  const Out<float, 2> rows = transformer_.head_input(tokens, transformer_.forward(tokens, arena_, &kept), arena_);
  activity_.add(kept, backend_, arena_);
  const auto loss = arena_.allocate<float>(rows.shape(0));
  const auto drows = arena_.allocate<float>(rows.shape(0), rows.shape(1));
  const LinearCrossEntropyBackward cross_entropy{.loss = loss,
                                                 .dx = drows,
                                                 .dhead = head_of(model_.config, gradients_.views),
                                                 .x = rows,
                                                 .head = model_.head(),
                                                 .targets = batch.wanted(),
                                                 .scale = static_cast<float>(scale),
                                                 .compute = recipe_.precision};
  if (teacher_)
    teacher_->run(tokens, cross_entropy, arena_);
  else
    backend_.run(cross_entropy);
  transformer_.backward(tokens, transformer_.head_input_backward(tokens, drows, arena_), kept, gradients_.views, arena_,
                        static_cast<float>(l1));
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

void Trainer::mask_new_tokens(float mask) {
  for (Layer& layer : model_.config.layers)
    for (ParameterTokens* tokens : tokens_of(layer))
      if (tokens && tokens->mask != 1) tokens->mask = mask;
}

// The norm is that of what is trained.
void Trainer::clear_frozen_gradients() {
  if (recipe_.freeze == Freeze::none) return;
  for_each_parameter(
      specs_,
      [](const std::string&, const ParameterSpec& spec, const TrainedPart& part, const Out<float, 2>& dw) {
        i64 done = 0;
        const auto clear_until = [&](i64 end) { std::fill(dw.data() + done, dw.data() + end, 0.f); };
        for_each_trained_range(spec, part, [&](i64 begin, i64 end) { clear_until(begin), done = end; });
        clear_until(spec.size());
      },
      trained_, gradients_.views);
}

// Matrices decay, vectors (norms, biases) do not, as in nanoGPT.
void Trainer::update(double learning_rate, double gradient_scale) {
  for_each_parameter(
      specs_,
      [&](const std::string& name, const ParameterSpec& spec, const TrainedPart& part, const Out<float, 2>& w,
          const Out<float, 2>& m, const Out<float, 2>& v, const Out<float, 2>& dw) {
        const double rate = learning_rate * mup_rate(name, spec, model_.config.dim, recipe_.mup_base);
        for_each_trained_range(spec, part, [&](i64 begin, i64 end) {
          const auto range = [&](const Out<float, 2>& view) {
            return Out<float, 1>(view.data() + begin, {end - begin});
          };
          backend_.run(AdamW{.w = range(w),
                             .m = range(m),
                             .v = range(v),
                             .dw = range(dw),
                             .learning_rate = static_cast<float>(rate),
                             .beta1 = static_cast<float>(recipe_.beta1),
                             .beta2 = static_cast<float>(recipe_.beta2),
                             .eps = static_cast<float>(recipe_.eps),
                             .weight_decay = spec.is_vector ? 0.f : static_cast<float>(recipe_.weight_decay),
                             .gradient_scale = static_cast<float>(gradient_scale),
                             .step = updates() + 1});
        });
      },
      trained_, weights_->views, m_.views, v_.views, gradients_.views);
}

StepMetrics Trainer::step(const SampleSource& samples, double learning_rate, double l1) {
  const Stopwatch clock;
  const Out<float, 1> gradients = gradients_.all();
  parallel_ranges(gradients.size(), i64{1} << 14,
                  [&](int, i64 begin, i64 end) { std::fill(gradients.data() + begin, gradients.data() + end, 0.f); });
  activity_.clear();
  std::vector<Batch> batches;  // all first: the weight of each prediction is one in so many
  i64 tokens = 0, predictions = 0;
  for (i64 a = 0; a < recipe_.accumulate; ++a) {
    batches.push_back(read_batch(samples, (step_ * recipe_.accumulate + a) * recipe_.batch, recipe_.batch,
                                 recipe_.sequence, !model_.config.labels.empty()));
    tokens += batches.back().real_tokens, predictions += batches.back().predictions;
  }
  const double weight = 1.0 / static_cast<double>(std::max<i64>(predictions, 1));
  double loss = 0;
  for (const Batch& batch : batches) loss += micro_batch(batch, weight, l1 / static_cast<double>(tokens));
  loss *= weight;
  clear_frozen_gradients();
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
          .step_tokens = tokens};
}

StepMetrics Trainer::step(const WindowSource& windows, double learning_rate, double l1) {
  return step(samples_of(windows, recipe_.sequence), learning_rate, l1);
}

Evaluation Trainer::evaluate(const SampleSet& samples, std::span<const i32> token_bytes) {
  Evaluation result;
  const bool classifies = !model_.config.labels.empty();
  if (classifies) result.confusion.emplace(static_cast<i64>(model_.config.labels.size()));
  Activations kept;
  activity_.clear();
  double sum = 0;
  for_each_batch(
      transformer_, samples, recipe_.batch, recipe_.sequence,
      [&](i64, const Batch& batch, In<float, 2> rows, In<float, 1> losses, Arena& arena) {
        activity_.add(kept, backend_, arena);
        result.tokens += batch.predictions;
        for (const float loss : losses.span()) sum += static_cast<double>(loss);
        for (const i32 id : batch.targets)
          if (id >= 0 && !token_bytes.empty()) result.bytes += token_bytes[static_cast<size_t>(id)];
        if (!classifies) return;
        const std::vector<i32> predicted = most_probable(transformer_.logits(rows, arena));
        for (size_t i = 0; i < predicted.size(); ++i) result.confusion->add(batch.targets[i], predicted[i]);
      },
      arena_, &kept);
  result.activity = activity_.layers();
  result.loss = result.tokens > 0 ? sum / static_cast<double>(result.tokens) : 0;
  return result;
}

Evaluation Trainer::evaluate(const TokenFile& tokens, i64 most, std::span<const i32> token_bytes) {
  return evaluate(next_tokens(tokens, recipe_.sequence, most), token_bytes);
}

}  // namespace sparsam
