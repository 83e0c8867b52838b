#include "levers/widen.h"

#include "base/threads.h"

namespace sparsam {

namespace {

// How often element i of `before` occurs among `after` that repeat them in turn.
i64 copies(i64 i, i64 before, i64 after) { return after / before + (i < after % before); }

struct Shape {
  bool outputs_in_columns = false;  // vectors and embeddings; else columns read what is copied
  double divisor = 1;               // of the final norm, where the head is the embedding
};

// A number of the model and what became of it: copied from `inputs` times repeated inputs, to `outputs` outputs. The
// gradient of an output's copy is its share, inputs are as they were.
double factor(Numbers numbers, i64 inputs, i64 outputs, double divisor) {
  const double share = divisor == 1 ? 1 / static_cast<double>(outputs) : 1;
  switch (numbers) {
    case Numbers::weights:
      return 1 / (static_cast<double>(inputs) * divisor);
    case Numbers::first_moments:
      return share;
    case Numbers::second_moments:
      return share * share;
  }
  return 1;
}

// Adds numbers whose sum over the copies of each column is 0.
void add_noise(std::span<float> row, i64 before, double deviation, Random random) {
  const i64 after = static_cast<i64>(row.size());
  std::vector<double> noise;
  for (i64 c = 0; c < before; ++c) {
    noise.assign(static_cast<size_t>(copies(c, before, after)), 0);
    const double number = static_cast<double>(noise.size());
    double mean = 0;
    for (double& x : noise) x = deviation / number * random.normal(), mean += x / number;
    for (i64 i = 0; i < static_cast<i64>(noise.size()); ++i)
      row[static_cast<size_t>(c + i * before)] += static_cast<float>(noise[static_cast<size_t>(i)] - mean);
  }
}

struct Repeating {
  const WidenOptions& options;
  Numbers numbers;
  GrownStorage& storage;

  Matrix operator()(const Matrix& old, i64 rows, i64 cols, const Shape& shape, u64 stream) const {
    const MutableMatrix result = storage.allocate(DType::f32, rows, cols);
    const bool noisy = numbers == Numbers::weights && options.noise > 0 && !shape.outputs_in_columns && cols > old.cols;
    const double deviation = noisy ? options.noise * root_mean_square(old) : 0;
    parallel_ranges(rows, 16, [&](int, i64 begin, i64 end) {
      std::vector<float> from(static_cast<size_t>(old.cols));
      for (i64 r = begin; r < end; ++r) {
        read_row(old, r % old.rows, from);
        const std::span<float> to(result.as<float>() + r * cols, static_cast<size_t>(cols));
        const i64 of_row = copies(r % old.rows, old.rows, rows);
        for (i64 c = 0; c < cols; ++c) {
          const i64 of_column = copies(c % old.cols, old.cols, cols);
          const double scale = shape.outputs_in_columns ? factor(numbers, 1, of_column, shape.divisor)
                                                        : factor(numbers, of_column, of_row, shape.divisor);
          to[static_cast<size_t>(c)] = static_cast<float>(scale * double{from[static_cast<size_t>(c % old.cols)]});
        }
        if (noisy) add_noise(to, old.cols, deviation, Random(options.seed, stream + static_cast<u64>(r)));
      }
    });
    return result;
  }
};

bool is_table(const std::string& name) { return name.starts_with("model.embed_"); }

Model repeated(const Model& model, const Config& to, const WidenOptions& options, Numbers numbers) {
  auto storage = std::make_shared<GrownStorage>(GrownStorage{model.storage});
  Model result{to, model.weights, storage};
  const Repeating repeat{options, numbers, *storage};
  const double logits = to.tied && to.labels.empty() && to.logit_scale == model.config.logit_scale
                            ? static_cast<double>(to.dim) / static_cast<double>(model.config.dim)
                            : 1;
  const auto before = parameter_specs(model.config);
  u64 number = 0;
  for_each_parameter(
      parameter_specs(to),
      [&](const std::string& name, const ParameterSpec& spec, const ParameterSpec& was, Matrix& w) {
        ++number;
        if (spec.rows == was.rows && spec.cols == was.cols) return;
        require_real(w, name);
        const Shape shape{.outputs_in_columns = spec.is_vector || is_table(name),
                          .divisor = name.starts_with("model.norm.") ? logits : 1};
        w = repeat(w, spec.rows, spec.cols, shape, number << 32);
      },
      before, result.weights);
  return result;
}

template <class F>  // f(layer's number, Mlp or GatedMlp)
void for_each_mlp(Config& config, F&& f) {
  for (size_t l = 0; l < config.layers.size(); ++l) {
    if (auto* m = std::get_if<Mlp>(&config.layers[l].mlp)) f(l, *m);
    if (auto* m = std::get_if<GatedMlp>(&config.layers[l].mlp)) f(l, *m);
  }
}

// More neurons than `model` has, drawn like those there are; nothing reads them yet.
Model with_random_neurons(const Model& model, const Config& to, u64 seed, Numbers numbers) {
  auto storage = std::make_shared<GrownStorage>(GrownStorage{model.storage});
  Model result{to, model.weights, storage};
  const auto specs = parameter_specs(to);
  for (size_t l = 0; l < to.layers.size(); ++l) {
    auto& w = result.weights.layers[l].mlp;
    const auto& spec = specs.layers[l].mlp;
    if (!spec.down.weight.present() || spec.down.weight.cols == w.down.weight.cols) continue;
    if (spec.inner_norm.gain.present() || spec.inner_norm.bias.present())
      fail("grow: layer {} has a norm over its neurons, which random ones would change; copies do not", l);
    u64 stream = 4 * l;
    const auto extend = [&](Matrix& matrix, const ParameterSpec& shape, bool random) {
      ++stream;
      if (!shape.present()) return;
      require_real(matrix, fmt::format("layer {}: MLP", l));
      const i64 fresh = shape.size() - matrix.rows * matrix.cols;
      const double deviation = random && numbers == Numbers::weights ? root_mean_square(matrix) : 0;
      matrix = storage->extended(matrix, shape.rows, shape.cols, drawn(fresh, deviation, Random(seed, stream)));
    };
    extend(w.gate.weight, spec.gate.weight, true), extend(w.up.weight, spec.up.weight, true);
    extend(w.gate.bias, spec.gate.bias, false), extend(w.up.bias, spec.up.bias, false);
    extend(w.down.weight, spec.down.weight, false);
  }
  return result;
}

}  // namespace

Config widened(const Config& config, const Widening& widening) {
  const i64 k = widening.dim;
  if (k < 1 || k > 1024) fail_usage("grow: {} times the width, expected 1 to 1024", k);
  if (leaves_out(config))
    fail_usage("grow: the model leaves neurons, keys or inputs out, by thresholds or blocks; grow it before that");
  Config to = config;
  to.dim *= k;
  if (k > 1 && config.tied && config.labels.empty() && !config.norm.gain && !config.final_affine)
    to.logit_scale /= static_cast<float>(k);
  for (Layer& layer : to.layers) {
    if (auto* a = std::get_if<SoftmaxAttention>(&layer.mixer)) a->heads *= k, a->kv_heads *= k;
    if (auto* a = std::get_if<LogSumExpAttention>(&layer.mixer)) a->heads *= k, a->kv_heads *= k;
  }
  bool any = false;
  for_each_mlp(to, [&](size_t l, auto& mlp) {
    const i64 before = mlp.hidden, after = widening.hidden > 0 ? widening.hidden : k * before;
    if (after < k * before)
      fail_usage("grow: layer {} has {} neurons, {}more than the {} that it is to have", l, before,
                 k > 1 ? fmt::format("{} times as many are ", k) : std::string(), after);
    if constexpr (requires { mlp.inner_norm; })
      if (mlp.inner_norm && after % before != 0)
        fail_usage("grow: layer {} has a norm over its {} neurons: expected a multiple of them, not {}", l, before,
                   after);
    mlp.hidden = after, any = true;
  });
  if (widening.hidden > 0 && !any) fail_usage("grow: the model has no MLP that could be wider");
  validate(to, "grow");
  return to;
}

Model widen(const Model& model, const Config& to, const WidenOptions& options, Numbers numbers) {
  if (options.neurons == NewNeurons::copies) return repeated(model, to, options, numbers);
  Config cloned = to;
  const Config by_dim = widened(model.config, {.dim = to.dim / model.config.dim});
  for (size_t l = 0; l < cloned.layers.size(); ++l) cloned.layers[l].mlp = by_dim.layers[l].mlp;
  return with_random_neurons(repeated(model, cloned, options, numbers), to, options.seed, numbers);
}

}  // namespace sparsam
