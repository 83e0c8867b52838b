#include "text/token_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <vector>

#include "base/test_support.h"

namespace sparsam {
namespace {

class TokenFileTest : public testing::Test {
 protected:
  TokenFileTest() : path(fs::temp_directory_path() / ("token_file_test_" + std::to_string(::getpid()))) {}
  ~TokenFileTest() override { fs::remove(path); }
  std::string error() const {
    return error_of([&] { TokenFile::open(path); });
  }
  fs::path path;
};

TEST_F(TokenFileTest, GivesBackWhatWasWritten) {
  for (i64 vocab : {i64{300}, i64{65536}, i64{65537}, i64{1} << 24}) {
    std::vector<i32> ids;
    for (i64 i = 0; i < 70000; ++i) ids.push_back(static_cast<i32>((i * 7919) % vocab));
    ids.push_back(static_cast<i32>(vocab - 1));
    write_token_file(path, ids, vocab, 42);
    EXPECT_EQ(fs::file_size(path), 40 + ids.size() * (vocab <= 65536 ? 2 : 4));
    const TokenFile file = TokenFile::open(path);
    EXPECT_EQ(file.size(), static_cast<i64>(ids.size()));
    EXPECT_EQ(file.vocab(), vocab);
    EXPECT_EQ(file.hash(), 42u);
    EXPECT_EQ(file[70000], vocab - 1);
    std::vector<i32> read(ids.size());
    file.copy(0, file.size(), read.data());
    EXPECT_EQ(read, ids);
  }
  write_token_file(path, {}, 10, 0);
  EXPECT_EQ(TokenFile::open(path).size(), 0);
}

TEST_F(TokenFileTest, DamageIsNamed) {
  const std::vector<i32> ids = {1, 2, 3};
  write_token_file(path, ids, 300, 0);
  const std::string good = read_text(path);
  const auto with = [&](std::string text) {
    write_text(path, text);
    return error();
  };
  EXPECT_EQ(with(good), "no error");
  EXPECT_NE(with(""), "no error");
  EXPECT_NE(with("just text, longer than the header of a token file"), "no error");
  EXPECT_NE(with(good.substr(0, good.size() - 1)).find("3 tokens"), std::string::npos);
  EXPECT_NE(with(good + "xx").find("3 tokens"), std::string::npos);
  std::string other = good;
  other[8] = 2;
  EXPECT_NE(with(other).find("version 2"), std::string::npos);
  other = good, other[12] = 4;
  EXPECT_NE(with(other), "no error");
  other = good, other.replace(24, 8, "\xff\xff\xff\xff\xff\xff\xff\xff");
  EXPECT_NE(with(other), "no error");
  other = good, other[good.size() - 1] = '\x7f';  // an id beyond the vocabulary
  EXPECT_EQ(with(other), "no error");
  const TokenFile file = TokenFile::open(path);
  EXPECT_EQ(file[1], 2);
  EXPECT_THROW(file[2], Error);
  fs::remove(path);
  EXPECT_NE(error(), "no error");
}

TEST(HashText, TellsTextsApart) {
  EXPECT_EQ(hash_text("abc"), hash_text("abc"));
  EXPECT_NE(hash_text("abc"), hash_text("abd"));
  EXPECT_NE(hash_text("abc"), hash_text(std::string_view("abc\0", 4)));
  EXPECT_NE(hash_text("abc"), hash_text("abc", 1));
}

}  // namespace
}  // namespace sparsam
