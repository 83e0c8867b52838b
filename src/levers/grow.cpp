#include "levers/grow.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <deque>

#include "model/neuron_sites.h"
#include "tensor/cholesky.h"

namespace sparsam {

namespace {

constexpr size_t kinds = token_kinds.size();

void require_tokens(const Config& config) {
  if (std::none_of(config.layers.begin(), config.layers.end(), has_parameter_tokens))
    fail_usage("grow: the model has no parameter tokens, which are what grows");
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// `count` random orthonormal vectors of m numbers: Gram and Schmidt's, twice over for its rounding.
std::vector<std::vector<double>> orthonormal(size_t count, size_t m, Random random) {
  std::vector<std::vector<double>> vectors;
  while (vectors.size() < count) {
    std::vector<double> x(m);
    for (double& value : x) value = random.normal();
    for (int pass = 0; pass < 2; ++pass)
      for (const auto& other : vectors) {
        const double along = dot(x, other);
        for (size_t i = 0; i < m; ++i) x[i] -= along * other[i];
      }
    const double length = std::sqrt(dot(x, x));
    for (double& value : x) value /= length;
    vectors.push_back(std::move(x));
  }
  return vectors;
}

std::vector<float> row_of(const Matrix& matrix, i64 row) {
  std::vector<float> values(static_cast<size_t>(matrix.cols));
  read_row(matrix, row, values);
  return values;
}

// K' (m, d) = sqrt(m / n) Q L^T with K^T K = L L^T and Q of orthonormal columns, so that |K' x|^2 = m / n |K x|^2 for
// every x.
std::vector<float> similar_keys(const Matrix& keys, i64 m, Random random, const std::string& where) {
  const size_t d = static_cast<size_t>(keys.cols), rows = static_cast<size_t>(m);
  std::vector<double> gram(d * d);
  for (i64 p = 0; p < keys.rows; ++p) {
    const std::vector<float> key = row_of(keys, p);
    for (size_t i = 0; i < d; ++i)
      for (size_t j = i; j < d; ++j) gram[i * d + j] += double{key[i]} * key[j];
  }
  const std::vector<double> columns = cholesky(std::move(gram), d);
  std::vector<const double*> present;
  for (size_t j = 0; j < d; ++j)
    if (columns[j * d + j] > 0) present.push_back(&columns[j * d]);
  if (present.size() > rows)
    fail(
        "{}: {} new tokens, but random keys leave the function as it is from {} on: their number must reach the rank "
        "of the keys",
        where, m, present.size());
  const auto q = orthonormal(present.size(), rows, random);
  const double scale = std::sqrt(static_cast<double>(m) / static_cast<double>(keys.rows));
  std::vector<float> fresh(rows * d);
  std::vector<double> sums(d);
  for (size_t p = 0; p < rows; ++p) {
    std::fill(sums.begin(), sums.end(), 0.0);
    for (size_t j = 0; j < present.size(); ++j)
      for (size_t i = 0; i < d; ++i) sums[i] += q[j][p] * present[j][i];
    for (size_t i = 0; i < d; ++i) fresh[p * d + i] = static_cast<float>(scale * sums[i]);
  }
  return fresh;
}

struct Growing {
  NewTokens how;
  u64 seed;
  GrownStorage& storage;
  Numbers numbers;

  // `tokens` has its new number, and the tau of the old.
  void operator()(ParameterTokens& tokens, TokenParams<Matrix>& w, const TokenParams<ParameterSpec>& specs, u64 stream,
                  const std::string& where) const {
    const i64 n = w.keys.rows, m = tokens.tokens - n, in = w.keys.cols, out = w.values.rows;
    require_real(w.keys, where), require_real(w.values, where);
    std::vector<float> keys(static_cast<size_t>(m * in)), values(static_cast<size_t>(out * m));
    if (numbers == Numbers::weights) {
      require_possible(tokens, where);
      const Random of_keys(seed, stream), of_values(seed, stream + 1);
      if (how == NewTokens::zero_values) keys = similar_keys(w.keys, m, of_keys, where);
      if (how == NewTokens::published) keys = drawn(m * in, specs.keys.deviation, of_keys);
      if (how == NewTokens::ramp) keys = drawn(m * in, root_mean_square(w.keys), of_keys);
      if (how != NewTokens::zero_values) values = drawn(out * m, specs.values.deviation, of_values);
    }
    const double growth = static_cast<double>(n + m) / static_cast<double>(n);
    if (how == NewTokens::zero_values || how == NewTokens::ramp)
      tokens.tau = static_cast<float>(double{tokens.tau} * std::sqrt(growth));
    if (how == NewTokens::published) tokens.tau = std::sqrt(static_cast<float>(n + m));
    tokens.old = n;
    tokens.mask = how == NewTokens::ramp ? 0 : 1;
    w.keys = storage.extended(w.keys, n + m, in, keys);
    w.values = storage.extended(w.values, out, n + m, values);
  }

  void require_possible(const ParameterTokens& tokens, const std::string& where) const {
    const std::string theta = enum_name(tokens.theta);
    if (tokens.mask != 1)
      fail("{}: the tokens of the growth before are at {:.3g} of their ramp; train the model until it ends", where,
           tokens.mask);
    if (tokens.blocks.active())
      fail("{}: its keys are read in blocks, which new tokens are not of; grow the model before that", where);
    if (how != NewTokens::published && tokens.theta == Theta::softmax)
      fail("{}: no new tokens leave a softmax as it is; only the published way can grow it", where);
    if (how == NewTokens::zero_values && tokens.theta != Theta::l2_gelu)
      fail("{}: random keys change the norm of {}; keys of zeros do not", where, theta);
    if (how == NewTokens::ramp && tokens.theta != Theta::l2_gelu)
      fail("{}: {} has no mask for a ramp; keys of zeros need none", where, theta);
  }
};

}  // namespace

TokenTargets parse_token_targets(std::string_view list, std::string_view flag) {
  TokenTargets targets;
  const std::array<i64*, kinds> by_kind{&targets.q, &targets.k, &targets.v, &targets.o, &targets.mlp};
  while (true) {
    const size_t comma = list.find(','), colon = list.substr(0, comma).find(':');
    const std::string_view item = list.substr(0, comma), kind = item.substr(0, colon);
    const std::string_view digits = colon == std::string_view::npos ? "" : item.substr(colon + 1);
    i64 count = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), count);
    if (digits.empty() || error != std::errc{} || end != digits.data() + digits.size() || count <= 0)
      fail_usage("{}: '{}' is not understood, expected KIND:TOKENS, as in attention:144,mlp:576", flag, item);
    bool known = false;
    for (size_t i = 0; i < kinds; ++i) {
      if (kind != token_kinds[i] && !(kind == "attention" && i < 4)) continue;
      if (*by_kind[i] != 0) fail_usage("{}: {} is named twice", flag, token_kinds[i]);
      known = true, *by_kind[i] = count;
    }
    if (!known)
      fail_unknown("kind of projection", kind, std::vector<std::string>{"attention", "q", "k", "v", "o", "mlp"}, flag,
                   Exit::usage);
    if (comma == std::string_view::npos) return targets;
    list.remove_prefix(comma + 1);
  }
}

Config with_tokens(const Config& config, const TokenTargets& targets) {
  require_tokens(config);
  Config result = config;
  const std::array<i64, kinds> wanted{targets.q, targets.k, targets.v, targets.o, targets.mlp};
  for (size_t l = 0; l < result.layers.size(); ++l) {
    const auto tokens = tokens_of(result.layers[l]);
    for (size_t i = 0; i < kinds; ++i) {
      if (!tokens[i] || wanted[i] == 0) continue;
      if (wanted[i] < tokens[i]->tokens)
        fail_usage("grow: layer {} has {} tokens in {}, more than the {} that it is to have", l, tokens[i]->tokens,
                   token_kinds[i], wanted[i]);
      tokens[i]->tokens = wanted[i];
    }
  }
  validate(result, "grow");
  return result;
}

Config with_parameters(const Config& config, double factor) {
  require_tokens(config);
  if (!(factor > 1 && factor <= 1e6))
    fail_usage("grow: {} times the parameters, expected more than 1, at most 1e6", factor);
  double in_tokens = 0;
  const auto specs = parameter_specs(config);
  for_each_parameter(specs, [&](const std::string& name, const ParameterSpec& spec) {
    if (name.ends_with(".keys") || name.ends_with(".values")) in_tokens += static_cast<double>(spec.size());
  });
  const double more = (factor - 1) * static_cast<double>(parameter_count(config)) / in_tokens;  // tokens per token
  constexpr double multiple = 8;
  Config result = config;
  for (Layer& layer : result.layers)
    for (ParameterTokens* tokens : tokens_of(layer)) {
      if (!tokens) continue;
      const double wanted = std::round((1 + more) * static_cast<double>(tokens->tokens) / multiple) * multiple;
      tokens->tokens = std::max(tokens->tokens, static_cast<i64>(std::min(wanted, 1e12)));
    }
  validate(result, "grow");
  return result;
}

Model grow(const Model& model, const Config& to, NewTokens how, u64 seed, Numbers numbers) {
  check(model.config.layers.size() == to.layers.size(), "growing {} layers to {}", model.config.layers.size(),
        to.layers.size());
  auto storage = std::make_shared<GrownStorage>(GrownStorage{model.storage});
  Model result{to, model.weights, storage};
  const auto specs = parameter_specs(to);
  const Growing extend{how, seed, *storage, numbers};
  for (size_t l = 0; l < to.layers.size(); ++l) {
    const auto before = tokens_of(model.config.layers[l]);
    const auto after = tokens_of(result.config.layers[l]);
    const auto weights = token_params_of(result.weights.layers[l]);
    const auto spec = token_params_of(specs.layers[l]);
    for (size_t i = 0; i < kinds; ++i) {
      if (!before[i] || !after[i] || after[i]->tokens <= before[i]->tokens) continue;
      extend(*after[i], *weights[i], *spec[i], 2 * (kinds * l + i),
             fmt::format("grow: layer {}: {}", l, token_kinds[i]));
    }
  }
  return result;
}

}  // namespace sparsam
