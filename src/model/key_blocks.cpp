#include "model/key_blocks.h"

#include <algorithm>
#include <cmath>

#include "tensor/cholesky.h"

namespace sparsam {

namespace {

DType stored_type(const Matrix& keys) { return is_quantised(keys.dtype) ? DType::q8_0 : keys.dtype; }

// Four bands hold 5/8 of a square matrix, where a triangle would be half. Widths are whole blocks of q8_0.
i64 band_rows(i64 d) {
  constexpr i64 bands = 4, multiple = 32;
  return ((d + bands - 1) / bands + multiple - 1) / multiple * multiple;
}

i64 root_numbers(i64 d) {
  i64 numbers = 0;
  for (i64 row = 0; row < d; row += band_rows(d)) numbers += std::min(band_rows(d), d - row) * (d - row);
  return numbers;
}

// Rows of `values`, from column `first` of `stride` numbers on.
Matrix stored(std::span<const double> values, i64 rows, i64 stride, i64 first, DType dtype,
              std::vector<Buffer>& buffers) {
  const i64 cols = stride - first;
  Buffer& buffer = buffers.emplace_back(rows * bytes_for(dtype, cols));
  const MutableMatrix result{dtype, rows, cols, buffer.bytes()};
  std::vector<float> row(static_cast<size_t>(cols));
  for (i64 r = 0; r < rows; ++r) {
    for (i64 c = 0; c < cols; ++c) {
      row[static_cast<size_t>(c)] = static_cast<float>(values[static_cast<size_t>(r * stride + first + c)]);
      if (!std::isfinite(row[static_cast<size_t>(c)])) fail("model: a key of the parameter tokens is not finite");
    }
    if (is_quantised(dtype))
      quantize_row(dtype, row, {}, result.bytes.data() + r * bytes_for(dtype, cols));
    else
      for (i64 c = 0; c < cols; ++c) result.set(r, c, row[static_cast<size_t>(c)]);
  }
  return result;
}

std::vector<double> mean_keys(const TokenBlocks& blocks, const Matrix& keys) {
  const i64 d = keys.cols;
  std::vector<double> means(static_cast<size_t>(blocks.count(keys.rows) * d));
  std::vector<float> key(static_cast<size_t>(d));
  for (i64 p = 0; p < keys.rows; ++p) {
    read_row(keys, p, key);
    const i64 block = p / blocks.size, tokens = std::min(blocks.size, keys.rows - block * blocks.size);
    for (size_t i = 0; i < key.size(); ++i)
      means[static_cast<size_t>(block * d) + i] += double{key[i]} / static_cast<double>(tokens);
  }
  return means;
}

// K^T K, by the backend's products of some keys at a time.
std::vector<double> gram_matrix(const Matrix& keys, Backend& backend) {
  constexpr i64 at_a_time = 1024;
  const i64 d = keys.cols;
  Arena arena;
  const auto rows = arena.allocate<float>(at_a_time, d), part = arena.allocate<float>(d, d);
  std::vector<double> gram(static_cast<size_t>(d * d));
  for (i64 first = 0; first < keys.rows; first += at_a_time) {
    const auto some = rows.slice(0, std::min(at_a_time, keys.rows - first));
    for (i64 p = 0; p < some.shape(0); ++p) read_row(keys, first + p, some[p].span());
    std::fill(part.begin(), part.end(), 0.0f);
    backend.run(MatmulBackwardWeight{.dw = part, .dy = some, .x = some, .compute = Compute::f32});
    for (size_t i = 0; i < gram.size(); ++i) gram[i] += part.data()[i];
  }
  return gram;
}

}  // namespace

i64 KeyBlocks::bytes() const {
  i64 total = static_cast<i64>(means.bytes.size());
  for (const Matrix& band : root) total += static_cast<i64>(band.bytes.size());
  return total;
}

KeyBlocks key_blocks(const ParameterTokens& tokens, const Matrix& keys, bool few, Backend& backend,
                     std::vector<Buffer>& buffers) {
  const i64 d = keys.cols;
  const DType dtype = stored_type(keys);
  KeyBlocks result{
      .blocks = tokens.blocks,
      .means = stored(mean_keys(tokens.blocks, keys), tokens.blocks.count(keys.rows), d, 0, dtype, buffers),
      .root = {}};
  if (!few || root_numbers(d) >= keys.size()) return result;
  std::vector<double> gram = gram_matrix(keys, backend);
  const size_t width = static_cast<size_t>(d);
  // Its sums are rounded to float32: a part in a million of the greatest keeps what is below that from becoming large.
  double largest = 0;
  for (size_t i = 0; i < width; ++i) largest = std::max(largest, gram[i * width + i]);
  for (size_t i = 0; i < width; ++i) gram[i * width + i] += 1e-6 * largest;
  const std::vector<double> root = cholesky(std::move(gram), width);
  for (i64 row = 0; row < d; row += band_rows(d))
    result.root.push_back(stored(std::span(root).subspan(static_cast<size_t>(row * d)), std::min(band_rows(d), d - row),
                                 d, row, dtype, buffers));
  return result;
}

Out<float, 2> root_product(const Execution& e, const KeyBlocks& blocks, In<float, 2> x) {
  const i64 d = x.shape(1);
  const auto y = e.arena.allocate<float>(x.shape(0), d);
  for (i64 n = 0; n < x.shape(0); ++n)
    for (const Matrix& band : blocks.root) {
      const i64 first = d - band.cols;
      e.backend.run(Matmul{.y = {&y(n, first), {1, band.rows}},
                           .x = {&x(n, first), {1, band.cols}},
                           .w = band,
                           .compute = Compute::f32});
    }
  return y;
}

double token_bytes_read(const ParameterTokens& tokens, const TokenParams<Matrix>& w) {
  const double all = static_cast<double>(w.keys.bytes.size() + w.values.bytes.size());
  if (!tokens.blocks.active()) return all;
  const i64 blocks = tokens.blocks.count(tokens.tokens), root = root_numbers(w.keys.cols);
  const double keys = static_cast<double>(w.keys.bytes.size());
  const double read = static_cast<double>(tokens.blocks.read) / static_cast<double>(blocks);
  const DType dtype = stored_type(w.keys);
  const auto stored_bytes = [&](i64 numbers) {
    return static_cast<double>(numbers * block_bytes(dtype)) / static_cast<double>(block_size(dtype));
  };
  return read * (all - keys) + stored_bytes(blocks * w.keys.cols) +
         (root < w.keys.size() ? read * keys + stored_bytes(root) : keys);
}

}  // namespace sparsam
