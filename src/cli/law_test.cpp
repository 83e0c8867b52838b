#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "cli/verbs.h"
#include "formats/json.h"
#include "measure/law_points.h"

namespace sparsam {
namespace {

using testing::HasSubstr;

class LawTest : public testing::Test {
 protected:
  struct Outcome {
    Exit code;
    std::string out, err;
  };
  LawTest() { fs::create_directories(folder_); }
  ~LawTest() override { fs::remove_all(folder_); }
  static Outcome law(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"sparsam", "law"});
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    CLI::App program;
    Command command;
    add_law(program, command);
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    const Exit code = run(program, command, static_cast<int>(argv.size()), argv.data());
    return {code, testing::internal::GetCapturedStdout(), testing::internal::GetCapturedStderr()};
  }
  // Four sizes on the published curves of SiLU (arXiv 2411.02335, table 2).
  std::string published_points() const {
    const double alpha[] = {0.844, 1.03, 0.995, 0.967}, c[] = {0.208, 0.42, 0.562, 0.538},
                 limit[] = {0.39, 0.385, 0.383, 0.382};
    std::vector<LawPoint> points;
    for (i64 size = 0; size < 4; ++size)
      for (double tokens = 5e9; tokens < 1e12; tokens *= 2)
        points.push_back({.model = fmt::format("m{}", size),
                          .activation = "silu",
                          .tokens = tokens,
                          .activation_ratio = limit[size] - c[size] * std::pow(tokens / 1e9, -alpha[size]),
                          .dim = 1024 + 256 * size,
                          .layers = 20 + 4 * size,
                          .parameters = 241'000'000 * (size + 1)});
    write_law_points(folder_ / "points.jsonl", points);
    return folder_.string();
  }
  fs::path folder_ = fs::path(testing::TempDir()) / testing::UnitTest::GetInstance()->current_test_info()->name();
};

TEST_F(LawTest, FitReportsThePublishedLimits) {
  const std::string plot = (folder_ / "law.svg").string();
  const Outcome fit = law({"fit", published_points(), "--json", "-q", "--resamples", "20", "--plot", plot});
  ASSERT_EQ(fit.code, Exit::done) << fit.err;
  const Json json = parse_json(fit.out, "stdout");
  ASSERT_EQ(json["series"].size(), 4u);
  const Json& second = json["series"][1];
  EXPECT_EQ(second["preferred"], "power");
  EXPECT_EQ(second["forms"][2]["form"], "power");
  EXPECT_NEAR(second["forms"][2]["parameters"]["A0"]["value"].get<double>(), 0.385, 1e-5);
  EXPECT_NEAR(second["forms"][2]["parameters"]["alpha"]["value"].get<double>(), 1.03, 1e-4);
  EXPECT_EQ(json["limit_against_parameters"]["silu"]["y"].size(), 4u);
  EXPECT_THAT(read_text(plot), HasSubstr("<polygon"));
}

TEST_F(LawTest, FitSaysWhatIsWrong) {
  const std::string points = published_points();
  EXPECT_THAT(law({"fit", points, "--cett", "sharde"}).err, HasSubstr("did you mean shared?"));
  EXPECT_THAT(law({"fit", points, "--cett", "shared"}).err, HasSubstr("has no CETTs tried"));
  EXPECT_EQ(law({"fit", points, "--unit", "0"}).code, Exit::usage);
  EXPECT_THAT(law({"fit", points, "--unti", "1"}).err,
              HasSubstr("law fit: unknown flag '--unti'; did you mean --unit?"));
  EXPECT_THAT(law({"fit", (folder_ / "none").string()}).err, HasSubstr("none: no such file"));
  write_text(folder_ / "points.jsonl", "{\"model\": \"m\",\n");
  EXPECT_THAT(law({"fit", points}).err, HasSubstr("points.jsonl line 1"));
}

TEST_F(LawTest, RunSaysWhatIsWrongWithASpec) {
  const std::string spec = (folder_ / "spec.json").string();
  write_text(spec, R"({"data": [], "modles": []})");
  const Outcome wrong = law({"run", spec, "--out", (folder_ / "out").string()});
  EXPECT_EQ(wrong.code, Exit::failed);
  EXPECT_THAT(wrong.err, HasSubstr("spec.json"));
  EXPECT_FALSE(fs::exists(folder_ / "out"));
  EXPECT_EQ(law({"run", spec}).code, Exit::usage);
}

}  // namespace
}  // namespace sparsam
