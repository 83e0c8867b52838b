#include "measure/firings.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/threads.h"
#include "measure/windows.h"

namespace sparsam {

namespace {

void keep_strongest(std::vector<Firing>& firings, i64 count) {
  const auto end = firings.begin() + std::min(count, static_cast<i64>(firings.size()));
  std::partial_sort(firings.begin(), end, firings.end(), [](const Firing& a, const Firing& b) {
    return a.strength != b.strength ? a.strength > b.strength : a.index < b.index;
  });
  firings.erase(end, firings.end());
}

// Mean over the new neurons of the greatest |cosine| of their columns of h (N, P) with an old one's.
double overlap_of(In<float, 2> h, i64 old, Backend& backend, Arena& arena) {
  const i64 N = h.shape(0), P = h.shape(1);
  const auto unit = arena.allocate<float>(P, N);  // columns of h as rows of length 1
  parallel_ranges(P, 16, [&](int, i64 begin, i64 end) {
    for (i64 p = begin; p < end; ++p) {
      double squares = 0;
      for (i64 n = 0; n < N; ++n) squares += double{h(n, p)} * h(n, p);
      const float scale = squares > 0 ? static_cast<float>(1 / std::sqrt(squares)) : 0;
      for (i64 n = 0; n < N; ++n) unit(p, n) = scale * h(n, p);
    }
  });
  const auto cosines = arena.allocate<float>(P - old, old);
  backend.run(
      Matmul{.y = cosines, .x = unit.slice(old, P - old), .w = as_matrix(unit.slice(0, old)), .compute = Compute::f32});
  double sum = 0;
  for (i64 p = 0; p < P - old; ++p) {
    float greatest = 0;
    for (const float cosine : cosines[p]) greatest = std::max(greatest, std::abs(cosine));
    sum += static_cast<double>(greatest);
  }
  return sum / static_cast<double>(P - old);
}

class SiteCounter {
 public:
  SiteCounter(const Model& model, NeuronSite site, const FiringOptions& options, std::vector<FollowedNeuron>& followed)
      : options_(options), followed_(followed) {
    result_.site = site;
    if (const ParameterTokens* tokens = tokens_at(model.config, site)) old_ = tokens->old;
    const Matrix& outputs = outputs_at(model.weights, model.config, site);
    lengths_.resize(static_cast<size_t>(outputs.cols));
    column_norms(outputs, {lengths_.data(), {outputs.cols}});
    result_.strength.resize(lengths_.size());
  }

  void add(In<float, 2> h, i64 position, Backend& backend, Arena& arena) {
    const i64 N = h.shape(0), P = h.shape(1);
    const size_t before = result_.top.size();
    result_.top.resize(before + static_cast<size_t>(N));
    parallel_ranges(N, 4, [&](int, i64 begin, i64 end) {
      std::vector<Firing> all(lengths_.size());
      for (i64 n = begin; n < end; ++n) {
        all.resize(lengths_.size());
        for (i64 p = 0; p < P; ++p) all[static_cast<size_t>(p)] = firing(h, n, p);
        keep_strongest(all, options_.top);
        result_.top[before + static_cast<size_t>(n)] = all;
      }
    });
    parallel_ranges(P, 64, [&](int, i64 begin, i64 end) {
      for (i64 n = 0; n < N; ++n)
        for (i64 p = begin; p < end; ++p)
          result_.strength[static_cast<size_t>(p)] += static_cast<double>(firing(h, n, p).strength);
    });
    for (FollowedNeuron& followed : followed_) {
      if (followed.site != result_.site) continue;
      for (i64 n = 0; n < N; ++n) {
        followed.contexts.push_back(firing(h, n, followed.index));
        followed.contexts.back().index = position + n;
      }
      keep_strongest(followed.contexts, options_.contexts);
    }
    if (old_ > 0 && position == 0) result_.overlap = overlap_of(h, old_, backend, arena);
  }

  SiteFirings finish() {
    double all = 0, fresh = 0;
    for (size_t p = 0; p < lengths_.size(); ++p) {
      all += result_.strength[p];
      if (old_ > 0 && static_cast<i64>(p) >= old_) fresh += result_.strength[p];
      result_.strength[p] /= static_cast<double>(result_.top.size());
    }
    result_.new_strength = all > 0 ? fresh / all : 0;
    double top = 0, top_fresh = 0;
    for (const auto& position : result_.top)
      for (const Firing& f : position) ++top, top_fresh += old_ > 0 && f.index >= old_;
    result_.new_top = top > 0 ? top_fresh / top : 0;
    return std::move(result_);
  }

 private:
  Firing firing(In<float, 2> h, i64 n, i64 p) const {
    return {p, h(n, p), std::abs(h(n, p)) * lengths_[static_cast<size_t>(p)]};
  }

  const FiringOptions& options_;
  std::vector<FollowedNeuron>& followed_;
  std::vector<float> lengths_;
  i64 old_ = 0;
  SiteFirings result_;
};

}  // namespace

Firings measure_firings(const Transformer& model, std::span<const i32> tokens, const FiringOptions& options,
                        const std::function<void(double)>& progress) {
  const Config& config = model.model().config;
  const auto sites = neuron_sites(config);
  if (sites.empty()) fail("the model has no parameter tokens and no neurons that could fire");
  if (tokens.empty()) fail("no tokens of text, expected 1 or more");
  Firings result{static_cast<i64>(tokens.size()), {}, options.follow};
  for (const FollowedNeuron& followed : result.followed)
    if (const i64 there = neurons_at(config, followed.site); followed.index < 0 || followed.index >= there)
      fail_usage("{}.{} is not there: {} has 0 to {}", name_of(followed.site), followed.index, name_of(followed.site),
                 there - 1);
  std::vector<SiteCounter> counters;
  for (const NeuronSite site : sites) counters.emplace_back(model.model(), site, options, result.followed);
  Arena arena;
  Activations kept;
  constexpr i64 batch_tokens = 1024;  // the activations of all layers are kept
  for_each_batch(
      tokens, resolve_context(options.context, config), batch_tokens,
      [&](const Tokens& batch) {
        arena.reset();
        model.forward(batch, arena, &kept);
        for (size_t i = 0; i < sites.size(); ++i) {
          const Arena::Mark mark = arena.mark();
          counters[i].add(neurons_of(model, kept, sites[i], arena), batch.ids.data() - tokens.data(), model.backend(),
                          arena);
          arena.release(mark);
        }
      },
      progress);
  for (SiteCounter& counter : counters) result.sites.push_back(counter.finish());
  return result;
}

}  // namespace sparsam
