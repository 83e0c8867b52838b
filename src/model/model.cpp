#include "model/model.h"

#include <algorithm>
#include <cstring>

namespace sparsam {

namespace {

constexpr i64 alignment = 16;  // floats: each parameter begins on a cache line

i64 padded(i64 size) { return (size + alignment - 1) / alignment * alignment; }

i64 flat_size(const Params<ParameterSpec>& specs) {
  i64 total = 0;
  for_each_parameter(specs, [&](const std::string&, const ParameterSpec& spec) { total += padded(spec.size()); });
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
        next += padded(spec.size());
      },
      views);
}

void initialize(const Params<ParameterSpec>& specs, const Params<Out<float, 2>>& weights, u64 seed) {
  u64 stream = 0;
  for_each_parameter(
      specs,
      [&](const std::string&, const ParameterSpec& spec, const Out<float, 2>& w) {
        Random random(seed, ++stream);
        for (float& value : w.span()) {
          switch (spec.init) {
            case ParameterSpec::Init::zeros:
              value = 0;
              break;
            case ParameterSpec::Init::ones:
              value = 1;
              break;
            case ParameterSpec::Init::normal:
              value = static_cast<float>(random.normal()) * spec.deviation;
              break;
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

Model random_model(const Config& config, DType dtype, u64 seed) {
  const auto specs = parameter_specs(config);
  i64 bytes = 0;
  const auto dtype_of_spec = [&](const ParameterSpec& spec) { return spec.is_vector ? DType::f32 : dtype; };
  for_each_parameter(specs, [&](const std::string&, const ParameterSpec& spec) {
    bytes += padded(spec.size()) * size_of(dtype_of_spec(spec));
  });
  auto buffer = std::make_shared<Buffer>(bytes);
  Model model{config, empty_params<Matrix>(config), buffer};
  i64 offset = 0;
  u64 stream = 0;
  for_each_parameter(
      specs,
      [&](const std::string&, const ParameterSpec& spec, Matrix& matrix) {
        const DType type = dtype_of_spec(spec);
        const auto region =
            buffer->bytes().subspan(static_cast<size_t>(offset), static_cast<size_t>(spec.size() * size_of(type)));
        const MutableMatrix target{type, spec.rows, spec.cols, region};
        // Uniform numbers of the same deviation: quick to draw, and a benchmark needs no bell curve.
        Random random(seed, ++stream);
        const float width = spec.deviation * 3.4641016f;
        for (i64 i = 0; i < spec.size(); ++i) {
          const float value = spec.is_vector ? (spec.init == ParameterSpec::Init::ones ? 1.f : 0.f)
                                             : (static_cast<float>(random.uniform()) - 0.5f) * width;
          target.set(0, i, value);
        }
        matrix = target;
        offset += padded(spec.size()) * size_of(type);
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
