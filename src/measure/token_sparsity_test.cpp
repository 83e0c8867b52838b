// Sparsity, scores and firings of parameter tokens against PyTorch (tools/write_token_sparsity_goldens.py) and against
// what is known of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/files.h"
#include "base/test_support.h"
#include "infer/test_support.h"
#include "measure/firings.h"
#include "measure/sparsity_search.h"

namespace sparsam {
namespace {

using testing::HasSubstr;

class TokenSparsity : public testing::TestWithParam<const char*> {
 protected:
  static Json read(const fs::path& directory) {
    const std::string path = (directory / "sparsity.json").string();
    return parse_json(read_text(path), path);
  }
  // Mean loss of every token after the first of each sequence.
  double loss(const Transformer& model) const {
    Arena arena;
    const auto hidden = model.forward({{inputs_.data(), {static_cast<i64>(inputs_.size())}}, sequences_}, arena);
    double sum = 0;
    for (const float l : model.losses(hidden, {targets_.data(), {static_cast<i64>(targets_.size())}}, arena)) sum += l;
    return sum / static_cast<double>(targets_.size());
  }

  void SetUp() override {
    for (const Json& sequence : golden_["tokens"])
      for (size_t t = 0; t + 1 < sequence.size(); ++t)
        inputs_.push_back(sequence[t].get<i32>()), targets_.push_back(sequence[t + 1].get<i32>());
    sequences_ = static_cast<i64>(golden_["tokens"].size());
    length_ = static_cast<i64>(inputs_.size()) / sequences_;
  }

  const fs::path directory_ = fs::path(SPARSAM_TEST_DATA) / "golden" / GetParam();
  const Model model_ = load_model(directory_);
  const Json golden_ = read(directory_);
  std::unique_ptr<Backend> backend_ = make_backend("cpu");
  std::vector<i32> inputs_, targets_;
  i64 sequences_ = 0, length_ = 0;
};

TEST_P(TokenSparsity, CurvesAreTorchs) {
  const Transformer transformer(model_, *backend_, Compute::f32, length_);
  ProfileOptions options{.context = length_, .tokens = 0, .at = {}};
  for (const Json& site : golden_["sites"]) options.at.push_back(site["thresholds"].get<std::vector<float>>());
  const ActivationProfile profile = profile_activations(transformer, inputs_, options);
  ASSERT_EQ(profile.layers.size(), options.at.size());
  for (size_t i = 0; i < profile.layers.size(); ++i) {
    const LayerCurve& curve = profile.layers[i];
    SCOPED_TRACE(name_of(NeuronSite{curve.layer, curve.place}));
    EXPECT_EQ(curve.exact_zeros, 0);
    for (size_t k = 0; k < curve.cett.size(); ++k) {
      EXPECT_NEAR(curve.cett[k], golden_["sites"][i]["cett"][k].get<double>(), 1e-5);
      EXPECT_NEAR(curve.sparsity[k], golden_["sites"][i]["sparsity"][k].get<double>(), 1e-6);
    }
  }
}

TEST_P(TokenSparsity, LossWithoutThemIsTorchs) {
  const SparsitySearch search(model_, *backend_, Compute::f32, length_, [&](const Transformer& m) { return loss(m); });
  EXPECT_NEAR(std::log(search.dense_perplexity()), golden_["loss"].get<double>(), 1e-5);
  std::vector<Truncation> sites;
  for (const Json& site : golden_["sites"])
    sites.push_back(
        {.measure = Truncation::Measure::output, .threshold = site["thresholds"][1].get<float>(), .keep = 0});
  const SparsityPoint point = search.measure(sites);
  EXPECT_NEAR(std::log(point.perplexity), golden_["loss_at_second_threshold"].get<double>(), 1e-5);
  // Where all that came before is whole, as much is left out as in the dense pass.
  EXPECT_NEAR(point.site_sparsity[0], golden_["sites"][0]["sparsity"][1].get<double>(), 1e-6);
  EXPECT_NEAR(point.sparsity, 0.5, 0.05);
}

TEST_P(TokenSparsity, ScoresAndSharesAreTorchs) {
  const Transformer transformer(model_, *backend_, Compute::f32, length_);
  const auto contributions =
      measure_contributions(transformer, inputs_, {.context = length_, .tokens = 0, .score = Score::mean_square});
  ASSERT_EQ(contributions.size(), golden_["sites"].size());
  for (size_t i = 0; i < contributions.size(); ++i) {
    SCOPED_TRACE(name_of(contributions[i].site));
    const Json& expected = golden_["sites"][i];
    ASSERT_EQ(contributions[i].scores.size(), expected["scores"].size());
    double shares = 0;
    for (size_t p = 0; p < contributions[i].scores.size(); ++p) {
      EXPECT_NEAR(contributions[i].scores[p] / expected["scores"][p].get<double>(), 1, 1e-4);
      EXPECT_NEAR(contributions[i].shares[p], expected["shares"][p].get<double>(), 1e-6);
      shares += contributions[i].shares[p];
    }
    EXPECT_NEAR(shares, 1, 1e-5);
  }
}

TEST_P(TokenSparsity, FiringsAddUpToScores) {
  const Transformer transformer(model_, *backend_, Compute::f32, length_);
  FiringOptions options{.context = length_, .top = 14, .contexts = 3, .follow = {{{1, SitePlace::v}, 5}}};
  const Firings firings = measure_firings(transformer, inputs_, options);
  const auto sites = neuron_sites(model_.config);
  ASSERT_EQ(firings.sites.size(), sites.size());
  const auto peaks = measure_contributions(transformer, inputs_, {.context = length_, .tokens = 0});
  for (size_t i = 0; i < sites.size(); ++i) {
    const SiteFirings& site = firings.sites[i];
    if (site.site.place == SitePlace::mlp) continue;
    SCOPED_TRACE(name_of(site.site));
    std::vector<double> sums(site.strength.size()), greatest(sums.size());  // top is all of them
    ASSERT_EQ(site.top.size(), inputs_.size());
    for (const auto& position : site.top) {
      ASSERT_EQ(position.size(), sums.size());
      for (size_t r = 0; r < position.size(); ++r) {
        const size_t index = static_cast<size_t>(position[r].index);
        sums[index] += position[r].strength;
        greatest[index] = std::max(greatest[index], static_cast<double>(position[r].strength));
        EXPECT_LE(position[r].strength, position[r > 0 ? r - 1 : 0].strength);
      }
    }
    const auto& scores = peaks[i].scores;
    for (size_t p = 0; p < sums.size(); ++p) {
      EXPECT_NEAR(scores[p] / scores[0] / std::pow(greatest[p] / greatest[0], 2), 1, 1e-5);
      EXPECT_NEAR(sums[p] / static_cast<double>(inputs_.size()), site.strength[p], 1e-6);
    }
  }
  // What is followed is found again in the lists of its site.
  const auto& followed = firings.followed.front();
  const auto& top =
      firings.sites[static_cast<size_t>(std::find(sites.begin(), sites.end(), followed.site) - sites.begin())].top;
  ASSERT_EQ(followed.contexts.size(), 3u);
  for (const auto& position : top)
    for (const Firing& f : position) {
      if (f.index != 5) continue;
      const i64 at = &position - top.data();
      const bool listed = std::any_of(followed.contexts.begin(), followed.contexts.end(),
                                      [&](const Firing& c) { return c.index == at && c.score == f.score; });
      EXPECT_EQ(listed, f.strength >= followed.contexts.back().strength);
    }
}

INSTANTIATE_TEST_SUITE_P(Cases, TokenSparsity,
                         testing::Values("tokenformer_l2_norm_gelu", "tokenformer_gelu_l2_norm",
                                         "tokenformer_softmax"));

TEST(Firings, NewTokensThatRepeatOldOnesOverlapWhole) {
  Architecture a = preset("tokenformer-nano");
  a.vocab = 300, a.layers = 1, a.dim = 24, a.attention_tokens = 8, a.mlp_tokens = 16;
  TinyModel tiny = tiny_model(a);
  auto& w = tiny.flat->views.layers[0].mlp.tokens;
  for (i64 p = 12; p < 16; ++p)
    for (i64 c = 0; c < 24; ++c) w.keys(p, c) = 2 * w.keys(p - 12, c), w.values(c, p) = 0;
  std::get<ParameterTokens>(tiny.model.config.layers[0].mlp).old = 12;
  const auto backend = make_backend("cpu");
  const Transformer transformer(tiny.model, *backend, Compute::f32, 32);
  const auto ids = random_ids(32, 300, 1);
  Firings firings = measure_firings(transformer, ids, {.follow = {}});
  // Scores twice as large are not the same function of the input, gelu not being linear, but nearly.
  EXPECT_GT(firings.sites[4].overlap, 0.9);
  EXPECT_LT(firings.sites[4].overlap, 1);
  EXPECT_EQ(firings.sites[4].new_strength, 0);  // their values are 0
  EXPECT_EQ(firings.sites[0].overlap, 0);       // not grown
  for (i64 p = 12; p < 16; ++p)
    for (i64 c = 0; c < 24; ++c) w.keys(p, c) = w.keys(p - 12, c), w.values(c, p) = w.values(c, p - 12);
  firings = measure_firings(transformer, ids, {.follow = {}});
  EXPECT_NEAR(firings.sites[4].overlap, 1, 1e-5);
  EXPECT_GT(firings.sites[4].new_strength, 0.1);
  EXPECT_THAT(error_of([&] {
                measure_firings(transformer, ids, {.follow = {{{0, SitePlace::q}, 8}}});
              }),
              HasSubstr("0.q.8 is not there: 0.q has 0 to 7"));
  EXPECT_THAT(error_of([&] { measure_firings(transformer, {}, {.follow = {}}); }), HasSubstr("no tokens"));
}

}  // namespace
}  // namespace sparsam
