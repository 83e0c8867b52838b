// For tests of growing: logits before and after, and what training might do in between.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/test_support.h"
#include "infer/test_support.h"
#include "model/transformer.h"

namespace sparsam {

inline std::vector<i32> growth_ids() { return random_ids(24, 300, 3); }

inline std::vector<float> logits_of(const Model& model) {
  const auto ids = growth_ids();
  const auto backend = make_backend("cpu");
  const Transformer transformer(model, *backend, Compute::f32, static_cast<i64>(ids.size()));
  Arena arena;
  const auto hidden = transformer.forward({{ids.data(), {static_cast<i64>(ids.size())}}}, arena);
  const auto logits = transformer.logits(hidden, arena);
  return {logits.begin(), logits.end()};
}

// max |a - b| / max |a|
inline double relative_difference(std::span<const float> a, std::span<const float> b) {
  double difference = 0, largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference = std::max(difference, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
    largest = std::max(largest, std::abs(static_cast<double>(a[i])));
  }
  return difference / largest;
}

// What training might have done: every number of the model moves, those that are new too.
inline TinyModel trained(const Model& model, u64 seed) {
  auto flat = std::make_shared<FlatParams>(parameter_specs(model.config));
  Random random(seed);
  for_each_parameter(
      parameter_specs(model.config),
      [&](const std::string&, const ParameterSpec&, const Matrix& from, const Out<float, 2>& to) {
        for (i64 i = 0; i < to.size(); ++i) to.data()[i] = from.at(0, i) + 0.05f * static_cast<float>(random.normal());
      },
      model.weights, flat->views);
  return {flat, model_of(model.config, flat)};
}

// Of the mean loss of predicting the next token, by every parameter.
inline std::shared_ptr<FlatParams> gradient_of(const Model& model) {
  const auto ids = growth_ids();
  const i64 T = static_cast<i64>(ids.size()) - 1;
  const auto backend = make_backend("cpu");
  const Transformer transformer(model, *backend, Compute::f32, T);
  auto gradients = std::make_shared<FlatParams>(parameter_specs(model.config));
  Arena arena;
  Activations kept;
  const Tokens tokens{{ids.data(), {T}}};
  const auto hidden = transformer.forward(tokens, arena, &kept);
  const auto dhidden = arena.allocate<float>(T, hidden.shape(1));
  const auto loss = arena.allocate<float>(T);
  backend->run(
      LinearCrossEntropyBackward{.loss = loss,
                                 .dx = dhidden,
                                 .dhead = model.config.tied ? gradients->views.token_embedding : gradients->views.head,
                                 .x = hidden,
                                 .head = model.head(),
                                 .targets = In<i32, 1>(ids.data() + 1, {T}),
                                 .scale = 1 / static_cast<float>(T),
                                 .compute = Compute::f32});
  transformer.backward(tokens, dhidden, kept, gradients->views, arena);
  return gradients;
}

}  // namespace sparsam
