#include "infer/session.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace sparsam {

namespace {

const SoftmaxAttention* attention_of(const Layer& layer) { return std::get_if<SoftmaxAttention>(&layer.mixer); }
const LogSumExpAttention* state_of(const Layer& layer) { return std::get_if<LogSumExpAttention>(&layer.mixer); }

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

ConvolutionPast past_in(Parts& parts, i64 taps, i64 queries, i64 keys, i64 values) {
  const i64 past = std::max<i64>(taps - 1, 0);
  return {parts.take<float>(1, past, queries), parts.take<float>(1, past, keys), parts.take<float>(1, past, values)};
}

MutableMatrix rows_in(Parts& parts, DType dtype, i64 rows, i64 cols) {
  return {dtype, rows, cols, parts.take<std::byte>(rows * cols * size_of(dtype)).span()};
}

LayerCache cache_in(Parts& parts, const SoftmaxAttention& a, DType dtype, i64 capacity) {
  const i64 H = a.heads, G = a.kv_heads, D = a.head_dim;
  const ConvolutionPast past = past_in(parts, a.convolution, H * D, G * D, G * D);
  const MutableMatrix keys = rows_in(parts, dtype, G * capacity, D);
  return {.keys = keys, .values = rows_in(parts, dtype, G * capacity, D), .past = past};
}
i64 cache_size(const SoftmaxAttention& a, DType dtype, i64 capacity) {
  Parts count(nullptr);
  cache_in(count, a, dtype, capacity);
  return count.bytes();
}

LogSumExpCache state_in(Parts& parts, const LogSumExpAttention& mixer, DType dtype) {
  const i64 H = mixer.heads, G = mixer.kv_heads, E = mixer.head_dim, F = mixer.features(), D = mixer.values_of_head();
  const i64 waiting = mixer.shared_window ? mixer.window : 0;
  LogSumExpCache cache{.sums = parts.take<float>(1, G, F, D),
                       .mass = parts.take<float>(1, G, F),
                       .scale = parts.take<float>(1, G, F),
                       .window = {},
                       .waiting_k = parts.take<float>(1, waiting, G * F),
                       .waiting_v = parts.take<float>(1, waiting, G * D),
                       .waiting_decay = parts.take<float>(1, mixer.decay ? waiting : 0, G * F)};
  cache.window.past = past_in(parts, mixer.convolution, H * E, G * E, G * D);
  cache.window.keys = rows_in(parts, dtype, G * mixer.window, E);
  cache.window.values = rows_in(parts, dtype, G * mixer.window, E);
  return cache;
}

// Of a layer with a window the cache is a ring, which needs no more than that.
i64 capacity_of(const SoftmaxAttention& attention, i64 positions) {
  return attention.window ? std::min(attention.window, positions) : positions;
}

}  // namespace

Session::Session(const Model& model, Backend& backend, const SessionOptions& options)
    : transformer_(model, backend, options.compute, options.positions ? options.positions : model.config.context,
                   options.skip_zeros),
      options_(options),
      buffers_(model.config.layers.size() + (model.config.positions == Positions::recurrent ? 1 : 0)),
      caches_(buffers_.size()) {
  require_language_model(model.config, "session");
  check(options.chunk > 0 && options.first_capacity > 0 && options.positions >= 0, "session: chunk {}, capacity {}",
        options.chunk, options.first_capacity);
  for (size_t i = 0; i < model.config.layers.size(); ++i)
    if (const auto* mixer = state_of(model.config.layers[i])) {
      Parts count(nullptr);
      state_in(count, *mixer, options.cache);
      buffers_[i] = Buffer(count.bytes());
      Parts parts(buffers_[i].data());
      caches_[i].log_sum_exp = state_in(parts, *mixer, options.cache);
    }
  if (model.config.positions == Positions::recurrent) {
    buffers_.back() = Buffer(model.config.dim * static_cast<i64>(sizeof(float)));
    caches_.back().positions = {buffers_.back().as<float>().data(), {1, model.config.dim}};
  }
  clear_states();
}

void Session::clear_states() {
  for (const MixerCache& cache : caches_) {
    const LogSumExpCache& state = cache.log_sum_exp;
    for (const ConvolutionPast& past : {cache.attention.past, state.window.past})
      for (const auto& part : {past.q, past.k, past.v}) std::fill(part.begin(), part.end(), 0.f);
    for (const auto& part : {state.sums.span(), state.mass.span(), state.waiting_v.span(), state.waiting_decay.span(),
                             cache.positions.span()})
      std::fill(part.begin(), part.end(), 0.f);
    for (const auto& part : {state.scale.span(), state.waiting_k.span()})
      std::fill(part.begin(), part.end(), -std::numeric_limits<float>::infinity());
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
  if (position != 0 && position != position_ && !keeps_all(model().config))
    fail("session: memory of fixed size does not go back from position {} to {}; save and restore it", position_,
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
  const auto attention_at = [&](size_t i) {
    return i < model().config.layers.size() ? attention_of(model().config.layers[i]) : nullptr;
  };
  for (size_t i = 0; i < buffers_.size(); ++i) {
    const SoftmaxAttention* a = attention_at(i);
    const i64 expected = !a               ? buffers_[i].size()
                         : state.capacity ? cache_size(*a, options_.cache, capacity_of(*a, state.capacity))
                                          : 0;
    if (static_cast<i64>(state.layers[i].size()) != expected)
      fail("session: a state of {} bytes in layer {}, expected {}", state.layers[i].size(), i, expected);
  }
  capacity_ = position_ = 0;
  for (size_t i = 0; i < buffers_.size(); ++i) {
    if (const SoftmaxAttention* a = attention_at(i)) {
      buffers_[i] = Buffer(static_cast<i64>(state.layers[i].size()));
      Parts parts(buffers_[i].data());
      caches_[i].attention = cache_in(parts, *a, options_.cache, capacity_of(*a, state.capacity));
    }
    std::copy(state.layers[i].begin(), state.layers[i].end(), buffers_[i].bytes().begin());
  }
  capacity_ = state.capacity, position_ = state.position;
}

void Session::merge(const SessionState& other) {
  if (model().config.positions == Positions::recurrent) fail("session: states of recurrent positions are not merged");
  for (const Layer& layer : model().config.layers) {
    const LogSumExpAttention* mixer = state_of(layer);
    if (has_attention(layer) && (!mixer || mixer->decay || mixer->convolution || mixer->window))
      fail("session: only states of log-sum-exp attention without decay, convolution or window are merged");
  }
  if (other.position > positions() - position_)
    fail("session: {} tokens after {} exceed its {} positions", other.position, position_, positions());
  Session second(model(), transformer_.backend(), options_);
  second.restore(other);
  for (size_t i = 0; i < model().config.layers.size(); ++i)
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
  for (size_t i = 0; i < model().config.layers.size(); ++i) {
    const SoftmaxAttention* attention = attention_of(model().config.layers[i]);
    if (!attention) continue;
    const i64 heads = attention->kv_heads, room = capacity_of(*attention, capacity);
    if (capacity_ > 0 && room == capacity_of(*attention, capacity_)) continue;  // a full ring
    Buffer buffer(cache_size(*attention, options_.cache, room));
    Parts parts(buffer.data());
    const LayerCache cache = cache_in(parts, *attention, options_.cache, room), &old = caches_[i].attention;
    for (const auto& [from, to] : {std::pair(old.past.q, cache.past.q), std::pair(old.past.k, cache.past.k),
                                   std::pair(old.past.v, cache.past.v)})
      if (capacity_ > 0)
        std::copy(from.begin(), from.end(), to.begin());
      else
        std::fill(to.begin(), to.end(), 0.f);
    if (position_ > 0) {  // a ring that grows has not come round yet
      copy_heads(old.keys, cache.keys, heads, position_);
      copy_heads(old.values, cache.values, heads, position_);
    }
    buffers_[i] = std::move(buffer);
    caches_[i].attention = cache;
  }
  capacity_ = capacity;
}

}  // namespace sparsam
