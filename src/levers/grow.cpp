#include "levers/grow.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <deque>

#include "base/threads.h"

namespace sparsam {

namespace {

constexpr size_t kinds = 5;
constexpr std::array<const char*, kinds> kind_names{"q", "k", "v", "o", "mlp"};

// The parameter tokens of a layer by kind; null where there are none.
template <class L>  // Layer or const Layer
auto tokens_of(L& layer) {
  using Tokens = std::conditional_t<std::is_const_v<L>, const ParameterTokens, ParameterTokens>;
  std::array<Tokens*, kinds> tokens{};
  if (auto* a = std::get_if<SoftmaxAttention>(&layer.mixer)) tokens = {&a->q, &a->k, &a->v, &a->o, nullptr};
  tokens[4] = std::get_if<ParameterTokens>(&layer.mlp);
  for (Tokens*& t : tokens)
    if (t && !t->present()) t = nullptr;
  return tokens;
}
template <class P>  // LayerParams of anything
auto params_of(P& layer) {
  auto& a = layer.attention;
  return std::array{&a.q.tokens, &a.k.tokens, &a.v.tokens, &a.o.tokens, &layer.mlp.tokens};
}

void require_tokens(const Config& config) {
  if (std::none_of(config.layers.begin(), config.layers.end(), has_parameter_tokens))
    fail_usage("grow: the model has no parameter tokens, which are what grows");
}

// L with L L^T = G for a positive semidefinite G (d, d): Cholesky's, where columns beyond the rank are 0. In place, by
// columns: column j of L is row j of the result.
std::vector<double> factor(std::vector<double> G, size_t d) {
  double largest = 0;
  for (size_t i = 0; i < d; ++i) largest = std::max(largest, G[i * d + i]);
  std::vector<double> columns(d * d);
  for (size_t j = 0; j < d; ++j) {
    const double pivot = G[j * d + j];
    if (pivot <= 1e-12 * largest) continue;  // rounding of what is 0
    double* column = &columns[j * d];
    for (size_t i = j; i < d; ++i) column[i] = G[j * d + i] / std::sqrt(pivot);
    parallel_ranges(static_cast<i64>(d - j), 64, [&](int, i64 begin, i64 end) {
      for (size_t i = j + static_cast<size_t>(begin); i < j + static_cast<size_t>(end); ++i)
        for (size_t l = i; l < d; ++l) G[i * d + l] -= column[i] * column[l];
    });
  }
  return columns;
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
  const std::vector<double> columns = factor(std::move(gram), d);
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

std::vector<float> drawn(i64 size, float deviation, Random random) {
  std::vector<float> values(static_cast<size_t>(size));
  for (float& value : values) value = deviation * static_cast<float>(random.normal());
  return values;
}

struct Storage {
  std::shared_ptr<const void> original;
  std::deque<Buffer> made = {};

  MutableMatrix allocate(DType dtype, i64 rows, i64 cols) {
    return {dtype, rows, cols, made.emplace_back(bytes_for(dtype, rows * cols)).bytes()};
  }
};

// The old matrix in the upper left corner, the new numbers beside it row by row.
Matrix extended(const Matrix& old, i64 rows, i64 cols, std::span<const float> fresh, Storage& storage) {
  const MutableMatrix result = storage.allocate(old.dtype, rows, cols);
  const i64 size = size_of(old.dtype);
  auto next = fresh.begin();
  for (i64 r = 0; r < rows; ++r) {
    const i64 kept = r < old.rows ? old.cols : 0;
    if (kept > 0) std::memcpy(result.bytes.data() + r * cols * size, old.row(r), static_cast<size_t>(kept * size));
    for (i64 c = kept; c < cols; ++c) result.set(r, c, *next++);
  }
  return result;
}

struct Growing {
  NewTokens how;
  u64 seed;
  Storage& storage;

  // `tokens` has its new number, and the tau of the old.
  void operator()(ParameterTokens& tokens, TokenParams<Matrix>& w, const TokenParams<ParameterSpec>& specs, u64 stream,
                  const std::string& where) const {
    const i64 n = w.keys.rows, m = tokens.tokens - n, in = w.keys.cols, out = w.values.rows;
    if (is_quantised(w.keys.dtype) || is_quantised(w.values.dtype))
      fail("{}: its tokens are quantised ({}); expected f32, bf16 or f16: quantise after growing", where,
           name_of(w.keys.dtype));
    if (how != NewTokens::published && tokens.theta == Theta::softmax)
      fail("{}: no new tokens leave a softmax as it is; only the published way can grow it", where);
    if (how == NewTokens::zero_values && tokens.theta != Theta::l2_gelu)
      fail("{}: random keys change the norm of {}; keys of zeros do not", where, enum_name(tokens.theta));
    const Random of_keys(seed, stream), of_values(seed, stream + 1);
    std::vector<float> keys(static_cast<size_t>(m * in)), values(static_cast<size_t>(out * m));
    if (how == NewTokens::zero_values) keys = similar_keys(w.keys, m, of_keys, where);
    if (how == NewTokens::published) keys = drawn(m * in, specs.keys.deviation, of_keys);
    if (how != NewTokens::zero_values) values = drawn(out * m, specs.values.deviation, of_values);
    const double growth = static_cast<double>(n + m) / static_cast<double>(n);
    if (how == NewTokens::zero_values) tokens.tau = static_cast<float>(double{tokens.tau} * std::sqrt(growth));
    if (how == NewTokens::published) tokens.tau = std::sqrt(static_cast<float>(n + m));
    w.keys = extended(w.keys, n + m, in, keys, storage);
    w.values = extended(w.values, out, n + m, values, storage);
  }
};

}  // namespace

TokenTargets parse_token_targets(std::string_view list) {
  TokenTargets targets;
  const std::array<i64*, kinds> by_kind{&targets.q, &targets.k, &targets.v, &targets.o, &targets.mlp};
  while (true) {
    const size_t comma = list.find(','), colon = list.substr(0, comma).find(':');
    const std::string_view item = list.substr(0, comma), kind = item.substr(0, colon);
    const std::string_view digits = colon == std::string_view::npos ? "" : item.substr(colon + 1);
    i64 count = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), count);
    if (digits.empty() || error != std::errc{} || end != digits.data() + digits.size() || count <= 0)
      fail_usage("--to-tokens: '{}' is not understood, expected KIND:TOKENS, as in attention:144,mlp:576", item);
    bool known = false;
    for (size_t i = 0; i < kinds; ++i) {
      if (kind != kind_names[i] && !(kind == "attention" && i < 4)) continue;
      if (*by_kind[i] != 0) fail_usage("--to-tokens: {} is named twice", kind_names[i]);
      known = true, *by_kind[i] = count;
    }
    if (!known)
      fail_unknown("kind of projection", kind, std::vector<std::string>{"attention", "q", "k", "v", "o", "mlp"},
                   "--to-tokens", Exit::usage);
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
                   kind_names[i], wanted[i]);
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

Model grow(const Model& model, const Config& to, NewTokens how, u64 seed) {
  check(model.config.layers.size() == to.layers.size(), "growing {} layers to {}", model.config.layers.size(),
        to.layers.size());
  auto storage = std::make_shared<Storage>(Storage{model.storage});
  Model result{to, model.weights, storage};
  const auto specs = parameter_specs(to);
  const Growing extend{how, seed, *storage};
  for (size_t l = 0; l < to.layers.size(); ++l) {
    const auto before = tokens_of(model.config.layers[l]);
    const auto after = tokens_of(result.config.layers[l]);
    const auto weights = params_of(result.weights.layers[l]);
    const auto spec = params_of(specs.layers[l]);
    for (size_t i = 0; i < kinds; ++i) {
      if (!before[i] || !after[i] || after[i]->tokens <= before[i]->tokens) continue;
      extend(*after[i], *weights[i], *spec[i], 2 * (kinds * l + i),
             fmt::format("grow: layer {}: {}", l, kind_names[i]));
    }
  }
  return result;
}

}  // namespace sparsam
