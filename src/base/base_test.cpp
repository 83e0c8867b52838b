#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <csignal>

#include "base/error.h"
#include "base/files.h"
#include "base/progress.h"
#include "base/random.h"
#include "base/test_support.h"
#include "base/threads.h"

namespace sparsam {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

const std::vector<std::string> functions{"relu", "relu2", "gelu", "silu"};

TEST(Error, NamesCloseMatches) {
  EXPECT_THAT(close_matches("sliu", functions), ElementsAre("silu"));
  EXPECT_THAT(close_matches("rellu", functions), ElementsAre("relu", "relu2", "gelu"));
  EXPECT_THAT(close_matches("swiglu-clamped", functions), IsEmpty());
}

TEST(Error, UnknownNameSaysWhereAndWhatIsKnown) {
  try {
    fail_unknown("activation", "rellu", functions, "config.json");
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("config.json: unknown activation 'rellu'; did you mean relu"));
    EXPECT_THAT(error.what(), HasSubstr("Known: relu, relu2, gelu, silu"));
    EXPECT_EQ(error.code, Exit::failed);
  }
}

TEST(ErrorDeathTest, CheckPrintsBothSides) { EXPECT_DEATH(check(false, "{} but {}", 3, 4), "3 but 4"); }

class Files : public testing::Test {
 protected:
  const fs::path directory = fs::path(testing::TempDir()) / fmt::format("sparsam-files-{}", ::getpid());
  void SetUp() override { fs::create_directories(directory); }
  void TearDown() override { fs::remove_all(directory); }
  std::vector<std::string> listing() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(directory)) names.push_back(entry.path().filename().string());
    return names;
  }
};

TEST_F(Files, WithoutCommitTheOldContentStays) {
  write_text(directory / "a", "old");
  {
    AtomicFile file(directory / "a");
    file.write("new, half");
  }
  EXPECT_EQ(read_text(directory / "a"), "old");
  EXPECT_THAT(listing(), ElementsAre("a"));
}

TEST_F(Files, AFullDiskIsAnErrorAndTheOldContentStays) {
  write_text(directory / "a", "old");
  rlimit old_limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  const rlimit small{4096, old_limit.rlim_max};  // writing past it fails like a full disk does
  const auto old_handler = ::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string found = error_of([&] { write_text(directory / "a", std::string(100000, 'x')); });
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &old_limit), 0);
  ::signal(SIGXFSZ, old_handler);
  EXPECT_THAT(found, HasSubstr("cannot write after 4096 bytes"));
  EXPECT_EQ(read_text(directory / "a"), "old");
  EXPECT_THAT(listing(), ElementsAre("a"));
}

TEST_F(Files, ADirectoryIsReplacedWholeOrNotAtAll) {
  const fs::path target = directory / "model";
  {
    AtomicDirectory first(target);
    write_text(first.path() / "one", "1");
    first.commit();
  }
  {
    AtomicDirectory abandoned(target);
    write_text(abandoned.path() / "two", "2");
  }
  EXPECT_TRUE(fs::exists(target / "one"));
  {
    AtomicDirectory second(target);
    write_text(second.path() / "two", "2");
    second.commit();
  }
  EXPECT_FALSE(fs::exists(target / "one"));
  EXPECT_EQ(read_text(target / "two"), "2");
  EXPECT_THAT(listing(), ElementsAre("model"));
}

TEST_F(Files, MappingSaysWhatIsWrong) {
  EXPECT_THROW(MappedFile(directory / "missing"), Error);
  EXPECT_THROW(MappedFile{directory}, Error);
  write_text(directory / "empty", "");
  EXPECT_EQ(MappedFile(directory / "empty").bytes().size(), 0u);
}

TEST(Random, DependsOnSeedAndStreamAloneAndIsUniform) {
  EXPECT_EQ(Random(1, 2).next(), Random(1, 2).next());
  EXPECT_NE(Random(1, 2).next(), Random(1, 3).next());
  EXPECT_NE(Random(1, 2).next(), Random(2, 2).next());
  Random random(7);
  constexpr int n = 60000, sides = 6;
  std::vector<int> seen(sides);
  double sum = 0, squares = 0;
  for (int i = 0; i < n; ++i) {
    ++seen[random.below(sides)];
    const double x = random.normal();
    sum += x, squares += x * x;
  }
  double chi2 = 0;
  for (const int count : seen) chi2 += (count - n / sides) * (count - n / sides) / static_cast<double>(n / sides);
  EXPECT_LT(chi2, 20.5);  // 99.9 % of 5 degrees of freedom
  EXPECT_NEAR(sum / n, 0, 4 / std::sqrt(n));
  EXPECT_NEAR(squares / n, 1, 4 * std::sqrt(2.0 / n));
}

TEST(Threads, EveryIndexIsVisitedOnceByRangesThatDependOnTheCountAlone) {
  const int before = threads();
  for (const int team : {1, 2, 3, 5}) {
    set_threads(team);
    for (const i64 count : {0, 1, 2, 7, 64, 1000})
      for (const i64 grain : {1, 8, 64}) {
        std::vector<int> visits(static_cast<size_t>(count)), owner(static_cast<size_t>(count));
        parallel_ranges(count, grain, [&](int thread, i64 begin, i64 end) {
          for (i64 i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)], owner[static_cast<size_t>(i)] = thread;
        });
        EXPECT_TRUE(std::all_of(visits.begin(), visits.end(), [](int n) { return n == 1; }));
        EXPECT_TRUE(std::is_sorted(owner.begin(), owner.end()));
        std::vector<int> dynamic(static_cast<size_t>(count));
        parallel_dynamic(count, [&](int, i64 i) { ++dynamic[static_cast<size_t>(i)]; });
        EXPECT_TRUE(std::all_of(dynamic.begin(), dynamic.end(), [](int n) { return n == 1; }));
      }
  }
  set_threads(before);
}

TEST(Progress, FormatsNumbersForPeople) {
  EXPECT_EQ(format_count(1234567), "1,234,567");
  EXPECT_EQ(format_count(-123), "-123");
  EXPECT_EQ(format_bytes(999), "999 B");
  EXPECT_EQ(format_bytes(12345678), "12.3 MB");
  EXPECT_EQ(format_duration(42.4), "42 s");
  EXPECT_EQ(format_duration(185), "3 min 05 s");
  EXPECT_EQ(format_duration(7800), "2 h 10 min");
}

}  // namespace
}  // namespace sparsam
