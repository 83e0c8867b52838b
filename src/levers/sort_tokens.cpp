#include "levers/sort_tokens.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "levers/growth.h"
#include "model/key_blocks.h"
#include "model/neuron_sites.h"

namespace sparsam {

namespace {

bool has_blocks(const ParameterTokens& tokens, i64 size) {
  return tokens.theta == Theta::l2_gelu && tokens.tokens >= size;
}

void normalize(Out<float, 1> x) {
  double squares = 0;
  for (const float value : x) squares += double{value} * value;
  for (float& value : x) value = squares > 0 ? static_cast<float>(value / std::sqrt(squares)) : 0;
}

// Some of the vectors, each drawn in proportion to how far it is from those before (k-means++, Arthur and Vassilvitskii
// 2007): |x - c|^2 = 2 (1 - <x, c>).
void first_centres(In<float, 2> unit, Out<float, 2> centres, Backend& backend, Random& random) {
  const i64 P = unit.shape(0);
  std::vector<float> alike(static_cast<size_t>(P));
  std::vector<double> far(alike.size(), 1);
  for (i64 c = 0; c < centres.shape(0); ++c) {
    double sum = 0;
    for (const double distance : far) sum += distance;
    double left = random.uniform() * sum;
    i64 drawn = 0;
    while (drawn + 1 < P && left >= far[static_cast<size_t>(drawn)]) left -= far[static_cast<size_t>(drawn++)];
    std::copy(unit[drawn].begin(), unit[drawn].end(), centres[c].begin());
    backend.run(
        Matmul{.y = {alike.data(), {P, 1}}, .x = unit, .w = as_matrix(centres.slice(c, 1)), .compute = Compute::f32});
    for (size_t p = 0; p < far.size(); ++p) far[p] = std::min(far[p], std::max(0.0, 1 - double{alike[p]}));
  }
}

// The centre of each vector, given how alike they are (P, centres).
std::vector<i64> assign(In<float, 2> alike, std::vector<i64> room) {
  const i64 P = alike.shape(0), centres = alike.shape(1);
  std::vector<float> nearest;
  for (i64 p = 0; p < P; ++p) nearest.push_back(*std::max_element(alike[p].begin(), alike[p].end()));
  std::vector<i64> order(static_cast<size_t>(P)), result(order.size());
  std::iota(order.begin(), order.end(), i64{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](i64 a, i64 b) { return nearest[static_cast<size_t>(a)] > nearest[static_cast<size_t>(b)]; });
  for (const i64 p : order) {
    i64 best = -1;
    for (i64 c = 0; c < centres; ++c)
      if (room[static_cast<size_t>(c)] > 0 && (best < 0 || alike(p, c) > alike(p, best))) best = c;
    result[static_cast<size_t>(p)] = best;
    --room[static_cast<size_t>(best)];
  }
  return result;
}

}  // namespace

std::vector<i64> order_in_blocks(In<float, 2> vectors, i64 size, Backend& backend, Random random) {
  constexpr int rounds = 15;
  const i64 P = vectors.shape(0), D = vectors.shape(1), blocks = (P + size - 1) / size;
  Arena arena;
  const auto unit = arena.allocate<float>(P, D), centres = arena.allocate<float>(blocks, D);
  std::copy(vectors.begin(), vectors.end(), unit.begin());
  for (i64 p = 0; p < P; ++p) normalize(unit[p]);
  first_centres(unit, centres, backend, random);
  const auto alike = arena.allocate<float>(P, blocks);
  std::vector<i64> order(static_cast<size_t>(P)), block;
  std::vector<i64> room(static_cast<size_t>(blocks), size);
  room.back() = P - (blocks - 1) * size;
  for (int round = 0; round < rounds; ++round) {
    backend.run(Matmul{.y = alike, .x = unit, .w = as_matrix(centres), .compute = Compute::f32});
    std::vector<i64> next = assign(alike, room);
    if (next == block) break;
    block = std::move(next);
    std::fill(centres.begin(), centres.end(), 0.0f);
    for (i64 p = 0; p < P; ++p)
      for (i64 i = 0; i < D; ++i) centres(block[static_cast<size_t>(p)], i) += unit(p, i);
    for (i64 c = 0; c < blocks; ++c) normalize(centres[c]);
  }
  std::iota(order.begin(), order.end(), i64{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](i64 a, i64 b) { return block[static_cast<size_t>(a)] < block[static_cast<size_t>(b)]; });
  return order;
}

Model sort_tokens(const Model& model, i64 size, Backend& backend, u64 seed,
                  const std::function<void(double)>& progress) {
  auto storage = std::make_shared<GrownStorage>(GrownStorage{model.storage});
  Model result{model.config, model.weights, storage};
  const auto sites = neuron_sites(model.config);
  bool any = false;
  for (size_t i = 0; i < sites.size(); ++i) {
    const size_t l = static_cast<size_t>(sites[i].layer), place = static_cast<size_t>(sites[i].place);
    ParameterTokens* tokens = tokens_of(result.config.layers[l])[place];
    if (!tokens || !has_blocks(*tokens, size)) continue;
    TokenParams<Matrix>& w = *token_params_of(result.weights.layers[l])[place];
    if (tokens->mask != 1)
      fail("{}: its new tokens are masked by {:g}: train until a growth is complete, then sort them", name_of(sites[i]),
           tokens->mask);
    if (is_quantised(w.values.dtype))
      fail("{}: its values are quantised ({}); expected f32, bf16 or f16: quantise after sorting", name_of(sites[i]),
           name_of(w.values.dtype));
    Arena arena;
    const auto keys = arena.allocate<float>(w.keys.rows, w.keys.cols);
    for (i64 p = 0; p < w.keys.rows; ++p) read_row(w.keys, p, keys[p].span());
    const auto order = order_in_blocks(keys, size, backend, Random(seed, i));
    w.keys = storage->rows(w.keys, order), w.values = storage->columns(w.values, order);
    tokens->old = 0, tokens->blocks = {};
    any = true;
    if (progress) progress(static_cast<double>(i + 1) / static_cast<double>(sites.size()));
  }
  if (!any)
    fail_usage("the model has no projection of {} parameter tokens or more with l2_gelu, which blocks are of", size);
  return result;
}

Config with_blocks(const Model& sorted, i64 size, double fraction) {
  Config config = sorted.config;
  for (const NeuronSite site : neuron_sites(config)) {
    const size_t l = static_cast<size_t>(site.layer), place = static_cast<size_t>(site.place);
    ParameterTokens* tokens = tokens_of(config.layers[l])[place];
    if (!tokens || !has_blocks(*tokens, size)) continue;
    const TokenParams<Matrix>& w = *token_params_of(sorted.weights.layers[l])[place];
    tokens->blocks = {};
    const double all = token_bytes_read(*tokens, w);
    tokens->blocks.size = size;
    const double blocks = static_cast<double>(tokens->blocks.count(tokens->tokens));
    tokens->blocks.read = static_cast<i64>(std::clamp(std::round(fraction * blocks), 1.0, blocks));
    if (token_bytes_read(*tokens, w) >= all) tokens->blocks = {};
  }
  return config;
}

}  // namespace sparsam
