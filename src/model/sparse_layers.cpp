#include "model/sparse_layers.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "model/crossover.h"

namespace sparsam {

namespace {

bool has_zeros(const Config& config, size_t layer) {
  if (const auto* m = std::get_if<Mlp>(&config.layers[layer].mlp)) return gives_zeros(m->activation);
  if (const auto* m = std::get_if<GatedMlp>(&config.layers[layer].mlp))
    return gives_zeros(m->activation) && !(m->inner_norm && config.norm.kind == NormKind::layer);
  return false;
}

// Whether the gate alone tells which neurons count.
bool gate_decides(const Config& config, size_t layer, const Truncation& truncation) {
  const auto* gated = std::get_if<GatedMlp>(&config.layers[layer].mlp);
  return gated &&
         (gives_zeros(gated->activation) || (truncation.active() && truncation.measure == Truncation::Measure::gate));
}

}  // namespace

bool gives_zeros(Function function) {
  return function == Function::relu || function == Function::relu2 || function == Function::fatrelu;
}

SparseLayers::SparseLayers(const Model& model, Backend& backend, bool skip) {
  const Config& config = model.config;
  layers_.resize(config.layers.size());
  const auto store = [&](InputMajor& result, const Matrix& weight) {
    if (!skip || weight.empty() || !InputMajor::holds(weight.dtype)) return;
    Buffer& buffer = buffers_.emplace_back(InputMajor::bytes_for(weight.dtype, weight.cols, weight.rows));
    result = input_major(weight, buffer.bytes());
    stored_.emplace_back(weight, result);
  };
  const auto norms_of = [&](const Matrix& outputs) {
    Buffer& buffer = buffers_.emplace_back(outputs.cols * static_cast<i64>(sizeof(float)));
    const Out<float, 1> norms{buffer.as<float>().data(), {outputs.cols}};
    column_norms(outputs, norms);
    return In<float, 1>(norms);
  };
  for (size_t l = 0; l < config.layers.size(); ++l) {
    SparseLayer& layer = layers_[l];
    const auto& [attention, mlp] = model.weights.layers[l];
    if (config.inputs.active()) layer.inputs = config.inputs.layers[l];
    layer.dense_positions = config.inputs.dense_positions;
    if (layer.inputs.qkv > 0)
      store(layer.q, attention.q.weight), store(layer.k, attention.k.weight), store(layer.v, attention.v.weight);
    if (layer.inputs.o > 0) store(layer.o, attention.o.weight);
    const auto tokens = tokens_of(config.layers[l]);
    const auto token_weights = token_params_of(model.weights.layers[l]);
    for (size_t p = 0; p < places; ++p) {
      if (!tokens[p]) continue;
      SparseTokens& sparse = layer.tokens[p];
      const float input = p < 3 ? layer.inputs.qkv : p == 3 ? layer.inputs.o : layer.inputs.up;
      if (tokens[p]->blocks.active())
        sparse.blocks = key_blocks(*tokens[p], token_weights[p]->keys, skip, backend, buffers_);
      else if (input > 0)
        store(sparse.keys, token_weights[p]->keys);
      sparse.truncation = tokens[p]->truncation;
      if (sparse.truncation.active() || sparse.blocks.active()) store(sparse.values, token_weights[p]->values);
      if (sparse.truncation.active() && sparse.truncation.measure == Truncation::Measure::output)
        sparse.norms = norms_of(token_weights[p]->values);
    }
    const Matrix& down = mlp.down.weight;
    if (down.empty()) continue;
    if (!config.truncation.empty()) layer.truncation = config.truncation[l];
    if (layer.truncation.active() && layer.truncation.measure == Truncation::Measure::output)
      layer.norms = norms_of(down);
    layer.selects_up = skip && gate_decides(config, l, layer.truncation);
    if (layer.inputs.up > 0) {
      store(layer.gate, mlp.gate.weight);
      if (!layer.selects_up) store(layer.up, mlp.up.weight);
    }
    if (has_zeros(config, l) || layer.truncation.active() || layer.inputs.down > 0) store(layer.down, down);
  }
}

void SparseLayers::find_crossovers(const Model& model, Backend& backend) {
  // All weights of a shape together: read in turns, they do not come from the caches.
  std::map<std::tuple<DType, i64, i64>, std::vector<size_t>> shapes;
  for (size_t l = 0; l < layers_.size(); ++l) {
    const Matrix& up = model.weights.layers[l].mlp.up.weight;
    if (layers_[l].selects_up) shapes[{up.dtype, up.rows, up.cols}].push_back(l);
  }
  for (const auto& [shape, layers] : shapes) {
    std::vector<Matrix> weights;
    for (const size_t l : layers) weights.push_back(model.weights.layers[l].mlp.up.weight);
    const std::array<float, 2> found{selection_crossover(weights, 1, backend),
                                     selection_crossover(weights, 4, backend)};
    for (const size_t l : layers) layers_[l].up_crossover = found;
    const auto& [dtype, rows, cols] = shape;
    crossovers_.push_back({dtype, rows, cols, found});
  }
}

std::vector<Crossover> SparseLayers::measure_input_crossovers(Backend& backend) const {
  std::map<std::tuple<DType, i64, i64>, std::vector<std::pair<Matrix, InputMajor>>> shapes;
  for (const auto& weight : stored_)
    shapes[{weight.first.dtype, weight.first.rows, weight.first.cols}].push_back(weight);
  std::vector<Crossover> found;
  for (const auto& [shape, weights] : shapes) {
    const auto& [dtype, rows, cols] = shape;
    found.push_back(
        {dtype, rows, cols, {skipping_crossover(weights, 1, backend), skipping_crossover(weights, 4, backend)}});
  }
  return found;
}

i64 SparseLayers::bytes() const {
  i64 total = 0;
  for (const Buffer& buffer : buffers_) total += buffer.size();
  return total;
}

i64 SparseLayers::choosing_bytes() const {
  i64 total = 0;
  for (const SparseLayer& layer : layers_)
    for (const SparseTokens& tokens : layer.tokens) total += tokens.blocks.bytes();
  return total;
}

void leave_out_small(const Execution& e, Out<float, 2> x, float threshold, i64 dense_positions) {
  if (threshold <= 0) return;
  const i64 T = e.length, dense = std::clamp<i64>(dense_positions - e.positions[0], 0, T);
  const Arena::Mark mark = e.arena.mark();
  const auto active = e.arena.allocate<float>(T);
  const auto run = [&](i64 first, i64 rows) {
    const auto part = x.slice(first, rows);
    e.backend.run(
        Truncate{.y = part, .active = active.slice(0, rows), .h = part, .s = part, .w = {}, .threshold = threshold});
  };
  for (i64 b = 0; b < e.sequences; ++b)
    if (dense < T) run(b * T + dense, T - dense);
  e.arena.release(mark);
}

void leave_out_weak(Backend& backend, Arena& arena, const Truncation& t, In<float, 1> norms, Out<float, 2> h,
                    In<float, 2> s) {
  const bool by_output = t.measure == Truncation::Measure::output;
  backend.run(Truncate{.y = h,
                       .active = arena.allocate<float>(h.shape(0)),
                       .h = h,
                       .s = by_output ? In<float, 2>(h) : s,
                       .w = by_output ? norms : In<float, 1>{},
                       .threshold = t.threshold,
                       .keep = t.keep});
}

Out<float, 2> sparse_forward(const Execution& e, const LinearParams<Matrix>& w, const InputMajor& by_input,
                             In<float, 2> x) {
  if (by_input.empty() || !are_few(x.shape(0))) return linear_forward(e, w, x);
  const auto y = e.arena.allocate<float>(x.shape(0), w.weight.rows);
  e.backend.run(SkippingMatmul{.y = y,
                               .x = x,
                               .t = by_input,
                               .bias = as_vector(w.bias),
                               .w = w.weight,
                               .crossover = skipping_crossover(e.config, by_input, x.shape(0))});
  return y;
}

void column_norms(const Matrix& matrix, Out<float, 1> norms) {
  std::vector<double> squares(static_cast<size_t>(matrix.cols));
  std::vector<float> row(squares.size());
  for (i64 c = 0; c < matrix.rows; ++c) {
    read_row(matrix, c, row);
    for (size_t i = 0; i < row.size(); ++i) squares[i] += static_cast<double>(row[i]) * row[i];
  }
  for (i64 i = 0; i < matrix.cols; ++i) norms[i] = static_cast<float>(std::sqrt(squares[static_cast<size_t>(i)]));
}

}  // namespace sparsam
