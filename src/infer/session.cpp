#include "infer/session.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace sparsam {

namespace {

const SoftmaxAttention* attention_of(const Layer& layer) { return std::get_if<SoftmaxAttention>(&layer.mixer); }
const LogSumExpAttention* state_of(const Layer& layer) { return std::get_if<LogSumExpAttention>(&layer.mixer); }

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

// Takes parts of a layer's memory, each on a cache line; without memory it only counts.
class Parts {
 public:
  explicit Parts(std::byte* memory) : memory_(memory) {}
  template <class T, class... Sizes>
  View<T, static_cast<int>(sizeof...(Sizes))> take(Sizes... sizes) {
    const Shape<static_cast<int>(sizeof...(Sizes))> shape{static_cast<i64>(sizes)...};
    T* part = reinterpret_cast<T*>(memory_ + used_);
    used_ += (count(shape) * static_cast<i64>(sizeof(T)) + 63) / 64 * 64;
    return {count(shape) ? part : nullptr, shape};
  }
  i64 bytes() const { return used_; }

 private:
  std::byte* memory_;
  i64 used_ = 0;
};

LogSumExpCache state_in(Parts& parts, const LogSumExpAttention& mixer, DType dtype, i64 tokens) {
  const i64 H = mixer.heads, G = mixer.kv_heads, E = mixer.head_dim, D = mixer.values_of_head();
  const i64 past = std::max<i64>(mixer.convolution - 1, 0), rows = G * window_capacity(mixer.window, tokens);
  LogSumExpCache cache{.sums = parts.take<float>(1, G, E, D),
                       .mass = parts.take<float>(1, G, E),
                       .scale = parts.take<float>(1, G, E),
                       .q = parts.take<float>(1, past, H * E),
                       .k = parts.take<float>(1, past, G * E),
                       .v = parts.take<float>(1, past, G * D),
                       .window = {},
                       .filled = parts.take<i64>(1),
                       .tokens = tokens};
  const auto keys = parts.take<std::byte>(rows * E * size_of(dtype)), values = parts.take<std::byte>(keys.size());
  cache.window = {.keys = {dtype, rows, E, keys.span()}, .values = {dtype, rows, E, values.span()}};
  return cache;
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
  for (size_t i = 0; i < caches_.size(); ++i)
    if (const auto* mixer = state_of(model.config.layers[i])) {
      Parts count(nullptr);
      state_in(count, *mixer, options.cache, options.chunk);
      buffers_[i] = Buffer(count.bytes());
      Parts parts(buffers_[i].data());
      caches_[i].log_sum_exp = state_in(parts, *mixer, options.cache, options.chunk);
    }
  clear_states();
}

void Session::clear_states() {
  for (const MixerCache& cache : caches_) {
    const LogSumExpCache& state = cache.log_sum_exp;
    for (const auto& part : {state.sums.span(), state.mass.span(), state.q.span(), state.k.span(), state.v.span()})
      std::fill(part.begin(), part.end(), 0.f);
    std::fill(state.scale.begin(), state.scale.end(), -std::numeric_limits<float>::infinity());
    std::fill(state.filled.begin(), state.filled.end(), 0);
  }
}

In<float, 1> Session::prefill(std::span<const i32> tokens) {
  check(!tokens.empty(), "session: no tokens");
  const i64 count = static_cast<i64>(tokens.size());
  if (count > positions() - position_)
    fail("session: {} tokens after {} exceed its {} positions", count, position_, positions());
  check_tokens(tokens, model().config);  // all of them first: a state does not go back
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
  if (position != 0 && position != position_)
    for (const Layer& layer : model().config.layers)
      if (state_of(layer))
        fail("session: a state of fixed size does not go back from position {} to {}; save and restore it", position_,
             position);
  if (position == 0) clear_states();
  position_ = position;
}

SessionState Session::save() const {
  SessionState state{.position = position_, .capacity = capacity_, .layers = {}};
  for (const Buffer& buffer : buffers_) state.layers.emplace_back(buffer.bytes().begin(), buffer.bytes().end());
  return state;
}

void Session::restore(const SessionState& state) {
  if (state.layers.size() != buffers_.size() || state.position > positions())
    fail("session: a state of {} layers at position {}, expected {} layers and at most {} positions",
         state.layers.size(), state.position, buffers_.size(), positions());
  for (size_t i = 0; i < buffers_.size(); ++i) {
    const Layer& layer = model().config.layers[i];
    const i64 row = attention_of(layer) ? attention_of(layer)->kv_heads * attention_of(layer)->head_dim : 0;
    const i64 expected = row ? 2 * row * state.capacity * size_of(options_.cache) : buffers_[i].size();
    if (static_cast<i64>(state.layers[i].size()) != expected)
      fail("session: a state of {} bytes in layer {}, expected {}", state.layers[i].size(), i, expected);
  }
  capacity_ = position_ = 0;
  for (size_t i = 0; i < buffers_.size(); ++i) {
    if (const SoftmaxAttention* attention = attention_of(model().config.layers[i])) {
      buffers_[i] = Buffer(static_cast<i64>(state.layers[i].size()));
      caches_[i].attention = cache_in(buffers_[i], options_.cache, *attention, state.capacity);
    }
    std::copy(state.layers[i].begin(), state.layers[i].end(), buffers_[i].bytes().begin());
  }
  capacity_ = state.capacity, position_ = state.position;
}

void Session::merge(const SessionState& other) {
  for (const Layer& layer : model().config.layers) {
    const LogSumExpAttention* mixer = state_of(layer);
    if (has_attention(layer) && (!mixer || mixer->decay || mixer->convolution || mixer->window))
      fail("session: only states of log-sum-exp attention without decay, convolution or window are merged");
  }
  if (other.position > positions() - position_)
    fail("session: {} tokens after {} exceed its {} positions", other.position, position_, positions());
  Session second(model(), transformer_.backend(), options_);
  second.restore(other);
  for (size_t i = 0; i < caches_.size(); ++i)
    if (state_of(model().config.layers[i])) merge_states(second.caches_[i].log_sum_exp, caches_[i].log_sum_exp);
  position_ += other.position;
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
      copy_heads(caches_[i].attention.keys, cache.keys, heads, position_);
      copy_heads(caches_[i].attention.values, cache.values, heads, position_);
    }
    buffers_[i] = std::move(buffer);
    caches_[i].attention = cache;
  }
  capacity_ = capacity;
}

}  // namespace sparsam
