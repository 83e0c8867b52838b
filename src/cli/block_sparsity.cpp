// sparsam sparsity --key-blocks: how many blocks of parameter tokens decoding has to read, and at what perplexity.
#include "base/progress.h"
#include "cli/sparsity.h"
#include "levers/sort_tokens.h"
#include "model/key_blocks.h"
#include "model/neuron_sites.h"

namespace sparsam {

namespace {

struct BlockPoint {
  double asked = 0;  // percent: of the blocks, or of the rise of the perplexity
  double fraction = 0;
  double perplexity = 0;
  Config config;
};

struct BlockReport {
  double dense_perplexity = 0;
  i64 tokens = 0;
  std::vector<BlockPoint> points;
};

struct Bytes {
  double read = 0, all = 0;  // of keys and values, with what choosing them takes
};
Bytes bytes_of_tokens(const Model& model, const Config& config) {
  Bytes bytes;
  for (const NeuronSite site : neuron_sites(config)) {
    const ParameterTokens* tokens = tokens_at(config, site);
    if (!tokens) continue;
    const auto& layer = model.weights.layers[static_cast<size_t>(site.layer)];
    const TokenParams<Matrix>& w = *token_params_of(layer)[static_cast<size_t>(site.place)];
    bytes.read += token_bytes_read(*tokens, w);
    bytes.all += static_cast<double>(w.keys.bytes.size() + w.values.bytes.size());
  }
  return bytes;
}

Json point_json(const BlockPoint& point, const SparsityFlags& flags, const Model& model) {
  const Bytes bytes = bytes_of_tokens(model, point.config);
  const double decode = static_cast<double>(decode_bytes(model));
  Json sites = Json::array();
  for (const NeuronSite site : neuron_sites(point.config))
    if (const ParameterTokens* tokens = tokens_at(point.config, site); tokens && tokens->blocks.active())
      sites.push_back(
          {{"site", name_of(site)}, {"blocks", tokens->blocks.count(tokens->tokens)}, {"read", tokens->blocks.read}});
  return {{flags.blocks.reads.empty() ? "percent" : "read_percent", point.asked},
          {"read", point.fraction},
          {"perplexity", point.perplexity},
          {"token_bytes", bytes.read / bytes.all},
          {"speedup_bound", decode / (decode - bytes.all + bytes.read)},
          {"sites", sites}};
}

Json report_json(const BlockReport& report, const SparsityFlags& flags, const Model& model,
                 const WindowOptions& windows) {
  Json json{{"dense_perplexity", report.dense_perplexity},
            {"block_size", flags.blocks.size},
            {"tokens", report.tokens},
            {"protocol", describe(windows)},
            {"blocks", Json::array()}};
  for (const BlockPoint& point : report.points) json["blocks"].push_back(point_json(point, flags, model));
  return json;
}

void print_report(const Json& report) {
  fmt::print("{:>9}  {:>9}  {:>10}  {:>9}  {:>11}  {:>8}\n", "asked", "read", "perplexity", "rise", "token bytes",
             "bound");
  const double dense = report["dense_perplexity"].get<double>();
  for (const Json& point : report["blocks"]) {
    const double perplexity = point["perplexity"].get<double>();
    const double asked = point[point.contains("percent") ? "percent" : "read_percent"].get<double>();
    fmt::print("{:>7g} %  {:>7.2f} %  {:>10.4f}  {:>7.2f} %  {:>9.2f} %  {:>7.2f}x\n", asked,
               100 * point["read"].get<double>(), perplexity, 100 * (perplexity / dense - 1),
               100 * point["token_bytes"].get<double>(), point["speedup_bound"].get<double>());
  }
  fmt::print(
      "dense perplexity {:.4f} over {} held-out tokens; blocks of {} tokens; token bytes: of keys, values and what "
      "choosing takes, that decoding reads; bound: of the decoding speed by those bytes\n",
      dense, format_count(report["tokens"].get<double>()), report["block_size"].get<i64>());
}

}  // namespace

Exit run_block_sparsity(const SparsityFlags& flags, const OpenModel& open, const WindowOptions& windows,
                        const std::vector<TokenText>& held_out, size_t stored, const Common& common) {
  if (flags.compare || !flags.plot.empty()) fail_usage("--key-blocks has no --compare and no --plot");
  const auto backend = make_backend(flags.model.backend);
  Model sorted = [&] {
    Progress progress("sort", common.quiet);
    return sort_tokens(open.model, flags.blocks.size, *backend, common.seed,
                       [&](double part) { progress.update(part, ""); });
  }();
  BlockReport report;
  Progress progress("search", common.quiet);
  const bool by_reading = !flags.blocks.reads.empty();
  const std::vector<double>& asked = by_reading ? flags.blocks.reads : flags.percents;
  constexpr int halvings = 6;
  double tried = 0;
  const double expected = 1 + static_cast<double>(asked.size()) * (by_reading ? 1 : halvings);
  const auto perplexity_of = [&](const Model& model) {
    const Transformer transformer(model, *backend, open.compute, windows.context);
    const Perplexity found = held_out_perplexity(transformer, open.tokenizer, held_out, windows);
    report.tokens = found.tokens;
    progress.update(++tried / expected, fmt::format("perplexity {:.4f}", found.perplexity));
    return found.perplexity;
  };
  report.dense_perplexity = perplexity_of(sorted);
  const auto measure = [&](double fraction) {
    Model thinner = sorted;
    thinner.config = with_blocks(sorted, flags.blocks.size, fraction);
    const double perplexity = perplexity_of(thinner);
    return BlockPoint{0, fraction, perplexity, thinner.config};
  };
  for (const double percent : asked) {
    BlockPoint point{percent, 1, report.dense_perplexity, sorted.config};
    if (by_reading) point = measure(percent / 100);
    // The least fraction found whose perplexity is within the budget.
    double low = 0;
    for (int i = 0; i < halvings && !by_reading; ++i) {
      BlockPoint next = measure((low + point.fraction) / 2);
      if (next.perplexity <= report.dense_perplexity * (1 + percent / 100))
        point = std::move(next);
      else
        low = next.fraction;
    }
    point.asked = percent;
    report.points.push_back(std::move(point));
  }
  const Json json = report_json(report, flags, sorted, windows);
  if (!flags.out.empty()) {
    const Json manifest{{"lever", "sparsity"},
                        {"model", open.path},
                        {"point", point_json(report.points[stored], flags, sorted)},
                        {"sparsity", json}};
    sorted.config = report.points[stored].config;
    save_thinner(sorted, open, flags, manifest);
  }
  if (common.json)
    print_json(json);
  else
    print_report(json);
  return Exit::done;
}

}  // namespace sparsam
