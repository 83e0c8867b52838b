// Runs of encoders and classifiers.
#include <gmock/gmock.h>

#include "formats/json.h"
#include "train/task_data.h"
#include "train/test_support.h"

namespace sparsam {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
using TaskTest = TrainTest;

constexpr const char* nouns[] = {"film", "cast", "plot", "song", "end", "hero"};
constexpr const char* words[][3] = {{"dull", "bad", "weak"}, {"fine", "great", "warm"}};

// Whether a text is good or bad is said by one of its words.
std::string labelled_texts(i64 count, u64 seed) {
  std::string texts;
  Random random(seed);
  for (i64 i = 0; i < count; ++i) {
    const size_t label = random.below(2);
    const auto filler = [&] {
      std::string some;
      for (u64 n = random.below(4); n > 0; --n) some += std::string(" the ") + nouns[random.below(6)];
      return some;
    };
    texts += label ? "good\ta" : "bad\ta";
    texts += filler() + " " + words[label][random.below(3)] + filler() + "\n";
  }
  return texts;
}

RunOptions classifier_run(const TemporaryDirectory& directory, std::string_view out, Mixer mixer = Mixer::softmax) {
  RunOptions options = tiny_run(directory, out);
  const fs::path train = directory / "train.tsv", valid = directory / "valid.tsv";
  if (!fs::exists(train)) write_text(train, labelled_texts(300, 1)), write_text(valid, labelled_texts(60, 2));
  options.sources.data = {train.string()}, options.sources.valid = {valid.string()};
  options.architecture.mixer = mixer, options.architecture.positions = Positions::learned;
  options.recipe.task = Task::classify, options.upkeep.eval_tokens = 0;
  options.recipe.batch = 16, options.recipe.accumulate = 2, options.recipe.steps = 60;
  return options;
}
RunOptions masked_run(const TemporaryDirectory& directory, std::string_view out, Mixer mixer = Mixer::softmax) {
  RunOptions options = tiny_run(directory, out);
  options.recipe.task = Task::masked;
  options.architecture.mixer = mixer, options.architecture.positions = Positions::learned;
  return options;
}

std::string weights(const fs::path& out) { return read_text(out / "model.safetensors"); }

TEST_F(TaskTest, ClassifiersLearn) {
  const TemporaryDirectory directory;
  for (const Mixer mixer : {Mixer::softmax, Mixer::lse}) {
    const RunOptions options = classifier_run(directory, enum_name(mixer), mixer);
    const RunResult result = start_run(options, {});
    ASSERT_TRUE(result.evaluation && result.evaluation->confusion);
    EXPECT_GT(result.evaluation->confusion->accuracy(), 0.95) << enum_name(mixer);
    EXPECT_EQ(result.evaluation->tokens, 60);  // texts
    EXPECT_LT(result.tokens, 60 * 32 * 16);    // without padding
    EXPECT_EQ(load_model(options.out).config.labels, (std::vector<std::string>{"bad", "good"}));
    EXPECT_GT(to_json(result)["validation"]["macro_f1"].get<double>(), 0.95);
  }
}

TEST_F(TaskTest, MaskedTokensAreLearnt) {
  const TemporaryDirectory directory;
  for (const Mixer mixer : {Mixer::softmax, Mixer::lse}) {
    RunOptions options = masked_run(directory, enum_name(mixer), mixer);
    options.recipe.batch = 16, options.recipe.steps = 60, options.recipe.accumulate = 1;
    double first = 0;
    RunEvents events;
    events.on_step = [&](const StepMetrics& metrics) { first = metrics.step == 1 ? metrics.loss : first; };
    const RunResult result = start_run(options, events);
    EXPECT_LT(result.evaluation->loss, first - 0.5) << enum_name(mixer);
    EXPECT_NEAR(static_cast<double>(result.evaluation->tokens), 0.15 * 300, 20);
    const Config config = load_model(options.out).config;
    EXPECT_FALSE(config.causal);
    const Tokenizer tokenizer = Tokenizer::load(options.out);
    EXPECT_EQ(tokenizer.mask_token(), static_cast<i32>(config.vocab - 1));
    EXPECT_EQ(config.vocab, 300);
  }
}

TEST_F(TaskTest, ResumesBitForBit) {
  const TemporaryDirectory directory;
  for (const Task task : {Task::masked, Task::classify}) {
    const std::string name = task == Task::masked ? "masked" : "classify";
    RunOptions straight = task == Task::masked ? masked_run(directory, name) : classifier_run(directory, name);
    straight.recipe.steps = 12, straight.recipe.l1 = "0.01";
    RunOptions half = straight;
    half.out = directory / (name + "-half"), half.upkeep.stop_after = 5;
    const RunResult whole = start_run(straight, {});
    EXPECT_TRUE(start_run(half, {}).stopped);
    half.upkeep.stop_after = 0;
    EXPECT_EQ(resume_run(half, {}).tokens, whole.tokens);
    EXPECT_EQ(weights(half.out), weights(straight.out)) << name;
  }
}

TEST_F(TaskTest, AClassifierBeginsFromAMaskedModel) {
  const TemporaryDirectory directory;
  RunOptions masked = masked_run(directory, "masked");
  start_run(masked, {});
  RunOptions fine = classifier_run(directory, "fine");
  fine.sources.from = masked.out.string();
  fine.architecture = {};
  fine.recipe.lr = 0;  // nothing but the head differs
  fine.recipe.steps = 1;
  start_run(fine, {});
  const Model before = load_model(masked.out), after = load_model(fine.out);
  EXPECT_FALSE(after.config.causal);
  EXPECT_EQ(after.config.labels.size(), 2u);
  for_each_parameter(
      parameter_specs(before.config),
      [](const std::string& name, const ParameterSpec&, const Matrix& a, const Matrix& b) {
        EXPECT_TRUE(std::equal(a.bytes.begin(), a.bytes.end(), b.bytes.begin(), b.bytes.end())) << name;
      },
      before.weights, after.weights);
  EXPECT_EQ(after.weights.score.rows, 2);
  // ... and further from the classifier, whose labels stay.
  RunOptions further = fine;
  further.sources.from = fine.out.string(), further.out = directory / "further", further.recipe.lr = 1e-2;
  further.recipe.steps = 40;
  EXPECT_GT(start_run(further, {}).evaluation->confusion->accuracy(), 0.9);
}

// Sequences of different lengths, in one batch or in several.
TEST_F(TaskTest, AccumulationIsALargerBatch) {
  Config config = make_config({.vocab = 13, .context = 8, .layers = 1, .dim = 16, .heads = 2});
  config.causal = false, config.labels = {"a", "b", "c"};
  const SampleSource samples = [](i64 sample, std::span<i32> ids, std::span<i32> targets) {
    Random random(3, static_cast<u64>(sample));
    for (i32& id : ids) id = static_cast<i32>(random.below(13));
    targets[0] = static_cast<i32>(random.below(3));
    return 1 + static_cast<i64>(random.below(8));
  };
  const auto backend = make_backend("reference");
  const auto trained = [&](i64 batch, i64 accumulate) {
    Recipe recipe;
    recipe.batch = batch, recipe.accumulate = accumulate, recipe.sequence = 8, recipe.precision = Compute::f32;
    const auto specs = parameter_specs(config);
    auto weights = std::make_shared<FlatParams>(specs);
    initialize(specs, weights->views, 1);
    Trainer trainer(config, weights, recipe, *backend);
    const StepMetrics metrics = trainer.step(samples, 1e-3, 0.1);
    const auto moments = trainer.first_moments().all().span();
    return std::pair(metrics, std::vector<float>(moments.begin(), moments.end()));
  };
  const auto whole = trained(6, 1), parts = trained(2, 3);
  EXPECT_NEAR(whole.first.loss, parts.first.loss, 1e-6);
  EXPECT_EQ(whole.first.step_tokens, parts.first.step_tokens);
  EXPECT_NEAR(l1_penalty(whole.first.activity), l1_penalty(parts.first.activity), 1e-6);
  for (size_t i = 0; i < whole.second.size(); ++i) EXPECT_NEAR(whole.second[i], parts.second[i], 1e-7f);
}

TEST_F(TaskTest, RefusesWhatDoesNotFit) {
  const TemporaryDirectory directory;
  const auto expect_refused = [](const RunOptions& options, const char* text) {
    EXPECT_THAT([&] { start_run(options, {}); }, ThrowsMessage<Error>(HasSubstr(text)));
  };
  RunOptions language = tiny_run(directory, "language");
  language.recipe.steps = 1;
  start_run(language, {});
  RunOptions masked = masked_run(directory, "masked");
  masked.sources.from = language.out.string(), masked.architecture = {};
  expect_refused(masked, "is no encoder that predicts hidden tokens, which --task masked needs");
  masked = masked_run(directory, "masked");
  masked.architecture.window = 4;
  expect_refused(masked, "layer 0 has a window");
  masked = masked_run(directory, "masked");
  masked.recipe.mask = 1;
  expect_refused(masked, "--mask is 1");
  RunOptions classify = classifier_run(directory, "classify");
  write_text(directory / "other.tsv", "good\tfine\nugly\tdull\n");
  classify.sources.valid = {(directory / "other.tsv").string()};
  expect_refused(classify, "ugly");
  classify.sources.data.clear();
  expect_refused(classify, "--task classify needs labelled texts: give --data");
  masked = masked_run(directory, "encoder");
  masked.recipe.steps = 1;
  start_run(masked, {});
  language = tiny_run(directory, "further");
  language.sources.from = masked.out.string(), language.architecture = {};
  expect_refused(language, "an encoder, whose tokens see those after them");
}

TEST_F(TaskTest, EpochsBecomeSteps) {
  const TemporaryDirectory directory;
  RunOptions options = classifier_run(directory, "out");
  options.recipe.steps = 0, options.recipe.epochs = 2;
  EXPECT_EQ(start_run(options, {}).steps, 19);  // 2 x 300 texts, 32 a step
}

// A file sorted by label leaves both labels in both parts.
TEST_F(TaskTest, HoldsOutARandomPart) {
  const TemporaryDirectory directory;
  std::string sorted;
  for (int i = 0; i < 100; ++i) sorted += fmt::format("{}\ttext {}\n", i < 50 ? "a" : "b", i);
  write_text(directory / "sorted.tsv", sorted);
  Sources sources;
  sources.data = {(directory / "sorted.tsv").string()}, sources.valid_fraction = 0.2;
  Recipe recipe;
  recipe.task = Task::classify;
  const TaskTexts texts = read_task_texts(sources, recipe, {});
  EXPECT_EQ(texts.train.size(), 80u);
  ASSERT_EQ(texts.held_out.size(), 20u);
  const auto labelled_a =
      std::count_if(texts.held_out.begin(), texts.held_out.end(), [](const auto& text) { return text.label == "a"; });
  EXPECT_GT(labelled_a, 2);
  EXPECT_LT(labelled_a, 18);
  EXPECT_EQ(texts.labels(), (std::vector<std::string>{"a", "b"}));
}

}  // namespace
}  // namespace sparsam
