// sparsam train as a user meets it: exit codes, signals, resuming, one JSON object.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <fstream>
#include <thread>

#include "base/files.h"
#include "formats/json.h"
#include "text/corpus.h"
#include "train/test_support.h"

namespace sparsam {
namespace {

using ::testing::HasSubstr;

class TrainVerb : public ::testing::Test {
 protected:
  TrainVerb() { write_text(path("text.txt"), embedded_corpus(30'000, 3).text); }
  std::string path(const std::string& name) const { return (directory_ / name).string(); }

  pid_t start(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), {SPARSAM_BINARY, "train", "--threads", "1"});
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t files;
    ::posix_spawn_file_actions_init(&files);
    constexpr int flags = O_WRONLY | O_CREAT | O_TRUNC;
    ::posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, path("stdout").c_str(), flags, 0644);
    ::posix_spawn_file_actions_addopen(&files, STDERR_FILENO, path("stderr").c_str(), flags, 0644);
    pid_t child = -1;
    EXPECT_EQ(::posix_spawn(&child, SPARSAM_BINARY, &files, nullptr, argv.data(), environ), 0);
    ::posix_spawn_file_actions_destroy(&files);
    return child;
  }
  static int finish(pid_t child) {
    int status = 0;
    ::waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  int train(std::vector<std::string> arguments) const { return finish(start(std::move(arguments))); }

  // A tiny model on the text.
  std::vector<std::string> tiny(const std::string& out, std::vector<std::string> more) const {
    std::vector<std::string> all{"--preset",  "nano",    "--data", path("text.txt"), "--vocab", "300",     "--dim",
                                 "16",        "--heads", "2",      "--layers",       "2",       "--batch", "2",
                                 "--context", "16",      "--out",  path(out)};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  // Waits until `ready`, for a minute at most.
  template <class F>
  static bool wait_for(F&& ready) {
    for (int i = 0; i < 6000 && !ready(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return ready();
  }
  std::string output(const char* name) const { return read_text(path(name)); }

  TemporaryDirectory directory_;
};

TEST_F(TrainVerb, PrintsOneJsonObject) {
  ASSERT_EQ(train(tiny("out", {"--steps", "3", "--json"})), 0) << output("stderr");
  const Json result = parse_json(output("stdout"), "stdout");
  EXPECT_EQ(result["step"], 3);
  EXPECT_EQ(result["tokens"], 3 * 2 * 16);
  EXPECT_GT(result["validation"]["bits_per_byte"], 0.5);
  EXPECT_GT(result["tokens_per_second"], 0);
  EXPECT_GT(result["fraction_of_peak"], 0);
}

TEST_F(TrainVerb, FinishesTheStepWhenInterrupted) {
  ASSERT_EQ(train(tiny("straight", {"--steps", "2000", "--eval-every", "2000"})), 0) << output("stderr");
  for (const int signal : {SIGINT, SIGTERM}) {
    const std::string out = "out" + std::to_string(signal);
    const pid_t child = start(tiny(out, {"--steps", "2000", "--eval-every", "2000"}));
    const fs::path metrics = path(out) + "/metrics.jsonl";
    EXPECT_TRUE(wait_for([&] { return fs::exists(metrics) && fs::file_size(metrics) > 0; }));  // after a step
    ::kill(child, signal);
    EXPECT_EQ(finish(child), 128 + signal) << output("stderr");
    EXPECT_THAT(output("stderr"), HasSubstr("to go on: sparsam train --resume --out " + path(out)));
    EXPECT_FALSE(fs::exists(path(out) + "/checkpoint-002000"));
    ASSERT_EQ(train({"--resume", "--out", path(out)}), 0) << output("stderr");
    EXPECT_EQ(read_text(path(out) + "/model.safetensors"), read_text(path("straight") + "/model.safetensors"));
  }
}

TEST_F(TrainVerb, ASecondInterruptEndsAtOnce) {
  // One step of some hours.
  const pid_t child = start(tiny("out", {"--steps", "3", "--accumulate", "1000000"}));
  EXPECT_TRUE(wait_for([&] { return fs::exists(path("out") + "/metrics.jsonl"); }));
  std::this_thread::sleep_for(std::chrono::seconds(1));  // until it is at the step
  ::kill(child, SIGINT);
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_EQ(::waitpid(child, nullptr, WNOHANG), 0);  // still at the step
  ::kill(child, SIGINT);
  EXPECT_EQ(finish(child), 130);
  EXPECT_FALSE(fs::exists(path("out") + "/model.safetensors"));
}

TEST_F(TrainVerb, RefusesByExitCode) {
  const auto refused = [&](const std::vector<std::string>& arguments, int code, const std::string& text) {
    EXPECT_EQ(train(arguments), code) << text;
    EXPECT_THAT(output("stderr"), HasSubstr(text));
    EXPECT_EQ(output("stdout"), "");
  };
  refused({"--preset", "nano", "--steps", "1"}, 2, "give --out");
  refused({"--out", path("out"), "--steps", "1"}, 2, "give --preset");
  refused({"--preset", "nono", "--out", path("out"), "--steps", "1"}, 2, "did you mean nano");
  refused(tiny("out", {}), 2, "give --tokens, --steps, --epochs or --minutes");
  refused(tiny("out", {"--steps", "1", "--minutes", "2"}), 2, "exactly one of");
  refused(tiny("out", {"--steps", "many"}), 2, "--steps");
  refused(tiny("out", {"--steps", "1", "--positions", "rotory"}), 2, "did you mean rotary");
  refused(tiny("out", {"--steps", "1", "--warm-up", "5"}), 2, "--warmup");
  refused(tiny("out", {"--steps", "1", "--data", path("missing.txt")}), 1, "missing.txt");
  refused({"--resume", "--out", path("nothing")}, 1, "no checkpoint");
  ASSERT_EQ(train(tiny("out", {"--steps", "1"})), 0) << output("stderr");
  refused(tiny("out", {"--steps", "1"}), 2, "--overwrite");
  refused({"--resume", "--out", path("out"), "--lr", "0.5", "--no-gated"}, 2, "--lr 0.5");
  refused(tiny("other", {"--steps", "1", "--l1", "0@5,much"}), 2, "--l1: 'much'");
  const auto refused_from = [&](std::vector<std::string> flags, const std::string& text) {
    flags.insert(flags.end(), {"--from", path("out"), "--steps", "1", "--out", path("other")});
    refused(flags, 2, text);
  };
  refused_from({"--dim", "32"}, "--dim 32");
  refused_from({"--activation", "relu", "--dim", "32"}, "--dim 32");
  refused_from({"--activation", "fatrelu"}, "--activation fatrelu needs its --activation-threshold");
  refused_from({"--activation", "relu", "--activation-threshold", "0.1"}, "relu has no --activation-threshold");
  refused_from({"--activation-threshold", "0.1"}, "needs --activation fatrelu");
  refused_from({"--activate-up"}, "needs --activation relu");
  refused_from({"--activate-up", "--activation", "silu"}, "needs --activation relu, was given silu");
}

TEST_F(TrainVerb, SubstitutesTheActivation) {
  ASSERT_EQ(train(tiny("silu", {"--steps", "3"})), 0) << output("stderr");
  const auto go_on = [&](const std::string& out, std::vector<std::string> flags) {
    flags.insert(flags.end(), {"--from", path("silu"), "--data", path("text.txt"), "--steps", "2", "--out", path(out)});
    EXPECT_EQ(train(flags), 0) << output("stderr");
    EXPECT_THAT(output("stderr"), HasSubstr("step 0: held-out loss"));
    EXPECT_THAT(output("stdout"), HasSubstr("held-out at first"));
    return read_text(path(out) + "/config.json");
  };
  EXPECT_THAT(go_on("same", {}), HasSubstr("\"silu\""));
  EXPECT_THAT(go_on("relu", {"--activation", "relu", "--l1", "0@1,1e-3@2"}), HasSubstr("\"relu\""));
  EXPECT_THAT(go_on("drelu", {"--activation", "relu", "--activate-up"}), HasSubstr("\"activate_up\": true"));
  EXPECT_THAT(go_on("fatrelu", {"--activation", "fatrelu", "--activation-threshold", "0.01"}),
              HasSubstr("\"threshold\": 0.01"));
  ASSERT_EQ(train({"--resume", "--out", path("relu"), "--activation", "relu"}), 0) << output("stderr");
  EXPECT_EQ(train({"--resume", "--out", path("relu"), "--activation", "silu"}), 2);
  EXPECT_THAT(output("stderr"), HasSubstr("--activation \"silu\" (the run has \"relu\")"));
}

}  // namespace
}  // namespace sparsam
