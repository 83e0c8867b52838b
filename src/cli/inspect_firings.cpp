#include "cli/inspect_firings.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "base/progress.h"
#include "measure/firings.h"

namespace sparsam {

namespace {

// "3.mlp.17"
FollowedNeuron followed_from(const std::string& name, const Config& config) {
  const size_t dot = name.rfind('.');
  const std::string digits = dot == std::string::npos ? "" : name.substr(dot + 1);
  i64 index = -1;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
  if (digits.empty() || error != std::errc{} || end != digits.data() + digits.size())
    fail_usage("--follow: '{}' is not understood, expected LAYER.PLACE.INDEX as in 3.mlp.17", name);
  return {site_from_name(name.substr(0, dot), config, "--follow"), index};
}

// How many of the strongest make this part of all strength.
i64 needed_for(std::vector<double> strength, double part) {
  std::sort(strength.rbegin(), strength.rend());
  double all = 0, sum = 0;
  for (const double s : strength) all += s;
  i64 count = 0;
  while (sum < part * all && count < static_cast<i64>(strength.size())) sum += strength[static_cast<size_t>(count++)];
  return count;
}

struct Ranked {
  i64 index;
  double share;  // of all strength
  i64 top;       // positions at which it is the strongest
};
std::vector<Ranked> strongest(const SiteFirings& site, i64 count) {
  double all = 0;
  for (const double s : site.strength) all += s;
  std::vector<i64> first(site.strength.size());
  for (const auto& position : site.top)
    if (!position.empty()) ++first[static_cast<size_t>(position[0].index)];
  std::vector<Ranked> ranked;
  for (size_t i = 0; i < site.strength.size(); ++i)
    ranked.push_back({static_cast<i64>(i), all > 0 ? site.strength[i] / all : 0, first[i]});
  std::stable_sort(ranked.begin(), ranked.end(), [](const Ranked& a, const Ranked& b) { return a.share > b.share; });
  ranked.resize(std::min(ranked.size(), static_cast<size_t>(count)));
  return ranked;
}

// The text as pieces, one a token.
class Pieces {
 public:
  Pieces(const Tokenizer& tokenizer, const std::vector<i32>& tokens) : tokenizer_(tokenizer), tokens_(tokens) {}
  std::string piece(i64 at) const { return text(at, at + 1); }
  // Tokens [begin, end) as far as they are there, on one line.
  std::string text(i64 begin, i64 end) const {
    std::string bytes;
    for (i64 t = std::max<i64>(begin, 0); t < std::min(end, static_cast<i64>(tokens_.size())); ++t)
      bytes += tokenizer_.bytes_of(tokens_[static_cast<size_t>(t)]);
    return printable(bytes);
  }

 private:
  const Tokenizer& tokenizer_;
  const std::vector<i32>& tokens_;
};

Json firing_json(const Firing& f) { return Json::array({f.index, f.score, f.strength}); }

Json followed_json(const FollowedNeuron& followed, const Pieces& pieces) {
  Json contexts = Json::array();
  for (const Firing& f : followed.contexts)
    contexts.push_back({{"position", f.index},
                        {"score", f.score},
                        {"strength", f.strength},
                        {"before", pieces.text(f.index - 8, f.index)},
                        {"piece", pieces.piece(f.index)},
                        {"after", pieces.text(f.index + 1, f.index + 5)}});
  return {{"token", fmt::format("{}.{}", name_of(followed.site), followed.index)}, {"contexts", contexts}};
}

Json firings_json(const Firings& firings, const Config& config, const Pieces& pieces, const FiringFlags& flags) {
  Json text = Json::array(), sites = Json::array(), followed = Json::array();
  for (i64 t = 0; t < firings.positions; ++t) text.push_back(pieces.piece(t));
  for (const SiteFirings& site : firings.sites) {
    if (!flags.at.empty() && name_of(site.site) != flags.at) continue;
    Json item{{"site", name_of(site.site)},
              {"tokens", neurons_at(config, site.site)},
              {"half_of_strength", needed_for(site.strength, 0.5)},
              {"nine_tenths_of_strength", needed_for(site.strength, 0.9)},
              {"strongest", Json::array()},
              {"positions", Json::array()}};
    for (const Ranked& r : strongest(site, flags.top))
      item["strongest"].push_back({{"index", r.index}, {"share", r.share}, {"strongest_at", r.top}});
    for (const auto& position : site.top) {
      Json top = Json::array();
      for (const Firing& f : position) top.push_back(firing_json(f));
      item["positions"].push_back(top);
    }
    if (const ParameterTokens* tokens = tokens_at(config, site.site); tokens && tokens->old > 0)
      item["grown"] = {{"old", tokens->old},
                       {"new_strength", site.new_strength},
                       {"new_top", site.new_top},
                       {"overlap", site.overlap}};
    sites.push_back(item);
  }
  for (const FollowedNeuron& f : firings.followed) followed.push_back(followed_json(f, pieces));
  return {
      {"text", text}, {"position_fields", {"index", "score", "strength"}}, {"sites", sites}, {"followed", followed}};
}

void print_sites(const Firings& firings, const Config& config, i64 top) {
  const bool grown = std::any_of(firings.sites.begin(), firings.sites.end(), [&](const SiteFirings& s) {
    const ParameterTokens* tokens = tokens_at(config, s.site);
    return tokens && tokens->old > 0;
  });
  fmt::print("{:>8}  {:>6}  {:>6}  {:>6}  ", "site", "tokens", "half", "90 %");
  if (grown) fmt::print("{:>6}  {:>8}  {:>8}  {:>7}  ", "old", "new", "new top", "overlap");
  fmt::print("strongest: index, share of all strength\n");
  for (const SiteFirings& site : firings.sites) {
    fmt::print("{:>8}  {:>6}  {:>6}  {:>6}  ", name_of(site.site), neurons_at(config, site.site),
               needed_for(site.strength, 0.5), needed_for(site.strength, 0.9));
    const ParameterTokens* tokens = tokens_at(config, site.site);
    if (tokens && tokens->old > 0)
      fmt::print("{:>6}  {:>6.1f} %  {:>6.1f} %  {:>7.3f}  ", tokens->old, 100 * site.new_strength, 100 * site.new_top,
                 site.overlap);
    else if (grown)
      fmt::print("{:>35}  ", "");
    for (const Ranked& r : strongest(site, top)) fmt::print(" {} {:.1f}%", r.index, 100 * r.share);
    fmt::print("\n");
  }
  fmt::print("{} positions; half, 90 %: how many tokens make that part of all |s| |V|\n", firings.positions);
  if (grown)
    fmt::print(
        "new: part of the strength that grown tokens have, and of the strongest at each position;\n"
        "overlap: mean over them of the greatest |cosine| of their scores with an old token's\n");
}

void print_followed(const FollowedNeuron& followed, const Pieces& pieces) {
  fmt::print("\n{}.{} fires most at\n", name_of(followed.site), followed.index);
  for (const Firing& f : followed.contexts)
    fmt::print("{:>8}  {:>9.4f}  {}[{}]{}\n", f.index, f.score, pieces.text(f.index - 8, f.index),
               pieces.piece(f.index), pieces.text(f.index + 1, f.index + 5));
}

void print_positions(const SiteFirings& site, const Pieces& pieces) {
  fmt::print("\nstrongest at each position in {}: index (score)\n", name_of(site.site));
  for (size_t t = 0; t < site.top.size(); ++t) {
    fmt::print("{:>8}  {:<16}", t, pieces.piece(static_cast<i64>(t)));
    for (const Firing& f : site.top[t]) fmt::print("  {} ({:.3f})", f.index, f.score);
    fmt::print("\n");
  }
}

}  // namespace

void add_firing_flags(CLI::App* verb, FiringFlags& flags) {
  verb->add_option("--tokens", flags.file, "which parameter tokens and neurons fire where in this text file");
  verb->add_option("--text", flags.text, "the same for this text")->check([](const std::string& text) {
    return text.empty() ? "is empty" : "";
  });
  verb->add_option("--follow", flags.followed, "where these fire most: LAYER.PLACE.INDEX as in 3.mlp.17")
      ->delimiter(',')
      ->allow_extra_args(false);
  verb->add_option("--at", flags.at, "list the strongest at each position of this site: LAYER.PLACE as in 3.mlp");
  const auto count = [&](const char* name, i64& value, i64 most, const char* what) {
    verb->add_option(name, value, what)->check(in_range(1, most))->capture_default_str();
  };
  count("--top", flags.top, 1024, "how many of the strongest");
  count("--contexts", flags.contexts, 1024, "how many contexts of what is followed");
  count("--most", flags.most, i64{1} << 24, "most tokens of the text to read");
}

Exit inspect_firings(const ModelFlags& model_flags, const FiringFlags& flags, const Common& common) {
  if (!flags.file.empty() && !flags.text.empty())
    fail_usage("inspect: give the text by --tokens or by --text, not both");
  const OpenModel open = open_model(model_flags);
  const Config& config = open.model.config;
  std::vector<i32> tokens =
      flags.file.empty() ? open.tokenizer.encode(flags.text) : load_text(flags.file, open.tokenizer).tokens;
  tokens.resize(std::min(tokens.size(), static_cast<size_t>(flags.most)));
  FiringOptions options{.top = flags.top, .contexts = flags.contexts, .follow = {}};
  if (!flags.at.empty()) site_from_name(flags.at, config, "--at");
  for (const std::string& name : flags.followed) options.follow.push_back(followed_from(name, config));
  const auto backend = make_backend(model_flags.backend);
  const Transformer transformer(open.model, *backend, open.compute, resolve_context(0, config));
  Progress progress("read", common.quiet);
  const Firings firings =
      measure_firings(transformer, tokens, options, [&](double part) { progress.update(part, ""); });
  const Pieces pieces(open.tokenizer, tokens);
  if (common.json) {
    print_json(firings_json(firings, config, pieces, flags));
    return Exit::done;
  }
  print_sites(firings, config, flags.top);
  for (const FollowedNeuron& followed : firings.followed) print_followed(followed, pieces);
  for (const SiteFirings& site : firings.sites)
    if (name_of(site.site) == flags.at) print_positions(site, pieces);
  return Exit::done;
}

}  // namespace sparsam
