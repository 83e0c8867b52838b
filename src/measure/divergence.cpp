#include "measure/divergence.h"

#include <algorithm>
#include <cmath>

#include "base/clock.h"
#include "base/threads.h"

namespace sparsam {

namespace {

double log_sum_exp(In<float, 1> logits, double greatest) {
  double sum = 0;
  for (const float z : logits) sum += std::exp(static_cast<double>(z) - greatest);
  return greatest + std::log(sum);
}

// Rows of logits that exist at once: about 16 MB a model.
i64 rows_at_once(i64 vocab) { return std::clamp<i64>((i64{4} << 20) / vocab, 1, 1024); }

}  // namespace

RowDivergence compare_rows(In<float, 1> p, In<float, 1> q, i32 target) {
  const float* top_p = std::max_element(p.begin(), p.end());
  const float* top_q = std::max_element(q.begin(), q.end());
  const double log_zp = log_sum_exp(p, *top_p), log_zq = log_sum_exp(q, *top_q);
  RowDivergence row;
  for (i64 v = 0; v < p.size(); ++v) {
    const double log_p = static_cast<double>(p[v]) - log_zp, log_q = static_cast<double>(q[v]) - log_zq;
    row.kl += std::exp(log_p) * (log_p - log_q);
  }
  row.base_nats = log_zp - static_cast<double>(p[target]);
  row.other_nats = log_zq - static_cast<double>(q[target]);
  row.same_top = top_p - p.begin() == top_q - q.begin();
  return row;
}

namespace {

void add_window(std::span<const In<float, 2>> hidden, In<i32, 1> targets, const Transformer& base,
                const Transformer& other, const std::string& name, Arena& arena, Divergences& sums) {
  Cluster kl, same_top, base_nats, other_nats;
  kl.count = same_top.count = base_nats.count = other_nats.count = targets.size();
  const i64 chunk = rows_at_once(base.model().config.vocab);
  for (i64 begin = 0; begin < targets.size(); begin += chunk) {
    const i64 rows = std::min(chunk, targets.size() - begin);
    const Arena::Mark mark = arena.mark();
    const In<float, 2> p = base.logits(hidden[0].slice(begin, rows), arena);
    const In<float, 2> q = other.logits(hidden[1].slice(begin, rows), arena);
    std::vector<RowDivergence> result(static_cast<size_t>(rows));
    parallel_ranges(rows, 1, [&](int, i64 first, i64 last) {
      for (i64 i = first; i < last; ++i) result[static_cast<size_t>(i)] = compare_rows(p[i], q[i], targets[begin + i]);
    });
    for (const RowDivergence& row : result) {
      if (!std::isfinite(row.kl + row.base_nats + row.other_nats))
        fail("{}: the divergence of a token is {}, its losses {} and {}; expected finite numbers", name, row.kl,
             row.base_nats, row.other_nats);
      kl.sum += row.kl, same_top.sum += row.same_top;
      base_nats.sum += row.base_nats, other_nats.sum += row.other_nats;
      sums.each_kl.push_back(static_cast<float>(row.kl));
    }
    arena.release(mark);
  }
  sums.kl.push_back(kl), sums.same_top.push_back(same_top);
  sums.base.nats.push_back(base_nats), sums.other.nats.push_back(other_nats);
}

}  // namespace

void Divergences::add(const Divergences& text) {
  kl.insert(kl.end(), text.kl.begin(), text.kl.end());
  same_top.insert(same_top.end(), text.same_top.begin(), text.same_top.end());
  each_kl.insert(each_kl.end(), text.each_kl.begin(), text.each_kl.end());
  base.add(text.base), other.add(text.other);
}

Divergence summarize(const Divergences& sums) {
  Divergence result;
  result.seconds = sums.base.seconds;
  result.base = summarize(sums.base), result.other = summarize(sums.other);
  result.tokens = result.base.tokens;
  result.kl = clustered_mean(sums.kl), result.top1_agreement = clustered_mean(sums.same_top);
  std::vector<float> each = sums.each_kl;
  result.kl_median = quantile(each, 0.5), result.kl_90 = quantile(each, 0.9);
  result.kl_99 = quantile(each, 0.99), result.kl_max = quantile(each, 1);
  return result;
}

Divergences measure_divergence(const Transformer& base, const Transformer& other, const Tokenizer& tokenizer,
                               const TokenText& text, const WindowOptions& resolved,
                               const std::function<void(double)>& progress) {
  if (base.model().config.vocab != other.model().config.vocab)
    fail("divergence: the base has a vocabulary of {} tokens, the other model of {}; expected the same",
         base.model().config.vocab, other.model().config.vocab);
  const Stopwatch clock;
  const Transformer* models[] = {&base, &other};
  Divergences sums;
  for_each_window(
      models, cut(text, resolved), resolved.batch_tokens,
      [&](i64, std::span<const In<float, 2>> hidden, In<i32, 1> targets, Arena& arena) {
        add_window(hidden, targets, base, other, text.name, arena, sums);
        for (const i32 target : targets) sums.base.bytes += static_cast<i64>(tokenizer.bytes_of(target).size());
      },
      progress);
  sums.other.bytes = sums.base.bytes;
  sums.base.seconds = sums.other.seconds = clock.seconds();
  return sums;
}

}  // namespace sparsam
