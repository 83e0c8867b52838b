// The model against PyTorch: logits, gradients and ten AdamW losses of tiny random models, written in double precision
// by tools/write_goldens.py, write_tokenformer_goldens.py and write_published_lse_goldens.py, which share no code with
// the sources.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "formats/safetensors.h"
#include "model/transformer.h"

namespace sparsam {
namespace {

In<float, 1> floats(const SafetensorsFile& file, const std::string& name) {
  const TensorEntry& entry = file.at(name);
  return {reinterpret_cast<const float*>(entry.bytes.data()), {entry.elements()}};
}

// The largest difference relative to the largest value. Some gradients are zero by symmetry (a bias of the keys shifts
// all scores of a row alike), in theory or up to rounding: below floor_value differences count as absolute ones.
constexpr double floor_value = 1e-3;
double relative_difference(In<float, 1> found, In<float, 1> expected) {
  EXPECT_EQ(found.size(), expected.size());
  double difference = 0, largest = 0;
  for (i64 i = 0; i < expected.size(); ++i) {
    difference = std::max(difference, std::abs(static_cast<double>(found[i]) - static_cast<double>(expected[i])));
    largest = std::max(largest, std::abs(static_cast<double>(expected[i])));
  }
  return difference / std::max(largest, floor_value);
}

// One step's data: (B, T) inputs and their targets.
struct Sample {
  i64 sequences, length;
  std::vector<i32> inputs, targets;
};
Sample sample_of(const SafetensorsFile& golden) {
  const TensorEntry& entry = golden.at("tokens");
  Sample sample{entry.shape[0], entry.shape[1] - 1, {}, {}};
  const auto* ids = reinterpret_cast<const i32*>(entry.bytes.data());
  for (i64 b = 0; b < sample.sequences; ++b)
    for (i64 t = 0; t < sample.length; ++t) {
      sample.inputs.push_back(ids[b * (sample.length + 1) + t]);
      sample.targets.push_back(ids[b * (sample.length + 1) + t + 1]);
    }
  return sample;
}
In<i32, 1> view(const std::vector<i32>& ids) { return {ids.data(), {static_cast<i64>(ids.size())}}; }

// Gradients of the mean loss, summed into `gradients`; returns the mean loss.
double loss_and_gradients(const Transformer& transformer, const Sample& sample, const FlatParams& gradients,
                          Arena& arena) {
  arena.reset();
  const i64 N = sample.sequences * sample.length;
  Activations kept;
  const Tokens tokens{view(sample.inputs), sample.sequences};
  const auto hidden = transformer.forward(tokens, arena, &kept);
  const auto loss = arena.allocate<float>(N);
  const auto dhidden = arena.allocate<float>(N, hidden.shape(1));
  const Model& model = transformer.model();
  transformer.backend().run(
      LinearCrossEntropyBackward{.loss = loss,
                                 .dx = dhidden,
                                 .dhead = model.config.tied ? gradients.views.token_embedding : gradients.views.head,
                                 .x = hidden,
                                 .head = model.head(),
                                 .targets = view(sample.targets),
                                 .scale = 1.f / static_cast<float>(N),
                                 .compute = Compute::f32});
  transformer.backward(tokens, dhidden, kept, gradients.views, arena);
  double sum = 0;
  for (const float value : loss) sum += value;
  return sum / static_cast<double>(N);
}

class Golden : public testing::TestWithParam<std::tuple<const char*, const char*>> {
 protected:
  const fs::path directory = fs::path(SPARSAM_TEST_DATA) / "golden" / std::get<0>(GetParam());
  const std::unique_ptr<Backend> backend = make_backend(std::get<1>(GetParam()));
  const SafetensorsFile golden = SafetensorsFile::open(directory / "golden.safetensors");
  const Model loaded = load_model(directory);
  const Sample sample = sample_of(golden);
  Arena arena;
};

// Float32 rounding through a few layers: some tens of half ulps (2^-24) of the largest value.
constexpr double tolerance = 1e-5;

TEST_P(Golden, Logits) {
  const Transformer transformer(loaded, *backend, Compute::f32, sample.length);
  const auto hidden = transformer.forward({view(sample.inputs), sample.sequences}, arena);
  const auto logits = transformer.logits(hidden, arena);
  EXPECT_LT(relative_difference(logits.as(logits.size()), floats(golden, "logits")), tolerance);
}

TEST_P(Golden, Gradients) {
  const Transformer transformer(loaded, *backend, Compute::f32, sample.length);
  const auto specs = parameter_specs(loaded.config);
  const FlatParams gradients(specs);
  loss_and_gradients(transformer, sample, gradients, arena);
  for_each_parameter(
      specs,
      [&](const std::string& name, const ParameterSpec&, const Out<float, 2>& gradient) {
        EXPECT_LT(relative_difference(gradient.as(gradient.size()), floats(golden, "gradient." + name)), 2 * tolerance)
            << name;
      },
      gradients.views);
}

TEST_P(Golden, TenLosses) {
  const auto specs = parameter_specs(loaded.config);
  const auto weights = std::make_shared<FlatParams>(specs);
  const FlatParams gradients(specs), m(specs), v(specs);
  for_each_parameter(
      specs,
      [](const std::string&, const ParameterSpec&, const Matrix& from, const Out<float, 2>& to) {
        std::copy_n(from.as<float>(), from.size(), to.data());
      },
      loaded.weights, weights->views);
  const Model model = model_of(loaded.config, weights);
  const Transformer transformer(model, *backend, Compute::f32, sample.length);
  const auto expected = floats(golden, "losses");
  for (i64 step = 1; step <= expected.size(); ++step) {
    std::fill(gradients.all().begin(), gradients.all().end(), 0.f);
    const double loss = loss_and_gradients(transformer, sample, gradients, arena);
    // AdamW divides by the root of v, which amplifies rounding where gradients are near zero.
    EXPECT_NEAR(loss, expected[step - 1], 2e-4 * expected[step - 1]) << "step " << step;
    double squared = 0;
    backend->run(SquaredNorm{.sum = {&squared, {1}}, .x = gradients.all()});
    const float clip = static_cast<float>(std::min(1.0, 1.0 / (std::sqrt(squared) + 1e-6)));
    for_each_parameter(
        specs,
        [&](const std::string&, const ParameterSpec& spec, const Out<float, 2>& w, const Out<float, 2>& dw,
            const Out<float, 2>& first, const Out<float, 2>& second) {
          const i64 n = w.size();
          backend->run(AdamW{.w = w.as(n),
                             .m = first.as(n),
                             .v = second.as(n),
                             .dw = dw.as(n),
                             .learning_rate = 1e-2f,
                             .beta1 = 0.9f,
                             .beta2 = 0.95f,
                             .eps = 1e-8f,
                             .weight_decay = spec.is_vector ? 0.f : 0.1f,
                             .gradient_scale = clip,
                             .step = step});
        },
        weights->views, gradients.views, m.views, v.views);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, Golden,
    testing::Combine(testing::Values("llama_gqa", "gpt2", "neox", "dropped", "no_positions", "lse", "lse_options",
                                     "lse_shared", "lse_published", "tokenformer_l2_norm_gelu",
                                     "tokenformer_gelu_l2_norm", "tokenformer_softmax"),
                     testing::Values("reference", "cpu")),
    [](const auto& info) { return std::string(std::get<0>(info.param)) + "_" + std::get<1>(info.param); });

}  // namespace
}  // namespace sparsam
