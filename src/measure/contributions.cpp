#include "measure/contributions.h"

#include <algorithm>
#include <cmath>

#include "base/threads.h"
#include "measure/windows.h"

namespace sparsam {

namespace {

const TokenActivations& token_activations(const LayerActivations& acts, SitePlace place) {
  switch (place) {
    case SitePlace::q:
      return acts.attention.q_tokens;
    case SitePlace::k:
      return acts.attention.k_tokens;
    case SitePlace::v:
      return acts.attention.v_tokens;
    case SitePlace::o:
      return acts.attention.o_tokens;
    case SitePlace::mlp:
      break;
  }
  return acts.mlp.tokens;
}

// Adds up square(n, i) over the rows n, for each column i; or takes the greatest.
void take_greatest(std::vector<double>& greatest, i64 rows, auto&& square) {
  parallel_ranges(static_cast<i64>(greatest.size()), 64, [&](int, i64 begin, i64 end) {
    for (i64 n = 0; n < rows; ++n)
      for (i64 i = begin; i < end; ++i)
        if (const double value = square(n, i); !(value <= greatest[static_cast<size_t>(i)]))  // NaN stays visible
          greatest[static_cast<size_t>(i)] = value;
  });
}
void add_columns(std::vector<double>& sums, i64 rows, auto&& square) {
  parallel_ranges(static_cast<i64>(sums.size()), 64, [&](int, i64 begin, i64 end) {
    for (i64 n = 0; n < rows; ++n)
      for (i64 i = begin; i < end; ++i) sums[static_cast<size_t>(i)] += square(n, i);
  });
}

void add_shares(std::vector<double>& sums, const ParameterTokens& tokens, const TokenActivations& kept,
                In<float, 2> s) {
  const double tau = static_cast<double>(tokens.tau);
  const auto normed = [&](auto&& value) {  // the square of what is normed over the norm's
    add_columns(sums, s.shape(0), [&](i64 n, i64 i) {
      const double ratio = value(n, i) / std::max(static_cast<double>(kept.norm[n]), 1e-30);
      return ratio * ratio;
    });
  };
  switch (tokens.theta) {
    case Theta::l2_gelu:
      return normed([&](i64 n, i64 i) { return static_cast<double>(kept.a(n, i)); });
    case Theta::gelu_l2:  // s = tau g / N
      return add_columns(sums, s.shape(0), [&](i64 n, i64 i) {
        const double ratio = static_cast<double>(s(n, i)) / tau;
        return ratio * ratio;
      });
    case Theta::softmax:
      return add_columns(sums, s.shape(0), [&](i64 n, i64 i) { return static_cast<double>(s(n, i)) / (tau * tau); });
  }
}

struct SiteSums {
  std::vector<double> squares, shares;  // (P)  squares: the greatest, or their sum
  double answer = 0;                    // sum of |o_t|^2
};

}  // namespace

In<float, 2> neurons_of(const Transformer& model, const Activations& kept, NeuronSite site, Arena& arena) {
  const LayerActivations& acts = kept.layers[static_cast<size_t>(site.layer)];
  const ParameterTokens* tokens = tokens_at(model.model().config, site);
  if (!tokens) return acts.mlp.h;
  const TokenActivations& own = token_activations(acts, site.place);
  const auto s = arena.allocate<float>(own.a.shape(0), own.a.shape(1));
  token_scores(model.backend(), *tokens, own, s);
  const SparseLayer* sparse = model.sparse().of(static_cast<size_t>(site.layer));
  if (sparse && tokens->truncation.active()) {
    const In<float, 1> norms = sparse->tokens[static_cast<size_t>(site.place)].norms;
    leave_out_weak(model.backend(), arena, tokens->truncation, norms, s, s);
  }
  return s;
}

std::vector<Contributions> measure_contributions(const Transformer& model, std::span<const i32> tokens,
                                                 const ContributionOptions& options,
                                                 const std::function<void(double)>& progress) {
  const Config& config = model.model().config;
  const auto sites = neuron_sites(config);
  if (sites.empty()) fail("the model has no neurons and no parameter tokens to score");
  const size_t count =
      options.tokens > 0 ? std::min(static_cast<size_t>(options.tokens), tokens.size()) : tokens.size();
  if (count == 0) fail("no tokens to score neurons on, expected 1 or more");
  std::vector<SiteSums> sums(sites.size());
  for (size_t i = 0; i < sites.size(); ++i) {
    const size_t neurons = static_cast<size_t>(neurons_at(config, sites[i]));
    sums[i].squares.resize(neurons);
    if (tokens_at(config, sites[i])) sums[i].shares.resize(neurons);
  }
  Arena arena;
  Activations kept;
  constexpr i64 batch_tokens = 1024;  // the activations of all layers are kept
  for_each_batch(
      tokens.first(count), resolve_context(options.context, config), batch_tokens,
      [&](const Tokens& batch) {
        arena.reset();
        model.forward(batch, arena, &kept);
        for (size_t i = 0; i < sites.size(); ++i) {
          const Arena::Mark mark = arena.mark();
          const In<float, 2> h = neurons_of(model, kept, sites[i], arena);
          const Matrix& outputs = outputs_at(model.model().weights, config, sites[i]);
          const auto square = [&](i64 n, i64 p) { return double{h(n, p)} * h(n, p); };
          if (options.score == Score::peak)
            take_greatest(sums[i].squares, h.shape(0), square);
          else
            add_columns(sums[i].squares, h.shape(0), square);
          if (const ParameterTokens* own = tokens_at(config, sites[i]))
            add_shares(sums[i].shares, *own,
                       token_activations(kept.layers[static_cast<size_t>(sites[i].layer)], sites[i].place), h);
          const auto o = arena.allocate<float>(h.shape(0), outputs.rows);
          model.backend().run(Matmul{.y = o, .x = h, .w = outputs, .compute = Compute::f32});
          for (const float value : o) sums[i].answer += double{value} * value;
          arena.release(mark);
        }
      },
      progress);

  std::vector<Contributions> result;
  for (size_t i = 0; i < sites.size(); ++i) {
    const Matrix& outputs = outputs_at(model.model().weights, config, sites[i]);
    std::vector<float> lengths(static_cast<size_t>(outputs.cols));
    column_norms(outputs, {lengths.data(), {outputs.cols}});
    Contributions& c = result.emplace_back(Contributions{sites[i], std::move(sums[i].squares), {}});
    c.shares = std::move(sums[i].shares);
    const double rows = options.score == Score::peak ? static_cast<double>(count) : 1;  // |o|^2 was summed
    for (size_t p = 0; p < c.scores.size(); ++p) {
      c.scores[p] *= rows * double{lengths[p]} * lengths[p] / std::max(sums[i].answer, 1e-300);
      if (!std::isfinite(c.scores[p]))
        fail("{}: neuron {} scores {}, expected a finite number", name_of(c.site), p, c.scores[p]);
    }
    for (double& share : c.shares) share /= static_cast<double>(count);
  }
  return result;
}

}  // namespace sparsam
