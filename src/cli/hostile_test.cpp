// Files made to harm a reader, each through the program: what must be read is read, what must be refused is refused by
// an error that names the file, and nothing ends by a signal, in much memory or time.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "base/clock.h"
#include "base/error.h"
#include "formats/json.h"
#include "text/tokenizer.h"

namespace sparsam {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

const fs::path hostile = fs::path(SPARSAM_DATA) / "hostile";

struct Outcome {
  int status = 0;  // of waitpid()
  i64 peak_bytes = 0;
  std::string err;
};

constexpr rlim_t most_seconds = 20, most_address_bytes = rlim_t{4} << 30;

// `sparsam inspect FILE --json`, its standard output dropped.
Outcome inspect(const fs::path& file) {
  int ends[2];
  EXPECT_EQ(::pipe(ends), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const rlimit seconds{most_seconds, most_seconds}, bytes{most_address_bytes, most_address_bytes}, none{0, 0};
    ::setrlimit(RLIMIT_CPU, &seconds), ::setrlimit(RLIMIT_AS, &bytes), ::setrlimit(RLIMIT_CORE, &none);
    ::setenv("OMP_NUM_THREADS", "1", 1);
    ::dup2(ends[1], STDERR_FILENO);
    if (!std::freopen("/dev/null", "w", stdout)) ::_exit(126);
    ::execl(SPARSAM_BINARY, "sparsam", "inspect", file.c_str(), "--json", nullptr);
    ::_exit(127);
  }
  ::close(ends[1]);
  Outcome outcome;
  char buffer[4096];
  for (ssize_t got; (got = ::read(ends[0], buffer, sizeof buffer)) > 0;)
    outcome.err.append(buffer, static_cast<size_t>(got));
  ::close(ends[0]);
  rusage usage{};
  ::wait4(child, &outcome.status, 0, &usage);
  outcome.peak_bytes = i64{usage.ru_maxrss} * 1024;
  return outcome;
}

TEST(HostileFiles, AreJudgedAsTheyMustBe) {
  if (!fs::exists(hostile)) GTEST_SKIP() << "needs " << hostile;
  const Json cases = parse_json(read_text(hostile / "cases.json"), "cases.json");
  EXPECT_EQ(cases.size(), 132u);
  const i64 plain_peak = inspect("/dev/null/absent").peak_bytes;
  i64 peak = 0;
  for (const Json& one : cases) {
    const fs::path file = hostile / one["file"].get<std::string>();
    const std::string expect = one["expect"].get<std::string>();
    SCOPED_TRACE(fmt::format("{}: {} ({})", file.filename().string(), expect, one["why"].get<std::string>()));
    const Outcome o = inspect(file);
    if (!WIFEXITED(o.status)) {
      ADD_FAILURE() << "ended by signal " << WTERMSIG(o.status) << " " << o.err;
      continue;
    }
    const int code = WEXITSTATUS(o.status);
    EXPECT_TRUE(code == 0 || code == 1) << code << " " << o.err;
    EXPECT_TRUE(expect == "no-crash" || code == (expect == "reject")) << code << " " << o.err;
    if (code == 1) {
      EXPECT_THAT(o.err, StartsWith("sparsam: "));
      EXPECT_THAT(o.err, HasSubstr(file.filename().string()));
      EXPECT_EQ(std::count(o.err.begin(), o.err.end(), '\n'), 1) << o.err;
    }
    peak = std::max(peak, o.peak_bytes - plain_peak);
    EXPECT_LT(o.peak_bytes - plain_peak, (i64{64} << 20) + 64 * one["size"].get<i64>());
  }
  RecordProperty("peak_bytes", std::to_string(peak));
}

// Tokenizers that are read must also encode what they were made for.
TEST(HostileFiles, TokenizersEndOnEveryText) {
  if (!fs::exists(hostile)) GTEST_SKIP() << "needs " << hostile;
  for (const auto& entry : fs::directory_iterator(hostile / "tokenizer-json")) {
    const Stopwatch clock;
    for (const std::string& text : {std::string(40, 'a') + "b", std::string(), std::string("x \xff\xc3 \0y", 9)}) {
      try {
        Tokenizer::load(entry.path()).encode(text);
      } catch (const Error&) {  // either is right; to hang is not
      }
    }
    EXPECT_LT(clock.seconds(), 20) << entry.path();
  }
}

}  // namespace
}  // namespace sparsam
