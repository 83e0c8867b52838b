// Encoders and classifiers as a user meets them: trained, judged, asked; refused where the next token is wanted.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <sys/wait.h>

#include <cmath>
#include <cstdio>

#include "base/files.h"
#include "formats/json.h"
#include "text/corpus.h"
#include "train/test_support.h"

namespace sparsam {
namespace {

using ::testing::HasSubstr;

class EncoderVerbs : public ::testing::Test {
 protected:
  EncoderVerbs() {
    write_text(directory_ / "text.txt", embedded_corpus(20'000, 3).text);
    std::string texts;
    for (int i = 0; i < 200; ++i)
      texts += fmt::format("{}\tthing {} is {}\n", i % 2 ? "good" : "bad", i, i % 2 ? "fine" : "dull");
    write_text(directory_ / "train.tsv", texts);
    write_text(directory_ / "test.tsv", "good\tall is fine\nbad\tall is dull\ngood\tthis is fine\n");
  }
  // Exit code and both outputs of "sparsam ARGUMENTS" in the directory.
  std::pair<int, std::string> run(const std::string& arguments, bool errors = false) const {
    const std::string command =
        fmt::format("cd '{}' && OMP_NUM_THREADS=1 '{}' {} --threads 1 --quiet {}", directory_.path().string(),
                    SPARSAM_BINARY, arguments, errors ? "2>&1 >/dev/null" : "2>/dev/null");
    std::FILE* pipe = ::popen(command.c_str(), "r");
    std::string output;
    char buffer[4096];
    for (size_t n = 0; (n = std::fread(buffer, 1, sizeof(buffer), pipe)) > 0;) output.append(buffer, n);
    return {WEXITSTATUS(::pclose(pipe)), output};
  }
  Json json_of(const std::string& arguments) const {
    const auto [code, output] = run(arguments + " --json");
    EXPECT_EQ(code, 0) << arguments;
    return parse_json(output, "output");
  }
  static constexpr const char* shape =
      " --preset nano --vocab 300 --dim 16 --heads 2 --layers 1 --context 16 --positions learned --batch 16 --lr 1e-2 ";
  TemporaryDirectory directory_;
};

TEST_F(EncoderVerbs, AClassifierIsTrainedJudgedAndAsked) {
  const Json trained = json_of(std::string("train --task classify --data train.tsv --epochs 5 --out model") + shape);
  EXPECT_GT(trained["validation"]["accuracy"].get<double>(), 0.9);
  const Json judged = json_of("eval model --data test.tsv --data test.tsv");
  EXPECT_EQ(judged["texts"], 6);
  EXPECT_EQ(judged["accuracy"], 1);
  EXPECT_EQ(judged["macro_f1"], 1);
  EXPECT_EQ(judged["classes"][1]["label"], "good");
  EXPECT_EQ(judged["classes"][1]["predicted_as"], Json::array({0, 4}));
  EXPECT_EQ(judged["files"].size(), 2u);
  const Json asked = json_of("classify model --text 'all is fine' --text 'all is dull'");
  EXPECT_EQ(asked["texts"][0]["label"], "good");
  EXPECT_EQ(asked["texts"][1]["label"], "bad");
  const Json& probabilities = asked["texts"][0]["probabilities"];
  EXPECT_NEAR(probabilities["good"].get<double>() + probabilities["bad"].get<double>(), 1, 1e-12);
  // The cross-entropy is that of these probabilities.
  write_text(directory_ / "two.tsv", "good\tall is fine\nbad\tall is dull\n");
  EXPECT_NEAR(json_of("eval model --data two.tsv")["cross_entropy"].get<double>(),
              -(std::log(probabilities["good"].get<double>()) +
                std::log(asked["texts"][1]["probabilities"]["bad"].get<double>())) /
                  2,
              1e-6);
  EXPECT_THAT(run("classify model --text 'all is fine'").second, HasSubstr("good\t"));
  for (const char* verb :
       {"generate model --prompt a", "score model --data text.txt", "drop model --attention 1 --out x",
        "convert model x.gguf", "bench model", "grow model --params 2x --out x"})
    EXPECT_THAT(run(verb, true), ::testing::Pair(1, HasSubstr("a classifier of 2 labels; expected a language model")))
        << verb;
  EXPECT_EQ(run("inspect model").first, 0);
}

// What training held out and what eval reads are the same windows and hidden tokens.
TEST_F(EncoderVerbs, AMaskedModelIsJudgedAsWhileTraining) {
  const Json trained =
      json_of(std::string("train --task masked --mixer lse --data text.txt --valid text.txt --steps 20 "
                          "--eval-tokens 0 --precision f32 --out model") +
              shape);
  const Json judged = json_of("eval model --data text.txt");
  EXPECT_NEAR(judged["nats_per_token"].get<double>(), trained["validation"]["loss"].get<double>(), 1e-3);
  EXPECT_NEAR(judged["masked_perplexity"].get<double>(), std::exp(judged["nats_per_token"].get<double>()), 1e-9);
  EXPECT_NE(json_of("eval model --data text.txt --seed 1")["nats_per_token"], judged["nats_per_token"]);
  EXPECT_THAT(run("generate model --prompt a", true), ::testing::Pair(1, HasSubstr("an encoder, whose tokens see")));
  EXPECT_THAT(run("classify model --text a", true),
              ::testing::Pair(1, HasSubstr("has no labels; expected a classifier")));
  EXPECT_THAT(run("eval model --data text.txt --against model", true), ::testing::Pair(2, HasSubstr("--against")));
}

}  // namespace
}  // namespace sparsam
