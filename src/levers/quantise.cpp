#include "levers/quantise.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <deque>
#include <numeric>
#include <unordered_map>

#include "base/threads.h"
#include "measure/windows.h"

namespace sparsam {

namespace {

// A mixture: most matrices get `type`; `finer` is for those whose errors weigh most.
struct Recipe {
  std::string_view name;
  DType type;
  bool mixed = false;  // "_m": finer formats in some layers
};
constexpr std::array<Recipe, 16> recipes{{{"f32", DType::f32},
                                          {"bf16", DType::bf16},
                                          {"f16", DType::f16},
                                          {"q8_0", DType::q8_0},
                                          {"q6_k", DType::q6_k},
                                          {"q5_k_m", DType::q5_k, true},
                                          {"q5_k_s", DType::q5_k},
                                          {"q5_1", DType::q5_1},
                                          {"q5_0", DType::q5_0},
                                          {"q4_k_m", DType::q4_k, true},
                                          {"q4_k_s", DType::q4_k},
                                          {"q4_1", DType::q4_1},
                                          {"q4_0", DType::q4_0},
                                          {"iq4_nl", DType::iq4_nl},
                                          {"q3_k_m", DType::q3_k, true},
                                          {"q2_k", DType::q2_k}}};

std::string lower_case(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return lower;
}

const Recipe& recipe_of(std::string_view name) {
  const std::string lower = lower_case(name);
  for (const Recipe& recipe : recipes)
    if (recipe.name == lower) return recipe;
  fail_unknown("quantisation", name, recipe_names(), "--type", Exit::usage);
}

// Where llama.cpp's mixtures spend more bits: an eighth of the layers at either end and every third between.
bool gets_more(i64 index, i64 count) {
  return index < count / 8 || index >= 7 * count / 8 || (index - count / 8) % 3 == 2;
}

constexpr std::string_view layer_prefix = "model.layers.";

// Which of the layers that have such a half is the one of this parameter, and how many there are.
struct Place {
  i64 index = 0, count = 0;
};
Place place_of(std::string_view name, const Config& config, bool (*has)(const Layer&)) {
  const std::string_view digits = name.substr(layer_prefix.size());
  size_t layer = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), layer);
  Place place;
  for (size_t i = 0; i < config.layers.size(); ++i) {
    if (!has(config.layers[i])) continue;
    if (i < layer) ++place.index;
    ++place.count;
  }
  return place;
}

DType value_type(const Recipe& recipe, const Config& config, const Place& at) {
  const auto grouped = [&] {  // at least four query heads read one of keys and values
    const auto& mixer = std::find_if(config.layers.begin(), config.layers.end(), has_attention)->mixer;
    const auto* softmax = std::get_if<SoftmaxAttention>(&mixer);
    const auto* state = std::get_if<LogSumExpAttention>(&mixer);
    return softmax ? softmax->heads >= 4 * softmax->kv_heads : state->heads >= 4 * state->kv_heads;
  };
  if (recipe.name == "q2_k") return grouped() ? DType::q4_k : DType::q3_k;
  if (recipe.name == "q3_k_m") return at.index < 2 ? DType::q5_k : DType::q4_k;
  if (recipe.name == "iq4_nl") return grouped() ? DType::q5_k : recipe.type;
  if (recipe.mixed && gets_more(at.index, at.count)) return DType::q6_k;
  if (recipe.name == "q4_k_s" && at.index < 4) return DType::q5_k;
  return recipe.type;
}

DType down_type(const Recipe& recipe, const Place& at, bool calibrated) {
  const bool early = at.index < at.count / 8;
  if (recipe.name == "q2_k") return DType::q3_k;
  if (recipe.name == "q3_k_m") return at.index < at.count / 16 ? DType::q5_k : DType::q4_k;
  if (recipe.mixed && gets_more(at.index, at.count)) return DType::q6_k;
  if (recipe.name == "iq4_nl" && early && !calibrated) return DType::q5_k;
  if (recipe.name == "q4_k_s" && early) return DType::q5_k;
  if (recipe.name == "q4_0" && early && calibrated) return DType::q4_1;
  if (recipe.name == "q5_0" && early && calibrated) return DType::q5_1;
  return recipe.type;
}

DType head_type(const Recipe& recipe, i64 cols) {
  return recipe.type == DType::q8_0 || cols % block_size(recipe.type) != 0 ? DType::q8_0 : DType::q6_k;
}

// The format that takes the place of one whose blocks do not divide the rows.
DType fitting(DType wanted, i64 cols) {
  if (cols % block_size(wanted) == 0) return wanted;
  DType fallback = wanted;
  switch (wanted) {
    case DType::q2_k:
    case DType::q3_k:
      fallback = DType::q4_0;
      break;
    case DType::q4_k:
      fallback = DType::q5_0;
      break;
    case DType::q5_k:
      fallback = DType::q5_1;
      break;
    case DType::q6_k:
      fallback = DType::q8_0;
      break;
    default:
      break;
  }
  return cols % block_size(fallback) == 0 ? fallback : DType::f16;
}

constexpr std::string_view position_table = "model.embed_positions.weight";

// Sums over tokens of the squared inputs of each matrix that a product reads.
class InputSquares final : public Backend {
 public:
  InputSquares(Backend& inner, const Model& model) : inner_(inner) {
    for_each_parameter(
        parameter_specs(model.config),
        [&](const std::string&, const ParameterSpec& spec, const Matrix& matrix) {
          if (!spec.is_vector) sums_[matrix.bytes.data()].resize(static_cast<size_t>(matrix.cols));
        },
        model.weights);
  }
  void run(const Op& op) override {
    inner_.run(op);
    if (const auto* product = std::get_if<Matmul>(&op)) add(product->w, product->x);
  }
  void add(const Matrix& w, In<float, 2> x) {
    const auto found = sums_.find(w.bytes.data());
    if (found == sums_.end()) return;
    std::vector<double>& sums = found->second;
    parallel_ranges(x.shape(1), 64, [&](int, i64 begin, i64 end) {
      for (i64 n = 0; n < x.shape(0); ++n)
        for (i64 c = begin; c < end; ++c) sums[static_cast<size_t>(c)] += double{x(n, c)} * x(n, c);
    });
  }
  const std::vector<double>& sums(const Matrix& w) const { return sums_.at(w.bytes.data()); }

 private:
  Backend& inner_;
  std::unordered_map<const std::byte*, std::vector<double>> sums_;
};

struct Errors {
  double squares = 0, error = 0, weighted_squares = 0, weighted_error = 0, largest = 0;
  i64 bad = -1;  // the first element that is not finite, or not in the new format
  float bad_value = 0;

  void add(std::span<const float> x, std::span<const float> y, std::span<const float> importance) {
    for (size_t i = 0; i < x.size(); ++i) {
      const double value = x[i], off = value - y[i], weight = importance.empty() ? 1.0 : double{importance[i]};
      squares += value * value, error += off * off;
      weighted_squares += weight * value * value, weighted_error += weight * off * off;
      largest = std::max(largest, std::abs(off));
    }
  }
  // Whether all of a row are finite; notes the first that is not, of which `x` is the number to tell.
  bool accept(std::span<const float> row, std::span<const float> x, i64 first) {
    const auto finite = [](float value) { return std::isfinite(value); };
    const i64 place = std::find_if_not(row.begin(), row.end(), finite) - row.begin();
    if (place == static_cast<i64>(row.size())) return true;
    if (bad < 0) bad = first + place, bad_value = x[static_cast<size_t>(place)];
    return false;
  }
  void add(const Errors& other) {
    squares += other.squares, error += other.error;
    weighted_squares += other.weighted_squares, weighted_error += other.weighted_error;
    largest = std::max(largest, other.largest);
    if (bad < 0) bad = other.bad, bad_value = other.bad_value;
  }
};

void write_row(const MutableMatrix& m, i64 row, std::span<const float> x, std::span<const float> importance) {
  std::byte* to = m.bytes.data() + row * bytes_for(m.dtype, m.cols);
  if (is_quantised(m.dtype)) return quantize_row(m.dtype, x, importance, to);
  for (size_t i = 0; i < x.size(); ++i) m.set(row, static_cast<i64>(i), x[i]);
}

// `to` = `from`, row by row on all threads.
Errors convert(const Matrix& from, const MutableMatrix& to, std::span<const float> importance) {
  constexpr i64 rows = 16;  // at a time
  const i64 parts = (from.rows + rows - 1) / rows;
  std::vector<Errors> errors(static_cast<size_t>(parts));
  parallel_dynamic(parts, [&](int, i64 part) {
    std::vector<float> x(static_cast<size_t>(from.cols)), y(x.size());
    for (i64 r = part * rows; r < std::min(from.rows, (part + 1) * rows); ++r) {
      Errors& sums = errors[static_cast<size_t>(part)];
      read_row(from, r, x);
      if (!sums.accept(x, x, r * from.cols)) continue;
      write_row(to, r, x, importance);
      read_row(to, r, y);
      if (sums.accept(y, x, r * from.cols)) sums.add(x, y, importance);
    }
  });
  Errors total;
  for (const Errors& part : errors) total.add(part);
  return total;
}

double root_ratio(double error, double squares) { return squares > 0 ? std::sqrt(error / squares) : 0.0; }

struct Storage {
  std::shared_ptr<const void> original;
  std::deque<Buffer> made = {};
};

}  // namespace

std::vector<std::string> recipe_names() {
  std::vector<std::string> names;
  for (const Recipe& recipe : recipes) names.emplace_back(recipe.name);
  return names;
}
std::string check_recipe(std::string_view name) { return std::string(recipe_of(name).name); }

DType recipe_type(std::string_view recipe_name, std::string_view name, const Config& config, bool calibrated) {
  const Recipe& recipe = recipe_of(recipe_name);
  if (!is_quantised(recipe.type)) return recipe.type;
  if (name == "lm_head.weight" || (name == "model.embed_tokens.weight" && config.tied))
    return head_type(recipe, config.dim);
  const auto is = [&](std::string_view projection) { return name.ends_with(projection); };
  // In GGUF files of GPT-2 and NeoX the three are one matrix.
  const bool fused = config.norm.kind == NormKind::layer;
  if (is("self_attn.v_proj.weight") || (fused && (is("self_attn.q_proj.weight") || is("self_attn.k_proj.weight"))))
    return value_type(recipe, config, place_of(name, config, has_attention));
  if (is("mlp.down_proj.weight")) return down_type(recipe, place_of(name, config, has_mlp), calibrated);
  if (is("self_attn.o_proj.weight") && recipe.name == "q2_k") return DType::q3_k;
  if (is("self_attn.o_proj.weight") && recipe.name == "q3_k_m") return DType::q4_k;
  return recipe.type;
}

Importance measure_importance(const Model& model, Backend& backend, std::span<const i32> tokens,
                              const CalibrationOptions& options, const std::function<void(double)>& progress) {
  if (tokens.empty()) fail("calibration: the text has no tokens");
  if (options.tokens > 0) tokens = tokens.first(std::min(tokens.size(), static_cast<size_t>(options.tokens)));
  const i64 context = resolve_context(options.context, model.config);
  InputSquares squares(backend, model);
  const Transformer transformer(model, squares, options.compute, context);
  Arena arena;
  for_each_batch(
      tokens, context, options.batch_tokens,
      [&](const Tokens& batch) {
        arena.reset();
        squares.add(model.head(), transformer.forward(batch, arena));
      },
      progress);

  Importance importance{empty_params<std::vector<float>>(model.config), static_cast<i64>(tokens.size())};
  for_each_parameter(
      parameter_specs(model.config),
      [&](const std::string& name, const ParameterSpec& spec, const Matrix& matrix, std::vector<float>& of) {
        if (spec.is_vector) return;
        const std::vector<double>& sums = squares.sums(matrix);
        const double total = std::accumulate(sums.begin(), sums.end(), 0.0);
        if (!std::isfinite(total)) fail("calibration: the inputs of {} are not finite", name);
        if (total == 0) return;
        for (const double sum : sums) of.push_back(static_cast<float>(sum / static_cast<double>(tokens.size())));
      },
      model.weights, importance.of);
  return importance;
}

Quantised quantise(const Model& model, std::string_view recipe, const Importance* importance,
                   const std::function<void(double)>& progress) {
  const auto specs = parameter_specs(model.config);
  auto storage = std::make_shared<Storage>(Storage{model.storage});
  Quantised result{{model.config, model.weights, storage}, {}};
  double elements = 0, done = 0;
  for_each_parameter(
      specs, [&](const std::string&, const ParameterSpec& spec) { elements += static_cast<double>(spec.size()); });
  const auto none = empty_params<std::vector<float>>(model.config);
  check(!importance || importance->of.layers.size() == model.config.layers.size(), "importance of another model");
  for_each_parameter(
      specs,
      [&](const std::string& name, const ParameterSpec& spec, Matrix& matrix, const std::vector<float>& weights) {
        done += static_cast<double>(spec.size());
        if (spec.is_vector) return;
        const Matrix from = matrix;
        const bool keep = name == position_table && lower_case(recipe) != "f32";
        const DType wanted = keep ? from.dtype : recipe_type(recipe, name, model.config, importance != nullptr);
        const DType to = fitting(wanted, from.cols);
        QuantisedMatrix report{name, from.dtype, to, wanted, from.rows, from.cols, bytes_for(to, from.size())};
        if (to != from.dtype) {
          const MutableMatrix target{to, from.rows, from.cols, storage->made.emplace_back(report.bytes).bytes()};
          const Errors errors = convert(from, target, weights);
          if (errors.bad >= 0)
            fail("{}: {} at ({}, {}) is no number that {} can hold", name, errors.bad_value, errors.bad / from.cols,
                 errors.bad % from.cols, name_of(to));
          report.relative = root_ratio(errors.error, errors.squares);
          report.weighted = root_ratio(errors.weighted_error, errors.weighted_squares);
          report.largest = errors.largest;
          matrix = target;
        }
        result.matrices.push_back(report);
        if (progress) progress(done / elements);
      },
      result.model.weights, importance ? importance->of : none);
  return result;
}

std::string error_table(std::span<const QuantisedMatrix> matrices) {
  size_t width = 6;
  for (const QuantisedMatrix& m : matrices) width = std::max(width, m.name.size());
  std::string text = fmt::format("{:<{}}  {:>13}  {:>16}  {:>6}  {:>9}  {:>9}  {:>9}\n", "matrix", width, "shape",
                                 "format", "bits", "relative", "weighted", "largest");
  double bytes = 0, elements = 0;
  for (const QuantisedMatrix& m : matrices) {
    const double size = static_cast<double>(m.rows * m.cols);
    bytes += static_cast<double>(m.bytes), elements += size;
    text += fmt::format("{:<{}}  {:>13}  {:>16}  {:>6.3f}  {:>9.2e}  {:>9.2e}  {:>9.2e}", m.name, width,
                        fmt::format("{} x {}", m.rows, m.cols), fmt::format("{} -> {}", name_of(m.from), name_of(m.to)),
                        8 * static_cast<double>(m.bytes) / size, m.relative, m.weighted, m.largest);
    if (m.to != m.wanted)
      text +=
          fmt::format("  not {}: its blocks of {} do not divide {}", name_of(m.wanted), block_size(m.wanted), m.cols);
    text += '\n';
  }
  text += fmt::format("{:<{}}  {:>13}  {:>16}  {:>6.3f}\n", "all", width, "", fmt::format("{:.1f} MB", bytes / 1e6),
                      elements > 0 ? 8 * bytes / elements : 0.0);
  return text;
}

}  // namespace sparsam
