#include "levers/deepen.h"

namespace sparsam {

Config deepened(const Config& config, i64 layers) {
  const i64 before = static_cast<i64>(config.layers.size());
  if (layers < before || layers > 10'000)
    fail_usage("grow: the model has {} layers, expected {} to 10000, not {}", before, before, layers);
  if (before == 0 && layers > 0) fail_usage("grow: the model has no layer to copy");
  if (leaves_out(config))
    fail_usage("grow: the model leaves neurons, keys or inputs out, by thresholds or blocks; grow it before that");
  Config to = config;
  for (i64 l = before; l < layers; ++l) to.layers.push_back(config.layers[static_cast<size_t>(l % before)]);
  validate(to, "grow");
  return to;
}

Model deepen(const Model& model, const Config& to, Stacking how, Numbers numbers) {
  auto storage = std::make_shared<GrownStorage>(GrownStorage{model.storage});
  Model result{to, model.weights, storage};
  const size_t before = model.config.layers.size();
  const auto clear = [&](Matrix& matrix) {
    if (!matrix.empty())
      matrix = storage->zeros(is_quantised(matrix.dtype) ? DType::f32 : matrix.dtype, matrix.rows, matrix.cols);
  };
  for (size_t l = before; l < to.layers.size(); ++l) {
    auto& layer = result.weights.layers.emplace_back(model.weights.layers[l % before]);
    if (numbers != Numbers::weights) {
      LayerParams<Matrix>::visit(
          "", [&](const std::string&, Matrix& moments) { clear(moments); }, layer);
    } else if (how == Stacking::zeros) {
      auto& o = layer.attention.o;
      auto& down = layer.mlp.down;
      for (Matrix* last : {&o.weight, &o.bias, &o.tokens.values, &down.weight, &down.bias, &layer.mlp.tokens.values})
        clear(*last);
    }
  }
  return result;
}

}  // namespace sparsam
