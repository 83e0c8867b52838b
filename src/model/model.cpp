#include "model/model.h"

#include <algorithm>
#include <cstring>

namespace sparsam {

namespace {

constexpr i64 cache_line = 64;  // each parameter begins on one

// In elements of `bytes` each.
i64 padded(i64 size, i64 bytes) {
  const i64 line = cache_line / bytes;
  return (size + line - 1) / line * line;
}

i64 flat_size(const Params<ParameterSpec>& specs) {
  i64 total = 0;
  for_each_parameter(
      specs, [&](const std::string&, const ParameterSpec& spec) { total += padded(spec.size(), sizeof(float)); });
  return total;
}

}  // namespace

FlatParams::FlatParams(const Params<ParameterSpec>& specs)
    : buffer(flat_size(specs) * static_cast<i64>(sizeof(float))) {
  std::memset(buffer.data(), 0, static_cast<size_t>(buffer.size()));
  views.layers.resize(specs.layers.size());
  float* next = buffer.as<float>().data();
  for_each_parameter(
      specs,
      [&](const std::string&, const ParameterSpec& spec, Out<float, 2>& view) {
        view = {next, {spec.rows, spec.cols}};
        next += padded(spec.size(), sizeof(float));
      },
      views);
}

void initialize(const Params<ParameterSpec>& specs, const Params<Out<float, 2>>& weights, u64 seed) {
  u64 stream = 0;
  for_each_parameter(
      specs,
      [&](const std::string&, const ParameterSpec& spec, const Out<float, 2>& w) {
        Random random(seed, ++stream);
        i64 at = -1;
        for (float& value : w.span()) {
          ++at;
          switch (spec.init) {
            case ParameterSpec::Init::zeros:
              value = 0;
              break;
            case ParameterSpec::Init::constant:
              value = spec.value;
              break;
            case ParameterSpec::Init::normal:
              value = static_cast<float>(random.normal()) * spec.deviation;
              break;
            case ParameterSpec::Init::convolution:
              value =
                  static_cast<float>(random.normal()) * spec.deviation - (at % spec.taps == spec.taps - 1 ? 1.f : 0.f);
              break;
            case ParameterSpec::Init::feature_maps: {
              const i64 feature = at / spec.channels % spec.features, channel = at % spec.channels;
              if (feature % spec.channels == channel) value = feature / spec.channels % 2 ? -1.f : 1.f;
              break;
            }
          }
        }
      },
      weights);
}

Model model_of(const Config& config, const std::shared_ptr<const FlatParams>& flat) {
  Model model{config, empty_params<Matrix>(config), flat};
  for_each_parameter(
      parameter_specs(config),
      [](const std::string&, const ParameterSpec&, Matrix& matrix, const Out<float, 2>& view) {
        matrix = as_matrix(view);
      },
      model.weights, flat->views);
  return model;
}

namespace {

// Uniform numbers of a deviation: quick to draw, and a benchmark needs no bell curve. Of a quantised matrix some rows
// are quantised, the others repeat them.
void fill_random(const MutableMatrix& target, float deviation, Random random) {
  const float width = deviation * 3.4641016f;
  const auto draw = [&] { return (static_cast<float>(random.uniform()) - 0.5f) * width; };
  if (!is_quantised(target.dtype)) {
    for (i64 i = 0; i < target.rows * target.cols; ++i) target.set(0, i, draw());
    return;
  }
  constexpr i64 different = 64;
  const size_t bytes = static_cast<size_t>(bytes_for(target.dtype, target.cols));
  std::vector<float> row(static_cast<size_t>(target.cols));
  for (i64 i = 0; i < target.rows; ++i) {
    std::byte* to = target.bytes.data() + static_cast<size_t>(i) * bytes;
    if (i >= different) {
      std::memcpy(to, target.bytes.data() + static_cast<size_t>(random.below(different)) * bytes, bytes);
      continue;
    }
    std::generate(row.begin(), row.end(), draw);
    quantize_row(target.dtype, row, {}, to);
  }
}

}  // namespace

Model random_model(const Config& config, DType dtype, u64 seed) {
  const auto specs = parameter_specs(config);
  i64 bytes = 0;
  const auto dtype_of_spec = [&](const ParameterSpec& spec) { return spec.is_vector ? DType::f32 : dtype; };
  const auto bytes_of_spec = [&](const ParameterSpec& spec) {
    return spec.is_vector ? spec.size() * size_of(DType::f32) : spec.rows * bytes_for(dtype, spec.cols);
  };
  for_each_parameter(specs, [&](const std::string& name, const ParameterSpec& spec) {
    if (!spec.is_vector && spec.cols % block_size(dtype) != 0)
      fail("random model: rows of {} numbers in {} are not whole blocks of {}", spec.cols, name, block_size(dtype));
    bytes += padded(bytes_of_spec(spec), 1);
  });
  auto buffer = std::make_shared<Buffer>(bytes);
  Model model{config, empty_params<Matrix>(config), buffer};
  i64 offset = 0;
  u64 stream = 0;
  for_each_parameter(
      specs,
      [&](const std::string&, const ParameterSpec& spec, Matrix& matrix) {
        const auto region =
            buffer->bytes().subspan(static_cast<size_t>(offset), static_cast<size_t>(bytes_of_spec(spec)));
        const MutableMatrix target{dtype_of_spec(spec), spec.rows, spec.cols, region};
        ++stream;
        if (spec.is_vector)
          std::fill_n(target.as<float>(), spec.size(), spec.init == ParameterSpec::Init::constant ? spec.value : 0.f);
        else
          fill_random(target, spec.deviation, Random(seed, stream));
        matrix = target;
        offset += padded(bytes_of_spec(spec), 1);
      },
      model.weights);
  return model;
}

i64 weight_bytes(const Model& model) {
  i64 total = 0;
  for_each_parameter(
      parameter_specs(model.config),
      [&](const std::string&, const ParameterSpec&, const Matrix& m) { total += static_cast<i64>(m.bytes.size()); },
      model.weights);
  return total;
}

i64 decode_bytes(const Model& model) {
  const auto table_bytes = [](const Matrix& m) { return static_cast<i64>(m.bytes.size()); };
  i64 total = weight_bytes(model) - table_bytes(model.weights.position_embedding);
  if (!model.config.tied) total -= table_bytes(model.weights.token_embedding);
  return total;
}

}  // namespace sparsam
