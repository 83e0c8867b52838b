#include "model/sparse_neurons.h"

#include <algorithm>
#include <cmath>

#include "base/threads.h"

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

}  // namespace

bool gives_zeros(Function function) {
  return function == Function::relu || function == Function::relu2 || function == Function::fatrelu;
}

SparseMlps::SparseMlps(const Model& model, bool skip) {
  const Config& config = model.config;
  layers_.resize(config.layers.size());
  for (size_t l = 0; l < config.layers.size(); ++l) {
    if (!has_mlp(config.layers[l])) continue;
    SparseNeurons& layer = layers_[l];
    const Matrix& down = model.weights.layers[l].mlp.down.weight;
    if (!config.truncation.empty()) layer.truncation = config.truncation[l];
    if (layer.truncation.active() && layer.truncation.measure == Truncation::Measure::output) {
      Buffer& buffer = buffers_.emplace_back(down.cols * static_cast<i64>(sizeof(float)));
      const Out<float, 1> norms{buffer.as<float>().data(), {down.cols}};
      column_norms(down, norms);
      layer.norms = norms;
    }
    if (skip && (has_zeros(config, l) || layer.truncation.active()))
      layer.down_transposed = transposed(down, buffers_.emplace_back());
  }
}

i64 SparseMlps::bytes() const {
  i64 total = 0;
  for (const Buffer& buffer : buffers_) total += buffer.size();
  return total;
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
