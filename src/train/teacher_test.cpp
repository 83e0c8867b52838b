#include "train/teacher.h"

#include <gmock/gmock.h>

#include <fstream>

#include "train/test_support.h"

namespace sparsam {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

using TeacherTest = TrainTest;

std::vector<float> weights_of(const fs::path& model) {
  const Model read = load_model(model);
  FlatParams weights(parameter_specs(read.config));
  read_weights(read, weights);
  return {weights.all().begin(), weights.all().end()};
}

// A teacher and a run that learns from it, its own weights from another seed.
struct Pair {
  RunOptions teacher, student;
  Pair(const TemporaryDirectory& directory, const std::string& name)
      : teacher(tiny_run(directory, name + "-teacher")), student(tiny_run(directory, name + "-student")) {
    teacher.recipe.steps = 60;
    start_run(teacher, {});
    student.sources.teacher = student.sources.tokenizer = teacher.out.string();
    student.recipe.seed = 5;
  }
};

TEST_F(TeacherTest, TheDivergenceFromTheTeacherFalls) {
  const TemporaryDirectory directory;
  Pair pair(directory, "falls");
  pair.student.recipe.distill_weight = 1, pair.student.recipe.steps = 60;
  std::vector<double> losses;
  RunEvents events;
  events.on_step = [&](const StepMetrics& m) { losses.push_back(m.loss); };
  const RunResult result = start_run(pair.student, events);
  EXPECT_LT(losses.back(), 0.5 * losses.front());
  // The teacher alone has taught the text.
  EXPECT_LT(result.evaluation->loss, std::log(300.0) - 1);
}

// With weight 0 the loss is cross-entropy: another way to compute the same training.
TEST_F(TeacherTest, WithoutWeightTrainingIsAsWithoutTeacher) {
  const TemporaryDirectory directory;
  Pair pair(directory, "zero");
  pair.student.recipe.distill_weight = 0, pair.student.recipe.precision = Compute::f32;
  RunOptions alone = pair.student;
  alone.sources.teacher.clear(), alone.recipe.distill_weight = Recipe().distill_weight, alone.out = directory / "alone";
  start_run(pair.student, {});
  start_run(alone, {});
  const auto a = weights_of(pair.student.out), b = weights_of(alone.out);
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 2e-4) << i;
}

TEST_F(TeacherTest, ResumesBitForBitAndKnowsItsTeacher) {
  const TemporaryDirectory directory;
  Pair pair(directory, "resumes");
  pair.student.recipe.distill_temperature = 2;
  RunOptions half = pair.student;
  half.out = directory / "half", half.upkeep.stop_after = 10;
  start_run(pair.student, {});
  start_run(half, {});
  const Json before = parse_json(read_text(half.out / "checkpoint-000010/training/state.json"), "state.json");
  EXPECT_EQ(before["teacher_hash"], fmt::format("{:016x}", hash_of(load_model(pair.teacher.out))));
  half.upkeep.stop_after = 0;
  resume_run(half, {});
  EXPECT_EQ(read_text(half.out / "model.safetensors"), read_text(pair.student.out / "model.safetensors"));

  half.out = directory / "other", half.upkeep.stop_after = 10;
  start_run(half, {});
  RunOptions trained_on = pair.teacher;
  trained_on.recipe.steps = 20, trained_on.overwrite = true;
  start_run(trained_on, {});  // another teacher at the same path
  EXPECT_THAT([&] { resume_run(stored_options(half.out), {}); },
              ThrowsMessage<Error>(HasSubstr("--teacher differs from the model that the run began with")));
}

TEST_F(TeacherTest, RefusesATeacherOfOtherTokens) {
  const TemporaryDirectory directory;
  Pair pair(directory, "refuses");
  RunOptions student = pair.student;
  student.sources.tokenizer.clear(), student.architecture.vocab = 290;
  EXPECT_THAT([&] { start_run(student, {}); },
              ThrowsMessage<Error>(HasSubstr("has a vocabulary of 300, the model one of 290")));
  student = pair.student;
  std::ofstream(directory / "words.txt") << "Quite another text, of quite other words: zebra, yacht, xylophone. "
                                            "Zebras do not sail on yachts, they play the xylophone, don't they?";
  fs::create_directory(directory / "tokenizer");
  const std::string text = read_text(directory / "words.txt") + embedded_corpus(3000, 9).text;
  const std::string_view texts[] = {text};
  write_text(directory / "tokenizer/tokenizer.json", train_tokenizer(texts, 300).to_json());
  student.sources.tokenizer = (directory / "tokenizer").string();
  EXPECT_THAT([&] { start_run(student, {}); }, ThrowsMessage<Error>(HasSubstr("has another tokenizer")));
  student = pair.student;
  student.recipe.distill_weight = 1.5;
  EXPECT_THAT([&] { start_run(student, {}); }, ThrowsMessage<Error>(HasSubstr("--distill-weight is 1.5")));
  student.recipe.distill_weight = 0.3, student.sources.teacher.clear();
  EXPECT_THAT([&] { start_run(student, {}); }, ThrowsMessage<Error>(HasSubstr("are of --teacher, which is not given")));
}

}  // namespace
}  // namespace sparsam
