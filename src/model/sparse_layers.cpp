#include "model/sparse_layers.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "base/threads.h"
#include "model/crossover.h"

namespace sparsam {

namespace {

// The matrix as floats.
Buffer floats_of(const Matrix& m) {
  Buffer buffer(m.size() * static_cast<i64>(sizeof(float)));
  parallel_ranges(m.rows, 1, [&](int, i64 begin, i64 end) {
    for (i64 row = begin; row < end; ++row)
      read_row(m, row, buffer.as<float>().subspan(static_cast<size_t>(row * m.cols), static_cast<size_t>(m.cols)));
  });
  return buffer;
}

void write_row(std::span<const float> values, const MutableMatrix& to, i64 row) {
  if (is_quantised(to.dtype)) {
    const i64 bytes = bytes_for(to.dtype, to.cols);
    quantize_row(to.dtype, values, {}, to.bytes.data() + row * bytes);
    return;
  }
  for (size_t i = 0; i < values.size(); ++i) to.set(row, static_cast<i64>(i), values[i]);
}

Matrix transposed(const Matrix& m, Buffer& buffer) {
  const DType dtype = m.rows % block_size(m.dtype) == 0 ? m.dtype : DType::bf16;
  buffer = Buffer(m.cols * bytes_for(dtype, m.rows));
  const MutableMatrix result{dtype, m.cols, m.rows, buffer.bytes()};
  const Buffer floats = floats_of(m);
  const In<float, 2> from{floats.as<float>().data(), {m.rows, m.cols}};
  constexpr i64 at_once = 16;  // columns: a cache line of each row
  parallel_ranges(m.cols, at_once, [&](int, i64 begin, i64 end) {
    std::vector<float> rows(static_cast<size_t>(at_once * m.rows));
    for (i64 first = begin; first < end; first += at_once) {
      const i64 count = std::min(at_once, end - first);
      for (i64 c = 0; c < m.rows; ++c)
        for (i64 i = 0; i < count; ++i) rows[static_cast<size_t>(i * m.rows + c)] = from(c, first + i);
      for (i64 i = 0; i < count; ++i)
        write_row({rows.data() + i * m.rows, static_cast<size_t>(m.rows)}, result, first + i);
    }
  });
  return result;
}

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

SparseLayers::SparseLayers(const Model& model, bool skip) {
  const Config& config = model.config;
  layers_.resize(config.layers.size());
  const auto transpose = [&](Matrix& result, const Matrix& weight) {
    if (skip && !weight.empty()) result = transposed(weight, buffers_.emplace_back());
  };
  for (size_t l = 0; l < config.layers.size(); ++l) {
    SparseLayer& layer = layers_[l];
    const auto& [attention, mlp] = model.weights.layers[l];
    if (config.inputs.active()) layer.inputs = config.inputs.layers[l];
    layer.dense_positions = config.inputs.dense_positions;
    if (layer.inputs.qkv > 0)
      transpose(layer.q, attention.q.weight), transpose(layer.k, attention.k.weight),
          transpose(layer.v, attention.v.weight);
    if (layer.inputs.o > 0) transpose(layer.o, attention.o.weight);
    const Matrix& down = mlp.down.weight;
    if (down.empty()) continue;
    if (!config.truncation.empty()) layer.truncation = config.truncation[l];
    if (layer.truncation.active() && layer.truncation.measure == Truncation::Measure::output) {
      Buffer& buffer = buffers_.emplace_back(down.cols * static_cast<i64>(sizeof(float)));
      const Out<float, 1> norms{buffer.as<float>().data(), {down.cols}};
      column_norms(down, norms);
      layer.norms = norms;
    }
    layer.selects_up = skip && gate_decides(config, l, layer.truncation);
    if (layer.inputs.up > 0) {
      transpose(layer.gate, mlp.gate.weight);
      if (!layer.selects_up) transpose(layer.up, mlp.up.weight);
    }
    if (has_zeros(config, l) || layer.truncation.active() || layer.inputs.down > 0) transpose(layer.down, down);
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

i64 SparseLayers::bytes() const {
  i64 total = 0;
  for (const Buffer& buffer : buffers_) total += buffer.size();
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

Out<float, 2> sparse_forward(const Execution& e, const LinearParams<Matrix>& w, const Matrix& transposed,
                             In<float, 2> x) {
  if (transposed.empty() || !are_few(x.shape(0))) return linear_forward(e, w, x);
  const auto y = e.arena.allocate<float>(x.shape(0), w.weight.rows);
  e.backend.run(SkippingMatmul{.y = y, .x = x, .t = transposed, .bias = as_vector(w.bias)});
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
