#include "measure/samples.h"

#include <algorithm>

#include "text/token_file.h"

namespace sparsam {

Tokens Batch::tokens() const {
  return {.ids = {ids.data(), {static_cast<i64>(ids.size())}},
          .sequences = sequences,
          .lengths = lengths.empty() ? In<i32, 1>{} : In<i32, 1>{lengths.data(), {sequences}}};
}

Batch read_batch(const SampleSource& source, i64 first, i64 count, i64 longest, bool classifies) {
  Batch batch;
  batch.sequences = count;
  const size_t T = static_cast<size_t>(longest);
  std::vector<i32> ids(static_cast<size_t>(count) * T), targets(classifies ? static_cast<size_t>(count) : ids.size());
  for (i64 b = 0; b < count; ++b) {
    const size_t row = static_cast<size_t>(b) * T;
    const auto wanted =
        classifies ? std::span(targets).subspan(static_cast<size_t>(b), 1) : std::span(targets).subspan(row, T);
    const i64 length = source(first + b, std::span(ids).subspan(row, T), wanted);
    check(length >= 1 && length <= longest, "a sample of {} tokens, expected 1 to {}", length, longest);
    batch.lengths.push_back(static_cast<i32>(length));
    batch.real_tokens += length;
  }
  constexpr i64 step = 16;
  const i64 most = *std::max_element(batch.lengths.begin(), batch.lengths.end());
  const i64 length = std::min(longest, (most + step - 1) / step * step);
  const auto pack = [&](const std::vector<i32>& rows, std::vector<i32>& to, i32 padding) {
    for (i64 b = 0; b < count; ++b) {
      const i64 real = batch.lengths[static_cast<size_t>(b)];
      to.insert(to.end(), rows.begin() + b * longest, rows.begin() + b * longest + real);
      to.insert(to.end(), static_cast<size_t>(length - real), padding);
    }
  };
  pack(ids, batch.ids, 0);
  if (classifies)
    batch.targets = std::move(targets);
  else
    pack(targets, batch.targets, -1);
  batch.predictions = std::count_if(batch.targets.begin(), batch.targets.end(), [](i32 id) { return id >= 0; });
  if (batch.real_tokens == count * length) batch.lengths.clear();
  return batch;
}

SampleSet next_tokens(const TokenFile& tokens, i64 length, i64 most) {
  const i64 available = std::max<i64>(0, tokens.size() - 1);  // the last token is a target only
  const i64 total = most > 0 ? std::min(most, available) : available;
  return {[&tokens, length, total](i64 sample, std::span<i32> ids, std::span<i32> targets) {
            const i64 begin = sample * length, size = std::min(length, total - begin);
            tokens.copy(begin, size, ids.data());
            tokens.copy(begin + 1, size, targets.data());
            return size;
          },
          (total + length - 1) / length};
}

void for_each_batch(const Transformer& model, const SampleSet& samples, i64 sequences, i64 longest,
                    const ConsumeBatch& consume, Arena& arena, Activations* kept) {
  const bool classifies = !model.model().config.labels.empty();
  for (i64 first = 0; first < samples.count; first += sequences) {
    const Batch batch =
        read_batch(samples.read, first, std::min(sequences, samples.count - first), longest, classifies);
    const Arena::Mark mark = arena.mark();
    const Tokens tokens = batch.tokens();
    const Out<float, 2> rows = model.head_input(tokens, model.forward(tokens, arena, kept), arena);
    consume(first, batch, rows, model.losses(rows, batch.wanted(), arena), arena);
    arena.release(mark);
  }
}

}  // namespace sparsam
