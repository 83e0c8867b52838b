#include "infer/session.h"

#include <algorithm>
#include <cstring>

namespace sparsam {

namespace {

const SoftmaxAttention* attention_of(const Layer& layer) { return std::get_if<SoftmaxAttention>(&layer.mixer); }

// A cache of `capacity` positions in `buffer`: keys in its first half, values in its second.
LayerCache cache_in(const Buffer& buffer, DType dtype, const SoftmaxAttention& attention, i64 capacity) {
  const i64 rows = attention.kv_heads * capacity;
  const size_t bytes = static_cast<size_t>(rows * attention.head_dim * size_of(dtype));
  return {.keys = {dtype, rows, attention.head_dim, buffer.bytes().subspan(0, bytes)},
          .values = {dtype, rows, attention.head_dim, buffer.bytes().subspan(bytes, bytes)}};
}

// Copies the first `positions` rows of every head; heads lie a capacity apart.
void copy_heads(const MutableMatrix& from, const MutableMatrix& to, i64 heads, i64 positions) {
  const size_t row = static_cast<size_t>(from.cols * size_of(from.dtype));
  const size_t from_head = static_cast<size_t>(from.rows / heads) * row;
  const size_t to_head = static_cast<size_t>(to.rows / heads) * row;
  for (size_t h = 0; h < static_cast<size_t>(heads); ++h)
    std::memcpy(to.bytes.data() + h * to_head, from.bytes.data() + h * from_head, static_cast<size_t>(positions) * row);
}

}  // namespace

Session::Session(const Model& model, Backend& backend, const SessionOptions& options)
    : transformer_(model, backend, options.compute, options.positions ? options.positions : model.config.context,
                   options.skip_zeros),
      options_(options),
      buffers_(model.config.layers.size()),
      caches_(model.config.layers.size()) {
  check(options.chunk > 0 && options.first_capacity > 0 && options.positions >= 0, "session: chunk {}, capacity {}",
        options.chunk, options.first_capacity);
}

In<float, 1> Session::prefill(std::span<const i32> tokens) {
  check(!tokens.empty(), "session: no tokens");
  const i64 count = static_cast<i64>(tokens.size());
  if (count > positions() - position_)
    fail("session: {} tokens after {} exceed its {} positions", count, position_, positions());
  reserve(position_ + count);
  const i64 before = position_;
  Out<float, 2> hidden;
  try {
    for (i64 done = 0; done < count; done += options_.chunk) {
      const i64 length = std::min(options_.chunk, count - done);
      arena_.reset();
      const Tokens chunk{.ids = {tokens.data() + done, {length}}, .sequences = 1, .start = position_};
      hidden = transformer_.forward(chunk, arena_, nullptr, caches_);
      position_ += length;
    }
  } catch (const Error&) {
    position_ = before;
    throw;
  }
  const auto logits = transformer_.logits(hidden.slice(hidden.shape(0) - 1, 1), arena_);
  return In<float, 2>(logits)[0];
}

void Session::rewind(i64 position) {
  check(position >= 0 && position <= position_, "session: rewind to {} from {}", position, position_);
  position_ = position;
}

i64 Session::cache_bytes() const {
  i64 total = 0;
  for (const Buffer& buffer : buffers_) total += buffer.size();
  return total;
}

void Session::reserve(i64 wanted) {
  if (wanted <= capacity_) return;
  i64 capacity = std::max(capacity_, options_.first_capacity);
  while (capacity < wanted) capacity *= 2;
  capacity = std::min(capacity, positions());
  for (size_t i = 0; i < caches_.size(); ++i) {
    const SoftmaxAttention* attention = attention_of(model().config.layers[i]);
    if (!attention) continue;
    const i64 heads = attention->kv_heads;
    Buffer buffer(2 * heads * capacity * attention->head_dim * size_of(options_.cache));
    const LayerCache cache = cache_in(buffer, options_.cache, *attention, capacity);
    if (position_ > 0) {
      copy_heads(caches_[i].keys, cache.keys, heads, position_);
      copy_heads(caches_[i].values, cache.values, heads, position_);
    }
    buffers_[i] = std::move(buffer);
    caches_[i] = cache;
  }
  capacity_ = capacity;
}

}  // namespace sparsam
