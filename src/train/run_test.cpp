#include "train/run.h"

#include <gmock/gmock.h>
#include <sys/resource.h>

#include <csignal>
#include <fstream>

#include "train/test_support.h"

namespace sparsam {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

std::vector<double> losses(const fs::path& out) {
  std::vector<double> values;
  std::ifstream file(out / "metrics.jsonl");
  for (std::string line; std::getline(file, line);) {
    const Json metrics = parse_json(line, "metrics.jsonl");
    values.push_back((metrics.contains("loss") ? metrics["loss"] : metrics["valid_loss"]).get<double>());
  }
  return values;
}

void expect_equal_runs(const fs::path& a, const fs::path& b, const std::string& what) {
  const std::string checkpoint = newest_checkpoint(a).value().filename().string();
  ASSERT_EQ(checkpoint, newest_checkpoint(b).value().filename().string()) << what;
  for (const char* file : {"model.safetensors", "training/optimizer.safetensors", "config.json", "tokenizer.json"})
    EXPECT_EQ(read_text(a / checkpoint / file), read_text(b / checkpoint / file)) << what << ": " << file;
  EXPECT_EQ(losses(a), losses(b)) << what;
}

std::vector<std::pair<std::string, RunOptions>> several_runs(const TemporaryDirectory& directory,
                                                             std::string_view out) {
  std::vector<std::pair<std::string, RunOptions>> runs;
  const auto add = [&](const char* name) -> RunOptions& {
    return runs.emplace_back(name, tiny_run(directory, std::string(out) + std::to_string(runs.size()))).second;
  };
  add("llama");
  add("llama, f32").recipe.precision = Compute::f32;
  Architecture& gpt2 = add("gpt2").architecture;
  gpt2.gated = false, gpt2.activation = Function::gelu_tanh, gpt2.norm = NormKind::layer, gpt2.norm_bias = true;
  gpt2.positions = Positions::learned, gpt2.qkv_bias = gpt2.out_bias = gpt2.mlp_bias = true;
  RunOptions& grouped = add("grouped, q/k norm, side by side, untied; wsd");
  grouped.architecture.kv_heads = 1, grouped.architecture.qk_norm = true, grouped.architecture.tied = false;
  grouped.architecture.residual = Residual::parallel;
  grouped.recipe.schedule = ScheduleKind::wsd;
  RunOptions& sparse = add("relu, progressive L1");
  sparse.architecture.activation = Function::relu;
  sparse.recipe.l1 = "0@10%,0.1@12,1@100%";
  return runs;
}

using RunTest = TrainTest;

TEST_F(RunTest, ResumesBitForBit) {
  const TemporaryDirectory directory;
  const auto straight = several_runs(directory, "straight"), halves = several_runs(directory, "halves");
  for (size_t i = 0; i < straight.size(); ++i) {
    const auto& [name, options] = straight[i];
    RunOptions half = halves[i].second;
    half.upkeep.stop_after = 10;
    EXPECT_FALSE(start_run(options, {}).stopped);
    EXPECT_TRUE(start_run(half, {}).stopped);
    EXPECT_EQ(newest_checkpoint(half.out)->filename(), "checkpoint-000010");
    half.upkeep.stop_after = 0;
    const RunResult result = resume_run(half, {});
    EXPECT_FALSE(result.stopped);
    EXPECT_EQ(result.step, 20);
    expect_equal_runs(options.out, half.out, name);
    EXPECT_EQ(losses(half.out).size(), 22u);  // twenty steps, two evaluations
  }
}

TEST_F(RunTest, ResumesFromTheMiddleOfWhatWasWritten) {
  const TemporaryDirectory directory;
  const RunOptions straight = tiny_run(directory, "straight");
  RunOptions killed = tiny_run(directory, "killed");
  start_run(straight, {});
  start_run(killed, {});
  fs::remove_all(killed.out / "checkpoint-000020");  // metrics went further than the checkpoints
  std::ofstream(killed.out / "metrics.jsonl", std::ios::app) << "{\"step\": 21, \"lo";
  fs::create_directory(killed.out / ".checkpoint-000020.1234.partial");
  resume_run(killed, {});
  expect_equal_runs(straight.out, killed.out, "killed");
  EXPECT_FALSE(fs::exists(killed.out / ".checkpoint-000020.1234.partial"));
}

TEST_F(RunTest, TheSeedDecidesTheBits) {
  const TemporaryDirectory directory;
  const RunOptions first = tiny_run(directory, "first"), again = tiny_run(directory, "again");
  RunOptions other = tiny_run(directory, "other");
  other.recipe.seed = 1;
  for (const int count : {1, 2}) {
    set_threads(count);
    for (RunOptions options : {first, again, other}) {
      options.overwrite = true;
      start_run(options, {});
    }
    expect_equal_runs(first.out, again.out, "same seed");
    EXPECT_NE(losses(first.out), losses(other.out));
  }
}

TEST_F(RunTest, LearnsAndReports) {
  const TemporaryDirectory directory;
  RunOptions options = tiny_run(directory, "out");
  options.recipe.steps = 0, options.recipe.tokens = 39 * 96 + 1;  // rounded up to 40 steps
  i64 steps = 0, evaluations = 0, checkpoints = 0;
  RunInfo info;
  RunEvents events;
  events.on_start = [&](const RunInfo& i) { info = i; };
  events.on_step = [&](const StepMetrics& m) { EXPECT_EQ(m.step, ++steps); };
  events.on_evaluation = [&](i64, const Evaluation&) { ++evaluations; };
  events.on_checkpoint = [&](const fs::path&) { ++checkpoints; };
  const RunResult result = start_run(options, events);
  EXPECT_EQ(steps, 40);
  EXPECT_EQ(evaluations, 4);
  EXPECT_EQ(checkpoints, 4);
  EXPECT_EQ(info.steps, 40);
  EXPECT_EQ(info.step_tokens, 96);
  EXPECT_EQ(result.tokens, 40 * 96);
  const auto all = losses(options.out);
  EXPECT_NEAR(all.front(), std::log(static_cast<double>(info.vocab)), 0.1);
  EXPECT_LT(result.evaluation->loss, all.front() - 1);
  // Two checkpoints are kept, and the model stands in the directory itself.
  EXPECT_FALSE(fs::exists(options.out / "checkpoint-000020"));
  EXPECT_TRUE(fs::exists(options.out / "checkpoint-000030"));
  EXPECT_EQ(parameter_count(load_model(options.out).config), info.parameters);
  EXPECT_EQ(read_text(options.out / "model.safetensors"), read_text(*result.checkpoint / "model.safetensors"));
  EXPECT_EQ(Tokenizer::load(options.out).vocab_size(), info.vocab);
  const Json manifest = parse_json(read_text(options.out / "run.json"), "run.json");
  EXPECT_EQ(manifest["result"]["step"], 40);
  EXPECT_EQ(manifest["recipe"]["seed"], 0);
  EXPECT_TRUE(manifest["environment"].contains("cpu"));
}

TEST_F(RunTest, StopsWhenAsked) {
  const TemporaryDirectory directory;
  RunOptions options = tiny_run(directory, "out");
  i64 asked = 0;
  RunEvents events;
  events.stop = [&] { return ++asked > 3; };
  const RunResult result = start_run(options, events);
  EXPECT_TRUE(result.stopped);
  EXPECT_EQ(result.step, 3);
  EXPECT_EQ(newest_checkpoint(options.out)->filename(), "checkpoint-000003");
  asked = 0;
  EXPECT_EQ(resume_run(options, events).step, 6);
}

TEST_F(RunTest, GoesOnFromAModel) {
  const TemporaryDirectory directory;
  const RunOptions first = tiny_run(directory, "first");
  start_run(first, {});
  RunOptions second = tiny_run(directory, "second");
  second.sources.from = first.out.string();
  second.recipe.steps = 1;
  second.recipe.lr = 0;
  start_run(second, {});
  EXPECT_EQ(read_text(first.out / "model.safetensors"), read_text(second.out / "model.safetensors"));
  EXPECT_EQ(read_text(first.out / "tokenizer.json"), read_text(second.out / "tokenizer.json"));
}

// What an activation costs before the weights know it is said first, and training wins it back.
TEST_F(RunTest, GoesOnWithAnotherActivation) {
  const TemporaryDirectory directory;
  RunOptions first = tiny_run(directory, "first");
  first.recipe.steps = 60;
  const RunResult trained = start_run(first, {});
  EXPECT_EQ(trained.initial_loss, 0);
  const Config before = load_model(first.out).config;
  for (const char* activation : {"relu", "relu2", "fatrelu:0.01", "drelu"}) {
    RunOptions second = tiny_run(directory, std::string("second-") + activation);
    second.sources.from = first.out.string(), second.activation = activation;
    second.recipe.steps = 60;
    const RunResult result = start_run(second, {});
    EXPECT_NE(result.initial_loss, trained.evaluation->loss) << activation;
    EXPECT_LT(result.evaluation->loss, result.initial_loss) << activation;
    const Model model = load_model(second.out);
    EXPECT_EQ(model.config, load_model(first.out, {.activation = activation}).config);
    EXPECT_NE(model.config, before);
    EXPECT_LT(mean_over(result.evaluation->activity, &LayerActivity::activation_ratio), 0.9) << activation;
    const Json manifest = parse_json(read_text(second.out / "run.json"), "run.json");
    EXPECT_EQ(manifest["activation"], activation);
    EXPECT_EQ(manifest["result"]["initial_validation"]["loss"], result.initial_loss);
    // A resumed run knows it all.
    EXPECT_EQ(stored_options(second.out).activation, activation);
    EXPECT_EQ(resume_run(stored_options(second.out), {}).initial_loss, result.initial_loss);
  }
  // Before the first step the loss is that of the weights as they came.
  RunOptions unchanged = tiny_run(directory, "unchanged");
  unchanged.sources.from = first.out.string();
  EXPECT_DOUBLE_EQ(start_run(unchanged, {}).initial_loss, trained.evaluation->loss);
  unchanged.sources.from.clear(), unchanged.overwrite = true, unchanged.activation = "relu";
  EXPECT_THAT([&] { start_run(unchanged, {}); }, ThrowsMessage<Error>(HasSubstr("--from, which is not given")));
}

// Every activation that has exact zeros learns, and its zeros are counted.
TEST_F(RunTest, SparseActivationsLearn) {
  const TemporaryDirectory directory;
  const auto run = [&](const std::string& name, const Architecture& shape, const std::string& l1) {
    RunOptions options = tiny_run(directory, name + l1);
    options.architecture = shape, options.recipe.l1 = l1, options.recipe.steps = 60;
    const RunResult result = start_run(options, {});
    EXPECT_LT(result.evaluation->loss, losses(options.out).front() - 1) << name;
    return mean_over(result.evaluation->activity, &LayerActivity::activation_ratio);
  };
  const Architecture tiny = tiny_run(directory, "").architecture;
  EXPECT_EQ(run("silu", tiny, "0"), 1);
  std::vector<std::pair<std::string, Architecture>> kinds;
  for (const Function function : {Function::relu, Function::relu2, Function::fatrelu})
    for (const bool gated : {true, false}) {
      auto& [name, shape] = kinds.emplace_back(name_of(function), tiny);
      name += gated ? "" : " plain";
      shape.gated = gated, shape.activation = function;
      shape.activation_threshold = function == Function::fatrelu ? 0.01f : 0;
    }
  kinds.emplace_back("drelu", tiny).second.activation = Function::relu;
  kinds.back().second.activate_up = true;
  for (const auto& [name, shape] : kinds) {
    const double without = run(name, shape, "0"), with = run(name, shape, "0@10%,3@50%");
    EXPECT_LT(without, 0.9) << name;
    EXPECT_LT(with, without - 0.02) << name;  // the penalty silences neurons
  }
}

TEST_F(RunTest, LogsThePenaltyAndEachLayersActivity) {
  const TemporaryDirectory directory;
  RunOptions options = tiny_run(directory, "out");
  options.architecture.activation = Function::relu, options.recipe.l1 = "0@5,2@15";
  start_run(options, {});
  std::ifstream file(options.out / "metrics.jsonl");
  i64 steps = 0, evaluations = 0;
  for (std::string text; std::getline(file, text);) {
    const Json line = parse_json(text, "metrics.jsonl");
    ASSERT_EQ(line["layers"].size(), 2u);
    double ratio = 0, penalty = 0;
    for (const Json& layer : line["layers"]) {
      EXPECT_GE(layer["dead_neurons"].get<double>(), 0);
      ratio += layer["activation_ratio"].get<double>() / 2, penalty += layer["mean_abs"].get<double>();
    }
    EXPECT_DOUBLE_EQ(line["activation_ratio"].get<double>(), ratio);
    EXPECT_TRUE(ratio > 0 && ratio < 1) << ratio;
    if (line.contains("valid_loss")) {
      ++evaluations;
      continue;
    }
    ++steps;
    EXPECT_DOUBLE_EQ(line["penalty"].get<double>(), penalty);
    const i64 step = line["step"].get<i64>();
    EXPECT_EQ(line["l1"].get<double>() == 0, step <= 5) << step;
    EXPECT_EQ(line["l1"].get<double>() == 2, step >= 15) << step;
  }
  EXPECT_EQ(steps, 20);
  EXPECT_EQ(evaluations, 2);
  EXPECT_EQ(parse_json(read_text(options.out / "run.json"), "run.json")["recipe"]["l1"], "0@5,2@15");
}

TEST_F(RunTest, RefusesToReplaceAModel) {
  const TemporaryDirectory directory;
  RunOptions options = tiny_run(directory, "out");
  start_run(options, {});
  EXPECT_THAT([&] { start_run(options, {}); }, ThrowsMessage<Error>(HasSubstr("--resume")));
  options.overwrite = true;
  options.recipe.steps = 2;
  start_run(options, {});
  EXPECT_EQ(newest_checkpoint(options.out)->filename(), "checkpoint-000002");
  EXPECT_EQ(losses(options.out).size(), 3u);
}

TEST_F(RunTest, TwoRunsDoNotShareADirectory) {
  const TemporaryDirectory directory;
  const RunOptions options = tiny_run(directory, "out");
  fs::create_directories(options.out);
  const DirectoryLock other(options.out);
  EXPECT_THAT([&] { start_run(options, {}); }, ThrowsMessage<Error>(HasSubstr("another run is writing")));
}

TEST_F(RunTest, NamesTheOptionsThatDiffer) {
  const TemporaryDirectory directory;
  const RunOptions options = tiny_run(directory, "out");
  start_run(options, {});
  const RunOptions stored = stored_options(options.out);
  refuse_differences(stored, stored);
  RunOptions asked = stored;
  asked.recipe.lr = 0.5, asked.recipe.l1 = "0.1";
  asked.architecture.activation = Function::relu;
  asked.upkeep.keep = 7;  // may differ
  EXPECT_THAT([&] { refuse_differences(asked, stored); },
              ThrowsMessage<Error>(AllOf(HasSubstr("--lr 0.5 (the run has 0.01)"),
                                         HasSubstr("--l1 \"0.1\" (the run has \"0\")"),
                                         HasSubstr("--activation \"relu\" (the run has \"silu\")"))));
}

TEST_F(RunTest, RefusesOtherData) {
  const TemporaryDirectory directory;
  RunOptions options = tiny_run(directory, "out");
  options.upkeep.stop_after = 10;
  start_run(options, {});
  write_text(directory / "other.txt", embedded_corpus(30'000, 4).text);
  options.sources.data = {(directory / "other.txt").string()};
  EXPECT_THAT([&] { resume_run(options, {}); }, ThrowsMessage<Error>(HasSubstr("the data differ")));
}

TEST_F(RunTest, SaysWhichCheckpointIsDamaged) {
  const TemporaryDirectory directory;
  const RunOptions options = tiny_run(directory, "out");
  EXPECT_THAT([&] { stored_options(options.out); }, ThrowsMessage<Error>(HasSubstr("no checkpoint")));
  for (const char* file : {"model.safetensors", "training/optimizer.safetensors", "training/state.json", "config.json",
                           "tokenizer.json"}) {
    for (const bool missing : {false, true}) {
      RunOptions again = options;
      again.overwrite = true;
      start_run(again, {});
      const fs::path path = options.out / "checkpoint-000020" / file;
      if (missing)
        fs::remove(path);
      else
        write_text(path, read_text(path).substr(0, fs::file_size(path) / 2));
      EXPECT_THAT([&] { resume_run(options, {}); },
                  ThrowsMessage<Error>(AllOf(HasSubstr("checkpoint-000020"), HasSubstr("damaged"))))
          << file;
      fs::remove_all(options.out / "checkpoint-000020");
      EXPECT_EQ(resume_run(options, {}).step, 20);
    }
  }
}

TEST_F(RunTest, AFullDiskLeavesTheLastCheckpointWhole) {
  const TemporaryDirectory directory;
  RunOptions options = tiny_run(directory, "out");
  options.architecture.dim = 64;  // 0.5 MB of weights
  RunEvents events;
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);  // writes fail with EFBIG
  events.on_step = [&](const StepMetrics& m) {
    const rlimit small{300'000, before.rlim_max};
    if (m.step == 15) ::setrlimit(RLIMIT_FSIZE, &small);
  };
  EXPECT_THAT([&] { start_run(options, events); }, ThrowsMessage<Error>(HasSubstr("cannot write")));
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(newest_checkpoint(options.out)->filename(), "checkpoint-000010");
  EXPECT_EQ(std::distance(fs::directory_iterator(options.out), {}), 7);  // and nothing half written
  EXPECT_EQ(resume_run(options, {}).step, 20);
}

TEST_F(RunTest, RefusesWhatDoesNotFit) {
  const TemporaryDirectory directory;
  const auto refused = [&](const std::function<void(RunOptions&)>& change, const char* text) {
    RunOptions options = tiny_run(directory, "refused");
    change(options);
    EXPECT_THAT([&] { start_run(options, {}); }, ThrowsMessage<Error>(HasSubstr(text)));
    EXPECT_FALSE(fs::exists(options.out / "model.safetensors"));
  };
  write_text(directory / "empty.txt", "");
  write_text(directory / "short.txt", "a few words");
  const std::string empty = (directory / "empty.txt").string(), brief = (directory / "short.txt").string();
  refused([&](RunOptions& o) { o.sources.data = {empty}; }, "empty.txt: no text");
  refused([&](RunOptions& o) { o.sources.data = {brief}; }, "tokens, but one training sequence takes 17");
  refused([&](RunOptions& o) { o.sources.valid = {empty}; }, "empty.txt: no text");
  refused([&](RunOptions& o) { o.recipe.sequence = 17; }, "--sequence is 17, but the model's context is 16");
  refused([&](RunOptions& o) { o.recipe.tokens = 5; }, "exactly one of --tokens, --steps, --epochs and --minutes");
  refused([&](RunOptions& o) { o.recipe.steps = 0; }, "exactly one of");
  refused([&](RunOptions& o) { o.recipe.batch = -1; }, "--batch is -1");
  refused([&](RunOptions& o) { o.recipe.lr = -1; }, "--lr is -1");
  refused([&](RunOptions& o) { o.recipe.lr = std::nan(""); }, "--lr is nan");
  refused([&](RunOptions& o) { o.recipe.beta2 = 1; }, "--beta2 is 1");
  refused([&](RunOptions& o) { o.recipe.l1 = "much"; }, "--l1: 'much'");
  refused([&](RunOptions& o) { o.recipe.l1 = "0@100%,1@10"; }, "--l1: stage 2 ends at step 10");
  refused([&](RunOptions& o) { o.architecture.heads = 3; }, "--dim 16 is not a multiple of --heads 3");
  // A model of fewer tokens than the tokenizer that comes with it.
  const RunOptions small = tiny_run(directory, "small");
  start_run(small, {});
  write_text(directory / "tokenizer.json", train_tokenizer({}, 257).to_json());
  RunOptions large = tiny_run(directory, "large");
  large.architecture.vocab = 290;
  start_run(large, {});
  fs::copy_file(small.out / "tokenizer.json", large.out / "tokenizer.json", fs::copy_options::overwrite_existing);
  refused([&](RunOptions& o) { o.sources.from = large.out.string(); }, "they do not belong together");
}

TEST_F(RunTest, MinutesBecomeSteps) {
  const TemporaryDirectory directory;
  RunOptions options = tiny_run(directory, "out");
  options.recipe.steps = 0, options.recipe.minutes = 1.0 / 60;
  options.upkeep.save_every = 100'000;
  const RunResult result = start_run(options, {});
  EXPECT_FALSE(result.stopped);
  EXPECT_GT(result.steps, 1);
  EXPECT_EQ(read_state(*result.checkpoint).steps, result.steps);
  EXPECT_LT(result.seconds, 10);
}

}  // namespace
}  // namespace sparsam
