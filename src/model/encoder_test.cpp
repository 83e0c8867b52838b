// Encoders and classifiers: a padded batch against PyTorch (tools/write_encoder_goldens.py), and against the same
// sequences without padding.
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>

#include "formats/safetensors.h"
#include "model/hugging_face.h"
#include "model/transformer.h"

namespace sparsam {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

In<float, 1> floats(const SafetensorsFile& file, const std::string& name) {
  const TensorEntry& entry = file.at(name);
  return {reinterpret_cast<const float*>(entry.bytes.data()), {entry.elements()}};
}
std::vector<i32> integers(const SafetensorsFile& file, const std::string& name) {
  const TensorEntry& entry = file.at(name);
  const auto* data = reinterpret_cast<const i32*>(entry.bytes.data());
  return {data, data + entry.elements()};
}
In<i32, 1> view(const std::vector<i32>& ids) { return {ids.data(), {static_cast<i64>(ids.size())}}; }

// Relative to the largest value. Some gradients are zero but for rounding (a bias of the keys shifts all scores of a
// row alike): below 0.01 differences count as absolute ones.
double relative_difference(In<float, 1> found, In<float, 1> expected) {
  EXPECT_EQ(found.size(), expected.size());
  double difference = 0, largest = 0.01;
  for (i64 i = 0; i < expected.size(); ++i) {
    difference = std::max(difference, std::abs(static_cast<double>(found[i]) - static_cast<double>(expected[i])));
    largest = std::max(largest, std::abs(static_cast<double>(expected[i])));
  }
  return difference / largest;
}

constexpr double tolerance = 1e-5;  // some tens of half ulps of the largest value

// A padded batch, and what the model makes of it.
struct Pass {
  i64 sequences, length;
  std::vector<i32> ids, lengths, targets;
  Tokens tokens() const { return {view(ids), sequences, 0, view(lengths)}; }
};

double loss_and_gradients(const Transformer& model, const Pass& pass, const FlatParams& gradients, Arena& arena,
                          float l1 = 0) {
  arena.reset();
  Activations kept;
  const Tokens tokens = pass.tokens();
  const auto rows = model.head_input(tokens, model.forward(tokens, arena, &kept), arena);
  const auto loss = arena.allocate<float>(rows.shape(0)), drows = arena.allocate<float>(rows.size());
  const auto dinput = drows.as(rows.shape(0), rows.shape(1));
  const auto wanted = std::count_if(pass.targets.begin(), pass.targets.end(), [](i32 id) { return id >= 0; });
  model.backend().run(LinearCrossEntropyBackward{.loss = loss,
                                                 .dx = dinput,
                                                 .dhead = head_of(model.model().config, gradients.views),
                                                 .x = rows,
                                                 .head = model.model().head(),
                                                 .targets = view(pass.targets),
                                                 .scale = 1.f / static_cast<float>(wanted),
                                                 .compute = Compute::f32});
  model.backward(tokens, model.head_input_backward(tokens, dinput, arena), kept, gradients.views, arena, l1);
  double sum = 0;
  for (const float value : loss) sum += static_cast<double>(value);
  return sum / static_cast<double>(wanted);
}

class EncoderGolden : public testing::TestWithParam<std::tuple<const char*, const char*>> {
 protected:
  const fs::path directory_ = fs::path(SPARSAM_TEST_DATA) / "golden/encoder" / std::get<0>(GetParam());
  const std::unique_ptr<Backend> backend_ = make_backend(std::get<1>(GetParam()));
  const SafetensorsFile golden_ = SafetensorsFile::open(directory_ / "golden.safetensors");
  const Model model_ = load_model(directory_);
  const i64 sequences_ = golden_.at("tokens").shape[0], length_ = golden_.at("tokens").shape[1];
  const Pass pass_{sequences_, length_, integers(golden_, "tokens"), integers(golden_, "lengths"),
                   integers(golden_, "targets")};
  const Transformer transformer_{model_, *backend_, Compute::f32, length_};
  bool classifies() const { return !model_.config.labels.empty(); }

  // Logits of real tokens, or of texts.
  std::vector<float> logits(const Pass& pass) const {
    Arena arena;
    const Tokens tokens = pass.tokens();
    const auto rows = transformer_.head_input(tokens, transformer_.forward(tokens, arena), arena);
    return real_rows(transformer_.logits(rows, arena).span(), pass);
  }
  std::vector<float> real_rows(std::span<const float> all, const Pass& pass) const {
    if (classifies()) return {all.begin(), all.end()};
    std::vector<float> real;
    const i64 row = static_cast<i64>(all.size()) / (pass.sequences * pass.length);
    for (i64 b = 0; b < pass.sequences; ++b) {
      const i64 count = pass.lengths.empty() ? pass.length : pass.lengths[static_cast<size_t>(b)];
      const auto first = all.begin() + b * pass.length * row;
      real.insert(real.end(), first, first + count * row);
    }
    return real;
  }
  Pass alone(i64 b) const {
    const auto first = pass_.ids.begin() + b * length_;
    const i64 count = pass_.lengths[static_cast<size_t>(b)];
    return {1, count, {first, first + count}, {}, {}};
  }
};

TEST_P(EncoderGolden, LogitsAreTorchs) {
  const std::vector<float> found = logits(pass_), expected = real_rows(floats(golden_, "logits").span(), pass_);
  EXPECT_LT(relative_difference({found.data(), {static_cast<i64>(found.size())}},
                                {expected.data(), {static_cast<i64>(expected.size())}}),
            tolerance);
}

TEST_P(EncoderGolden, GradientsAreTorchs) {
  const auto specs = parameter_specs(model_.config);
  const FlatParams gradients(specs);
  Arena arena;
  EXPECT_NEAR(loss_and_gradients(transformer_, pass_, gradients, arena), floats(golden_, "loss")[0], 1e-5);
  for_each_parameter(
      specs,
      [&](const std::string& name, const ParameterSpec&, const Out<float, 2>& gradient) {
        EXPECT_LT(relative_difference(gradient.as(gradient.size()), floats(golden_, "gradient." + name)), 2 * tolerance)
            << name;
      },
      gradients.views);
}

// Whatever ids stand in the padding, logits and gradients keep their bits, those of a penalty on activations too.
TEST_P(EncoderGolden, NothingDependsOnPadding) {
  Pass other = pass_;
  for (i64 b = 0; b < sequences_; ++b)
    for (i64 t = pass_.lengths[static_cast<size_t>(b)]; t < length_; ++t)
      other.ids[static_cast<size_t>(b * length_ + t)] = static_cast<i32>((7 * t + b) % model_.config.vocab);
  ASSERT_NE(other.ids, pass_.ids);
  EXPECT_EQ(logits(other), logits(pass_));
  const auto specs = parameter_specs(model_.config);
  const FlatParams a(specs), b(specs);
  Arena arena;
  EXPECT_EQ(loss_and_gradients(transformer_, pass_, a, arena, 0.1f),
            loss_and_gradients(transformer_, other, b, arena, 0.1f));
  EXPECT_TRUE(std::equal(a.all().begin(), a.all().end(), b.all().begin()));
}

TEST_P(EncoderGolden, ASequenceAloneGivesTheSame) {
  std::vector<float> apart;
  for (i64 b = 0; b < sequences_; ++b) {
    const std::vector<float> own = logits(alone(b));
    apart.insert(apart.end(), own.begin(), own.end());
  }
  const std::vector<float> together = logits(pass_);
  EXPECT_LT(relative_difference({apart.data(), {static_cast<i64>(apart.size())}},
                                {together.data(), {static_cast<i64>(together.size())}}),
            2e-6);  // products of another number of rows may round otherwise
}

TEST_P(EncoderGolden, ComesBackFromAFile) {
  const fs::path directory = fs::path(testing::TempDir()) / "sparsam_encoder" / std::get<1>(GetParam());
  fs::create_directories(directory);
  save_model(model_, directory);
  const Model again = load_model(directory);
  EXPECT_EQ(again.config, model_.config);
  EXPECT_EQ(to_json(again.config)["architectures"][0],
            classifies() ? "SparsamForSequenceClassification" : "SparsamForMaskedLM");
  EXPECT_THAT([&] { require_language_model(again.config, "it"); },
              ThrowsMessage<Error>(HasSubstr(classifies() ? "it: a classifier of 3 labels" : "it: an encoder")));
}

INSTANTIATE_TEST_SUITE_P(
    Models, EncoderGolden,
    testing::Combine(testing::Values("softmax_masked", "softmax_classifier", "lse_masked", "lse_classifier"),
                     testing::Values("reference", "cpu")),
    [](const auto& info) { return std::string(std::get<0>(info.param)) + "_" + std::get<1>(info.param); });

// An encoder's first token sees the last one; that of a language model does not.
TEST(Encoder, TokensSeeThoseAfterThem) {
  for (const Mixer mixer : {Mixer::softmax, Mixer::lse})
    for (const bool causal : {true, false}) {
      Config config = make_config({.vocab = 11, .context = 8, .layers = 1, .dim = 16, .heads = 2, .mixer = mixer});
      config.causal = causal;
      const Model model = random_model(config, DType::f32, 5);
      const auto backend = make_backend("cpu");
      const Transformer transformer(model, *backend, Compute::f32, 8);
      Arena arena;
      const std::vector<i32> ids{1, 2, 3, 4, 5, 6}, other{1, 2, 3, 4, 5, 7};
      const auto a = transformer.forward({view(ids)}, arena), b = transformer.forward({view(other)}, arena);
      const double difference = relative_difference(a[0], b[0]);  // a chunk's scale depends on all its keys: rounding
      EXPECT_TRUE(causal ? difference < 1e-6 : difference > 1e-3) << enum_name(mixer) << ": " << difference;
    }
}

// A classifier made from a language model: padding comes last, where no real token sees it.
TEST(Encoder, CausalClassifiersDoNotDependOnPadding) {
  Architecture lse{.vocab = 11, .context = 32, .layers = 2, .dim = 16, .heads = 2, .mixer = Mixer::lse};
  lse.decay = true, lse.convolution = 3, lse.window = 4, lse.softmax_every = 2;
  Config config = make_config(lse);
  config.labels = {"a", "b"};
  const Model model = random_model(config, DType::f32, 7);
  const auto backend = make_backend("cpu");
  const Transformer transformer(model, *backend, Compute::f32, 32);
  Pass pass{2, 32, std::vector<i32>(64, 3), {32, 5}, {0, 1}};
  for (size_t i = 0; i < pass.ids.size(); ++i) pass.ids[i] = static_cast<i32>(i * 7 % 11);
  Pass other = pass;
  for (size_t i = 37; i < other.ids.size(); ++i) other.ids[i] = static_cast<i32>(i * 3 % 11);
  const auto specs = parameter_specs(config);
  const FlatParams a(specs), b(specs);
  Arena arena;
  EXPECT_NEAR(loss_and_gradients(transformer, pass, a, arena, 0.1f),
              loss_and_gradients(transformer, other, b, arena, 0.1f), 1e-6);
  for_each_parameter(
      specs,
      [](const std::string& name, const ParameterSpec&, const Out<float, 2>& x, const Out<float, 2>& y) {
        EXPECT_LT(relative_difference(x.as(x.size()), y.as(y.size())), tolerance) << name;
      },
      a.views, b.views);
}

TEST(Encoder, RefusesWhatLooksBackOnly) {
  const auto expect_refused = [](const Architecture& a, const char* text) {
    Config config = make_config(a);
    config.causal = false;
    EXPECT_THAT([&] { validate(config, "m"); }, ThrowsMessage<Error>(HasSubstr(text)));
  };
  const Architecture softmax{.vocab = 11, .context = 8, .layers = 1, .dim = 16, .heads = 2};
  Architecture lse = softmax, window = softmax;
  lse.mixer = Mixer::lse, lse.decay = true, window.window = 4;
  expect_refused(lse, "m: layer 0 has a decay");
  expect_refused(window, "m: layer 0 has a window");
}

TEST(Encoder, RefusesLabelsThatAreNone) {
  const auto expect_refused = [](const Json& labels, const char* text) {
    Config config = make_config({.vocab = 11, .context = 8, .layers = 1, .dim = 16, .heads = 2});
    config.labels = {"a", "b"};
    Json json = to_json(config);
    json["id2label"] = labels;
    EXPECT_THAT([&] { config_from_json(json, "config.json"); }, ThrowsMessage<Error>(HasSubstr(text))) << labels.dump();
  };
  expect_refused(nullptr, "a classifier without labels; expected the field id2label");
  expect_refused({{"0", "a"}}, "1 labels, expected 2 to 65536");
  expect_refused({{"0", "a"}, {"2", "b"}}, "id2label: expected the labels 0 to 1 as strings; 1 is not one");
  expect_refused({{"0", "a"}, {"1", 3}}, "1 is not one");
  expect_refused({{"0", "a"}, {"1", "a"}}, "of 2 labels two are the same");
  expect_refused({"a", "b"}, "expected an object of labels");
}

}  // namespace
}  // namespace sparsam
