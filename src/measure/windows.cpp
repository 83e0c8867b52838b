#include "measure/windows.h"

#include <algorithm>
#include <unordered_set>

namespace sparsam {

std::vector<std::string> protocol_names() { return {"llama.cpp", "stride"}; }

Protocol protocol_from_name(std::string_view name) {
  const auto names = protocol_names();
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) fail_unknown("protocol", name, names, "--protocol", Exit::usage);
  return static_cast<Protocol>(found - names.begin());
}

WindowOptions resolve(const WindowOptions& options, const Config& config) {
  constexpr i64 most_default = 2048, least = 2;
  WindowOptions resolved = options;
  if (resolved.context == 0) resolved.context = std::max(least, std::min(config.context, most_default));
  if (resolved.context < least) fail_usage("--context is {}, expected {} or more", resolved.context, least);
  if (config.positions == Positions::learned && resolved.context > config.context)
    fail_usage("--context is {}, but the model has {} learned positions", resolved.context, config.context);
  if (resolved.stride == 0) resolved.stride = resolved.context / 2;
  if (resolved.stride < 1 || resolved.stride >= resolved.context)
    fail_usage("--stride is {}, expected 1 to {}: less than the context", resolved.stride, resolved.context - 1);
  return resolved;
}

std::string describe(const WindowOptions& o) {
  if (o.protocol == Protocol::llama_cpp)
    return fmt::format("llama.cpp: windows of {} tokens side by side, second half scored", o.context);
  return fmt::format("stride: windows of {} tokens moved by {}, each token scored once", o.context, o.stride);
}

WindowedText cut(const TokenText& text, const WindowOptions& o) {
  WindowedText result;
  if (text.beginning) result.tokens.push_back(*text.beginning);
  result.tokens.insert(result.tokens.end(), text.tokens.begin(), text.tokens.end());
  const i64 count = static_cast<i64>(result.tokens.size());
  if (o.protocol == Protocol::llama_cpp) {
    if (o.context < 4) fail_usage("--context is {}, expected 4 or more with --protocol llama.cpp", o.context);
    if (count < o.context)
      fail("{}: {} tokens do not fill one window of {}: give more text, a smaller --context, or --protocol stride",
           text.name, count, o.context);
    for (i64 begin = 0; begin + o.context <= count; begin += o.context)
      result.windows.push_back({begin, o.context, o.context / 2 + 1});
    result.restart = text.beginning.has_value();
    return result;
  }
  if (count < 2) fail("{}: {} tokens, nothing to score: expected 2 or more", text.name, count);
  i64 scored_to = 1;  // the first token has no context
  for (i64 begin = 0; scored_to < count; begin += o.stride) {
    const i64 end = std::min(begin + o.context, count);
    result.windows.push_back({begin, end - begin, scored_to - begin});
    scored_to = end;
  }
  return result;
}

namespace {

// How many windows from `first` on are as long as it, up to the batch's size.
i64 batch_at(const std::vector<Window>& windows, size_t first, i64 batch_tokens) {
  const i64 most = std::max<i64>(1, batch_tokens / windows[first].length);
  i64 size = 1;
  while (size < most && first + static_cast<size_t>(size) < windows.size() &&
         windows[first + static_cast<size_t>(size)].length == windows[first].length)
    ++size;
  return size;
}

}  // namespace

void for_each_window(std::span<const Transformer* const> models, const WindowedText& text, i64 batch_tokens,
                     const ConsumeWindow& consume, const std::function<void(double)>& progress) {
  Arena arena;
  std::vector<i32> ids;
  std::vector<Out<float, 2>> states(models.size());
  std::vector<In<float, 2>> hidden(models.size());
  for (size_t first = 0; first < text.windows.size();) {
    const i64 size = batch_at(text.windows, first, batch_tokens), length = text.windows[first].length;
    ids.clear();
    for (size_t w = first; w < first + static_cast<size_t>(size); ++w) {
      const auto begin = text.tokens.begin() + text.windows[w].begin;
      ids.insert(ids.end(), begin, begin + length);
      if (text.restart) ids[ids.size() - static_cast<size_t>(length)] = text.tokens.front();
    }
    arena.reset();
    const Tokens batch{.ids = {ids.data(), {static_cast<i64>(ids.size())}}, .sequences = size, .start = 0};
    for (size_t m = 0; m < models.size(); ++m) states[m] = models[m]->forward(batch, arena);
    for (i64 w = 0; w < size; ++w) {
      const Window& window = text.windows[first + static_cast<size_t>(w)];
      // A hidden state predicts the token after it.
      const i64 row = w * length + window.first_scored - 1;
      for (size_t m = 0; m < models.size(); ++m) hidden[m] = states[m].slice(row, window.scored());
      const Arena::Mark mark = arena.mark();
      consume(static_cast<i64>(first) + w, hidden, {ids.data() + row + 1, {window.scored()}}, arena);
      arena.release(mark);
    }
    first += static_cast<size_t>(size);
    if (progress) progress(static_cast<double>(first) / static_cast<double>(text.windows.size()));
  }
}

void for_each_batch(std::span<const i32> tokens, i64 context, i64 batch_tokens,
                    const std::function<void(const Tokens&)>& batch, const std::function<void(double)>& progress) {
  const i64 size = static_cast<i64>(tokens.size());
  for (i64 begin = 0; begin < size;) {
    const i64 length = std::min(context, size - begin);
    const i64 sequences = std::min(std::max<i64>(1, batch_tokens / length), (size - begin) / length);
    batch({.ids = {tokens.data() + begin, {sequences * length}}, .sequences = sequences, .start = 0});
    begin += sequences * length;
    if (progress) progress(static_cast<double>(begin) / static_cast<double>(size));
  }
}

i64 resolve_context(i64 context, const Config& config) {
  constexpr i64 most_default = 2048;
  if (context == 0) context = std::min(config.context, most_default);
  if (context < 1) fail_usage("--context is {}, expected 1 or more", context);
  if (config.positions == Positions::learned && context > config.context)
    fail_usage("--context is {}, but the model has {} learned positions", context, config.context);
  return context;
}

double overlap(std::span<const i32> text, std::span<const i32> other) {
  constexpr size_t run = 32;
  constexpr u64 factor = 0x9e3779b97f4a7c15;
  if (text.size() < run || other.size() < run) return 0;
  u64 leaving = 1;  // what the oldest token of a run has been multiplied by
  for (size_t i = 1; i < run; ++i) leaving *= factor;
  // Calls f(hash) for the run that begins at each token (polynomial hashes, rolled on).
  const auto for_each_run = [&](std::span<const i32> tokens, auto&& f) {
    u64 hash = 0;
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (i >= run) hash -= leaving * static_cast<u64>(tokens[i - run] + 1);
      hash = hash * factor + static_cast<u64>(tokens[i] + 1);
      if (i + 1 >= run) f(hash);
    }
  };
  std::unordered_set<u64> known;
  for_each_run(other, [&](u64 hash) { known.insert(hash); });
  i64 found = 0, all = 0;
  for_each_run(text, [&](u64 hash) { found += known.count(hash) > 0, ++all; });
  return static_cast<double>(found) / static_cast<double>(all);
}

}  // namespace sparsam
