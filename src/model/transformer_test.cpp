// The backward against central differences of the loss, and the cached forward against the whole-sequence forward, for
// every choice that a description can make. All in the reference backend.
#include "model/transformer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>

#include "base/threads.h"

namespace sparsam {
namespace {

constexpr i64 vocab = 11, dim = 8, context = 12, sequences = 2, length = 5;

Config tiny(const std::function<void(Architecture&)>& change) {
  Architecture a{.vocab = vocab, .context = context, .layers = 2, .dim = dim, .heads = 2, .hidden = 12};
  change(a);
  return make_config(a);
}

struct Case {
  std::string name;
  Config config;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  const auto add = [&](const char* name, const std::function<void(Architecture&)>& change) {
    all.push_back({name, tiny(change)});
  };
  add("llama", [](Architecture&) {});
  add("grouped heads, four channels each", [](Architecture& a) { a.heads = 4, a.kv_heads = 2, a.head_dim = 4; });
  add("one key-value head", [](Architecture& a) { a.heads = 4, a.kv_heads = 1; });
  add("q/k norm", [](Architecture& a) { a.heads = 4, a.kv_heads = 2, a.head_dim = 6, a.qk_norm = true; });
  add("biases", [](Architecture& a) { a.qkv_bias = a.out_bias = a.mlp_bias = true; });
  add("parallel residual", [](Architecture& a) { a.residual = Residual::parallel; });
  add("learned positions", [](Architecture& a) { a.positions = Positions::learned; });
  add("no positions", [](Architecture& a) { a.positions = Positions::none; });
  add("interleaved pairs", [](Architecture& a) { a.pairing = Pairing::interleaved; });
  add("half of the channels turned", [](Architecture& a) { a.rotary_channels = 2; });
  add("norm without gain", [](Architecture& a) { a.norm_gain = false; });
  add("layer norm", [](Architecture& a) { a.norm = NormKind::layer; });
  add("layer norm with bias", [](Architecture& a) { a.norm = NormKind::layer, a.norm_bias = true; });
  add("layer norm without gain", [](Architecture& a) { a.norm = NormKind::layer, a.norm_gain = false; });
  add("untied head", [](Architecture& a) { a.tied = false; });
  add("no layers", [](Architecture& a) { a.layers = 0; });
  for (const std::string& function : function_names())
    for (const bool gated : {false, true})
      add((function + (gated ? ", gated" : ", plain")).c_str(),
          [&](Architecture& a) { a.activation = function_from_name(function, "test"), a.gated = gated; });
  add("gpt2", [](Architecture& a) {
    const Architecture gpt2 = preset("gpt2");
    a.gated = gpt2.gated, a.activation = gpt2.activation, a.norm = gpt2.norm, a.norm_bias = gpt2.norm_bias;
    a.positions = gpt2.positions, a.qkv_bias = a.out_bias = a.mlp_bias = true;
  });
  add("window", [](Architecture& a) { a.window = 3, a.kv_heads = 1; });
  add("both branches activated", [](Architecture& a) { a.activate_up = true; });
  add("scales", [](Architecture&) {});
  all.back().config.embedding_scale = 3, all.back().config.branch_scale = 0.5f, all.back().config.logit_scale = 0.7f;
  all.push_back({"scales, side by side", all.back().config});
  all.back().config.residual = Residual::parallel;
  all.push_back({"scales and learned positions", all.back().config});
  all.back().config.positions = Positions::learned;
  add("inner norms", [](Architecture& a) { a.heads = 4, a.kv_heads = 2, a.head_dim = 4; });
  for (Layer& layer : all.back().config.layers) {
    std::get<SoftmaxAttention>(layer.mixer).inner_norm = true;
    std::get<GatedMlp>(layer.mlp).inner_norm = true;
  }
  add("YaRN", [](Architecture&) {});
  all.back().config.rotary.scaling = YarnScaling{.factor = 4, .attention_factor = 1.3f, .original_context = 6};
  add("dropped sublayers", [](Architecture& a) { a.layers = 3; });
  all.back().config.layers[0].mlp = std::monostate{};
  all.back().config.layers[1].mixer = std::monostate{};
  all.push_back({"dropped sublayers, side by side", all.back().config});
  all.back().config.residual = Residual::parallel;
  all.push_back({"an empty block", tiny([](Architecture&) {})});
  all.back().config.layers[0] = Layer{};
  return all;
}

// Those whose sessions remember more than keys and values: infer/session_state_test.cpp proves their cached forward.
std::vector<Case> cases_with_states() {
  std::vector<Case> all;
  const auto add = [&](const char* name, const std::function<void(Architecture&)>& change) {
    all.push_back({name, tiny(change)});
  };
  const auto lse = [&](const char* name, const std::function<void(Architecture&)>& change) {
    add(name, [&](Architecture& a) { a.mixer = Mixer::lse, change(a); });
  };
  add("convolution", [](Architecture& a) { a.heads = 4, a.kv_heads = 2, a.convolution = 3; });
  add("convolution before a q/k norm and biases",
      [](Architecture& a) { a.convolution = 2, a.qk_norm = a.qkv_bias = true; });
  add("recurrent positions", [](Architecture& a) { a.positions = Positions::recurrent; });
  lse("lse", [](Architecture&) {});
  lse("lse, logarithms", [](Architecture& a) { a.log_values = true, a.value_dim = 3; });
  lse("lse, options", [](Architecture& a) {
    a.heads = 4, a.kv_heads = 2, a.decay = a.head_scale = true, a.convolution = 3, a.window = 2, a.key_cap = 4;
  });
  lse("lse, features", [](Architecture& a) { a.heads = 4, a.kv_heads = 2, a.feature_dim = 6, a.head_scale = true; });
  lse("lse, shared window", [](Architecture& a) { a.window = 2, a.shared_window = true; });
  lse("lse, shared window as long as the text", [](Architecture& a) { a.window = 7, a.shared_window = true; });
  lse("lse, shared window, features, decay", [](Architecture& a) {
    a.heads = 4, a.kv_heads = 2, a.feature_dim = 3, a.window = 2, a.shared_window = a.decay = a.qkv_bias = true;
  });
  lse("lse, published", [](Architecture& a) {
    const Architecture published = preset("lse-125m");
    a.mlp = published.mlp, a.log_values = published.log_values, a.output_glu = published.output_glu;
    a.norm = published.norm, a.norm_bias = published.norm_bias, a.positions = published.positions, a.qkv_bias = true;
  });
  return all;
}

std::shared_ptr<FlatParams> random_weights(const Config& config) {
  const auto specs = parameter_specs(config);
  auto weights = std::make_shared<FlatParams>(specs);
  Random random(7);
  for_each_parameter(
      specs,
      [&](const std::string&, const ParameterSpec& spec, const Out<float, 2>& w) {
        // Gains about 1, everything else (biases too) far enough from 0 to matter.
        for (float& value : w.span())
          value = static_cast<float>((spec.init == ParameterSpec::Init::constant ? 1 : 0) + 0.4 * random.normal());
      },
      weights->views);
  return weights;
}

struct Loss {
  const Config& config;
  std::shared_ptr<FlatParams> weights = random_weights(config);
  Model model = model_of(config, weights);
  std::unique_ptr<Backend> backend = make_backend("reference");
  Transformer transformer{model, *backend, Compute::f32, context};
  Arena arena;
  std::vector<i32> ids, targets;

  explicit Loss(const Config& c) : config(c) {
    Random random(3);
    for (i64 n = 0; n < sequences * length; ++n) {
      ids.push_back(static_cast<i32>(random.below(vocab)));
      targets.push_back(static_cast<i32>(random.below(vocab)));
    }
    targets[3] = -1;  // one that does not count
  }
  Tokens tokens() const { return {.ids = {ids.data(), {sequences * length}}, .sequences = sequences}; }
  In<i32, 1> target_view() const { return {targets.data(), {sequences * length}}; }

  double operator()() {
    double sum = 0;
    const auto hidden = transformer.forward(tokens(), arena);
    for (const float loss : transformer.losses(hidden, target_view(), arena).span()) sum += static_cast<double>(loss);
    arena.reset();
    return sum;
  }

  void gradients(FlatParams& result) {
    Activations kept;
    const auto hidden = transformer.forward(tokens(), arena, &kept);
    const auto dhidden = arena.allocate<float>(sequences * length, config.dim);
    backend->run(LinearCrossEntropyBackward{.loss = arena.allocate<float>(sequences * length),
                                            .dx = dhidden,
                                            .dhead = config.tied ? result.views.token_embedding : result.views.head,
                                            .x = hidden,
                                            .head = model.head(),
                                            .targets = target_view(),
                                            .scale = 1,
                                            .compute = Compute::f32});
    transformer.backward(tokens(), dhidden, kept, result.views, arena);
    arena.reset();
  }

  // d loss / d s of w + s direction at s = 0, and how far it can be from the truth. With central differences of steps h
  // and h / 2, Richardson's extrapolation leaves less truncation error than the two differ by. Each value of the loss
  // carries the float32 roundings of the operations it went through: `roundings` of them, relative to its terms.
  struct Slope {
    double value, error;
  };
  Slope slope(std::span<float> w, std::span<const double> direction) {
    const std::vector<float> before(w.begin(), w.end());
    const auto difference = [&](double h) {
      double values[2];
      for (const int side : {0, 1}) {
        for (size_t i = 0; i < w.size(); ++i)
          w[i] = static_cast<float>(static_cast<double>(before[i]) + (side ? -h : h) * direction[i]);
        values[side] = (*this)();
      }
      std::copy(before.begin(), before.end(), w.begin());
      return (values[0] - values[1]) / (2 * h);
    };
    constexpr double h = 1.0 / 64, float_epsilon = 0x1p-24;
    const double coarse = difference(h), fine = difference(h / 2);
    const double roundings = 4 + 12 * static_cast<double>(config.layers.size());
    const double rounding = roundings * float_epsilon * std::abs((*this)());
    return {(4 * fine - coarse) / 3, std::abs(fine - coarse) + rounding / h};
  }
};

// The models are so small that threads would only wait for each other.
class TransformerTest : public ::testing::Test {
 protected:
  TransformerTest() { set_threads(1); }
  ~TransformerTest() override { set_threads(0); }
};

TEST_F(TransformerTest, BackwardIsTheSlopeOfTheLoss) {
  std::vector<Case> all = cases();
  for (const Case& c : cases_with_states()) all.push_back(c);
  for (const Case& c : all) {
    Loss loss(c.config);
    const auto specs = parameter_specs(c.config);
    FlatParams gradients(specs);
    loss.gradients(gradients);
    Random random(5);
    for_each_parameter(
        specs,
        [&](const std::string& name, const ParameterSpec&, const Out<float, 2>& w, const Out<float, 2>& dw) {
          // Along the gradient itself, where a part that is wrong in size shows, and along random directions.
          for (int trial = 0; trial < 3; ++trial) {
            std::vector<double> direction(static_cast<size_t>(w.size()));
            double squared = 0, expected = 0;
            for (size_t i = 0; i < direction.size(); ++i) {
              direction[i] = trial == 0 ? static_cast<double>(dw.span()[i]) : random.normal();
              squared += direction[i] * direction[i];
            }
            if (squared == 0) continue;
            for (size_t i = 0; i < direction.size(); ++i) {
              direction[i] /= std::sqrt(squared);
              expected += direction[i] * static_cast<double>(dw.span()[i]);
            }
            const Loss::Slope slope = loss.slope(w.span(), direction);
            EXPECT_NEAR(expected, slope.value, slope.error) << c.name << ": " << name << ", direction " << trial;
            // The test can fail: the tolerance is small beside the gradient. (Without rotary positions a bias of the
            // keys shifts all scores of a row alike: its gradient is zero.)
            const bool zero = std::sqrt(squared) < 1e-5;
            if (trial == 0 && !zero) {
              EXPECT_LT(slope.error, 0.2 * std::sqrt(squared) + 1e-3) << c.name << ": " << name;
            }
          }
        },
        loss.weights->views, gradients.views);
  }
}

TEST_F(TransformerTest, GradientsAreSummed) {
  const Config config = tiny([](Architecture& a) { a.qkv_bias = a.mlp_bias = true; });
  Loss loss(config);
  FlatParams once(parameter_specs(config)), twice(parameter_specs(config));
  loss.gradients(once);
  loss.gradients(twice);
  loss.gradients(twice);
  for (i64 i = 0; i < once.all().size(); ++i) EXPECT_NEAR(2 * once.all()[i], twice.all()[i], 1e-5f) << i;
}

// Keys and values of every layer for `capacity` positions.
struct Caches {
  std::vector<Buffer> buffers;
  std::vector<MixerCache> layers;

  Caches(const Config& config, i64 capacity) {
    for (const Layer& layer : config.layers) {
      LayerCache& cache = layers.emplace_back().attention;
      if (const auto* a = std::get_if<SoftmaxAttention>(&layer.mixer))
        for (MutableMatrix* m : {&cache.keys, &cache.values}) {
          const i64 rows = a->kv_heads * capacity;
          buffers.emplace_back(rows * a->head_dim * static_cast<i64>(sizeof(float)));
          *m = {DType::f32, rows, a->head_dim, buffers.back().bytes()};
        }
    }
  }
};

TEST_F(TransformerTest, CachedForwardIsTheForward) {
  for (const Case& c : cases()) {
    Loss loss(c.config);
    Arena arena, pieces;
    const In<i32, 1> ids(loss.ids.data(), {sequences * length});  // as one sequence
    const auto whole = loss.transformer.forward({.ids = ids}, arena);
    Caches caches(c.config, context);
    i64 start = 0;
    for (const i64 count : {4, 1, 1, 3, 1}) {  // a prompt, tokens one by one and in groups
      const auto part =
          loss.transformer.forward({.ids = ids.slice(start, count), .start = start}, pieces, nullptr, caches.layers);
      // Sums are in double: what differs is how float32 results round.
      for (i64 t = 0; t < count; ++t)
        for (i64 i = 0; i < dim; ++i)
          EXPECT_NEAR(part(t, i), whole(start + t, i), 2e-6 * (1 + std::abs(whole(start + t, i))))
              << c.name << ": position " << start + t;
      start += count;
      pieces.reset();
    }
    EXPECT_EQ(start, ids.size());
  }
}

TEST_F(TransformerTest, KeepingActivationsChangesNothing) {
  for (const Case& c : cases()) {
    Loss loss(c.config);
    Arena arena;
    Activations kept;
    const auto with = loss.transformer.forward(loss.tokens(), arena, &kept);
    const auto without = loss.transformer.forward(loss.tokens(), arena);
    for (i64 i = 0; i < with.size(); ++i) EXPECT_EQ(with.data()[i], without.data()[i]) << c.name << " at " << i;
  }
}

TEST_F(TransformerTest, ObserverSeesEverySublayer) {
  for (const Case& c : cases()) {
    Loss loss(c.config);
    Arena arena;
    std::vector<float> last;
    i64 sublayers = 0, expected = 0;
    for (const Layer& layer : c.config.layers) expected += 1 + has_attention(layer) + has_mlp(layer);
    const auto observe = [&](i64, Sublayer sublayer, In<float, 2> before, In<float, 2> after) {
      ++sublayers;
      EXPECT_EQ(before.shape(), after.shape());
      if (sublayer == Sublayer::block) {
        // A block begins where the one before ended.
        if (!last.empty()) {
          EXPECT_TRUE(std::equal(before.begin(), before.end(), last.begin())) << c.name;
        }
        last.assign(after.begin(), after.end());
      }
    };
    loss.transformer.forward(loss.tokens(), arena, nullptr, {}, observe);
    EXPECT_EQ(sublayers, expected) << c.name;
  }
}

TEST_F(TransformerTest, RefusesTokensOutsideTheVocabulary) {
  const Config config = tiny([](Architecture&) {});
  Loss loss(config);
  for (const i32 wrong : {-1, static_cast<i32>(vocab), 1 << 30}) {
    loss.ids[4] = wrong;
    EXPECT_THROW(loss(), Error);
  }
}

TEST_F(TransformerTest, RefusesMorePositionsThanItLearned) {
  const Config config = tiny([](Architecture& a) { a.positions = Positions::learned; });
  const Model model = model_of(config, random_weights(config));
  const auto backend = make_backend("reference");
  EXPECT_THROW(Transformer(model, *backend, Compute::f32, context + 1), Error);
}

}  // namespace
}  // namespace sparsam
