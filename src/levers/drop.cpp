#include "levers/drop.h"

#include <algorithm>
#include <charconv>

namespace sparsam {

namespace {

bool has(const Layer& layer, Sublayer kind) {
  switch (kind) {
    case Sublayer::attention:
      return has_attention(layer);
    case Sublayer::mlp:
      return has_mlp(layer);
    case Sublayer::block:
      return has_attention(layer) || has_mlp(layer);
  }
  return false;
}

i64 count_of(const Config& config, Sublayer kind) {
  return std::count_if(config.layers.begin(), config.layers.end(), [&](const Layer& l) { return has(l, kind); });
}

// Error unless layer `index` has the sublayer.
void require(const Config& config, Sublayer kind, i64 index, Exit code) {
  const i64 layers = static_cast<i64>(config.layers.size());
  if (index < 0 || index >= layers)
    throw Error(
        fmt::format("drop: {}:{} is out of range, the model has layers 0 to {}", name_of(kind), index, layers - 1),
        code);
  if (!has(config.layers[static_cast<size_t>(index)], kind))
    throw Error(fmt::format("drop: layer {} has no {} (already dropped?)", index, name_of(kind)), code);
}

void add(std::vector<i64>& indices, Sublayer kind, i64 index, Exit code) {
  if (std::find(indices.begin(), indices.end(), index) != indices.end())
    throw Error(fmt::format("drop: {}:{} is named twice", name_of(kind), index), code);
  indices.push_back(index);
}

void add(Drops& drops, const Config& config, Sublayer kind, i64 index, Exit code) {
  require(config, kind, index, code);
  const Layer& layer = config.layers[static_cast<size_t>(index)];
  if (kind != Sublayer::mlp && has_attention(layer)) add(drops.attention, Sublayer::attention, index, code);
  if (kind != Sublayer::attention && has_mlp(layer)) add(drops.mlp, Sublayer::mlp, index, code);
}

void sort(Drops& drops) {
  std::sort(drops.attention.begin(), drops.attention.end());
  std::sort(drops.mlp.begin(), drops.mlp.end());
}

}  // namespace

Model drop(const Model& model, const Drops& drops) {
  Drops checked;
  for (const i64 index : drops.attention) add(checked, model.config, Sublayer::attention, index, Exit::failed);
  for (const i64 index : drops.mlp) add(checked, model.config, Sublayer::mlp, index, Exit::failed);

  Model result = model;
  for (const i64 index : drops.attention) {
    result.config.layers[static_cast<size_t>(index)].mixer = std::monostate{};
    result.weights.layers[static_cast<size_t>(index)].attention = {};
  }
  for (const i64 index : drops.mlp) {
    result.config.layers[static_cast<size_t>(index)].mlp = std::monostate{};
    result.weights.layers[static_cast<size_t>(index)].mlp = {};
  }
  for (size_t i = result.config.layers.size(); i-- > 0;) {
    if (has(result.config.layers[i], Sublayer::block)) continue;
    result.config.layers.erase(result.config.layers.begin() + static_cast<i64>(i));
    result.weights.layers.erase(result.weights.layers.begin() + static_cast<i64>(i));
    const auto erase_from = [&](auto& layers) {
      if (!layers.empty()) layers.erase(layers.begin() + static_cast<i64>(i));
    };
    erase_from(result.config.truncation);
    erase_from(result.config.inputs.layers);
  }
  return result;
}

Drops parse_drops(std::string_view list, const Config& config) {
  Drops drops;
  while (true) {
    const size_t comma = list.find(',');
    const std::string_view item = list.substr(0, comma);
    const size_t colon = item.find(':');
    const std::string_view kind = item.substr(0, colon);
    const std::string_view digits = colon == std::string_view::npos ? "" : item.substr(colon + 1);
    i64 index = -1;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
    if (digits.empty() || error != std::errc{} || end != digits.data() + digits.size())
      fail_usage("--list: '{}' is not understood, expected attn:LAYER, mlp:LAYER or block:LAYER", item);
    if (kind == "attn" || kind == "attention")
      add(drops, config, Sublayer::attention, index, Exit::usage);
    else if (kind == "mlp")
      add(drops, config, Sublayer::mlp, index, Exit::usage);
    else if (kind == "block")
      add(drops, config, Sublayer::block, index, Exit::usage);
    else
      fail_unknown("kind of sublayer", kind, std::vector<std::string>{"attn", "mlp", "block"}, "--list", Exit::usage);
    if (comma == std::string_view::npos) break;
    list.remove_prefix(comma + 1);
  }
  sort(drops);
  return drops;
}

void check_counts(const Config& config, const DropCounts& counts) {
  const auto at_most = [](const char* flag, i64 count, i64 available) {
    if (count < 0 || count > available)
      fail_usage("--{} is {}, expected 0 to {}: the model has no more", flag, count, available);
  };
  const i64 attention = count_of(config, Sublayer::attention), mlp = count_of(config, Sublayer::mlp);
  at_most("attention", counts.attention, attention);
  at_most("mlp", counts.mlp, mlp);
  at_most("block", counts.block, count_of(config, Sublayer::block));
  at_most("joint", counts.joint, attention + mlp);
  if (counts.joint > 0 && (counts.attention > 0 || counts.mlp > 0))
    fail_usage("--joint draws from attention and MLP sublayers already: give it without --attention and --mlp");
  if (counts.block > 0 && (counts.attention > 0 || counts.mlp > 0 || counts.joint > 0))
    fail_usage("--block drops both sublayers: give it without --attention, --mlp and --joint");
}

namespace {

// The `count` lowest scores among sublayers of these kinds.
std::vector<SublayerScore> lowest(const Config& config, std::span<const SublayerScore> scores,
                                  std::initializer_list<Sublayer> kinds, i64 count) {
  std::vector<SublayerScore> pool;
  if (count == 0) return pool;
  for (const Sublayer kind : kinds) {
    for (i64 l = 0; l < static_cast<i64>(config.layers.size()); ++l) {
      if (!has(config.layers[static_cast<size_t>(l)], kind)) continue;
      const auto found = std::find_if(scores.begin(), scores.end(),
                                      [&](const SublayerScore& s) { return s.layer == l && s.kind == kind; });
      if (found == scores.end()) fail_usage("drop: the scores lack {}:{}", name_of(kind), l);
      pool.push_back(*found);
    }
  }
  std::stable_sort(pool.begin(), pool.end(), [](const SublayerScore& a, const SublayerScore& b) {
    return a.score != b.score ? a.score < b.score : a.layer > b.layer;
  });
  pool.resize(static_cast<size_t>(count));
  return pool;
}

}  // namespace

Drops select_drops(const Config& config, std::span<const SublayerScore> scores, const DropCounts& counts) {
  using enum Sublayer;
  check_counts(config, counts);
  Drops drops;
  const auto take = [&](std::initializer_list<Sublayer> kinds, i64 count) {
    for (const SublayerScore& s : lowest(config, scores, kinds, count))
      add(drops, config, s.kind, s.layer, Exit::usage);
  };
  take({attention}, counts.attention);
  take({mlp}, counts.mlp);
  take({block}, counts.block);
  take({attention, mlp}, counts.joint);
  sort(drops);
  return drops;
}

}  // namespace sparsam
