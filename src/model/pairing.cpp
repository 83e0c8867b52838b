#include "model/pairing.h"

#include <cstring>
#include <deque>

namespace sparsam {

namespace {

struct Storage {
  std::shared_ptr<const void> original;  // of the weights that are not permuted
  std::deque<Buffer> permuted;
};

// Where channel `to` of a head comes from, of its first R channels of which pairs turn.
i64 source(i64 to, i64 channels, Pairing pairing) {
  if (to >= channels) return to;
  if (pairing == Pairing::interleaved) return to % 2 * (channels / 2) + to / 2;
  return to < channels / 2 ? 2 * to : 2 * (to - channels / 2) + 1;
}

// A matrix whose rows, or a vector whose elements, are the channels of heads one after the other.
void permute(Matrix& matrix, i64 head_dim, i64 channels, Pairing pairing, Storage& storage) {
  if (matrix.empty()) return;
  const bool is_vector = matrix.rows == 1;
  const i64 count = is_vector ? matrix.cols : matrix.rows;
  const auto row_bytes = matrix.bytes.size() / static_cast<size_t>(count);
  Buffer& buffer = storage.permuted.emplace_back(static_cast<i64>(matrix.bytes.size()));
  for (i64 i = 0; i < count; ++i) {
    const i64 from = i / head_dim * head_dim + source(i % head_dim, channels, pairing);
    std::memcpy(buffer.data() + static_cast<size_t>(i) * row_bytes,
                matrix.bytes.data() + static_cast<size_t>(from) * row_bytes, row_bytes);
  }
  matrix.bytes = buffer.bytes();
}

}  // namespace

Model with_pairing(const Model& model, Pairing pairing) {
  if (model.config.positions != Positions::rotary || model.config.rotary.pairing == pairing) return model;
  auto storage = std::make_shared<Storage>(Storage{model.storage, {}});
  Model result{model.config, model.weights, storage};
  result.config.rotary.pairing = pairing;
  for (size_t i = 0; i < result.config.layers.size(); ++i) {
    const auto* a = std::get_if<SoftmaxAttention>(&result.config.layers[i].mixer);
    if (!a) continue;
    const i64 channels = result.config.rotary.channels ? result.config.rotary.channels : a->head_dim;
    auto& w = result.weights.layers[i].attention;
    for (Matrix* m : {&w.q.weight, &w.q.bias, &w.k.weight, &w.k.bias, &w.q_norm.gain, &w.k_norm.gain})
      permute(*m, a->head_dim, channels, pairing, *storage);
  }
  return result;
}

}  // namespace sparsam
