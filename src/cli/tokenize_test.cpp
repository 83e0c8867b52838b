// sparsam tokenize and detokenize as their users meet them.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>

#include "base/files.h"
#include "base/random.h"
#include "formats/json.h"

namespace sparsam {
namespace {

const std::string model = SPARSAM_TEST_DATA "/text/tokenizer_small.json";

// The exit code; standard input and output are these files.
int run(const std::string& arguments, const fs::path& in, const fs::path& out) {
  const std::string command =
      std::string(SPARSAM_BINARY) + " " + arguments + " <" + in.string() + " >" + out.string() + " 2>/dev/null";
  return WEXITSTATUS(std::system(command.c_str()));
}

TEST(Tokenize, AndBackGivesTheSameBytes) {
  const fs::path folder = fs::path(testing::TempDir()) / "sparsam_tokenize";
  fs::create_directories(folder);
  const fs::path text = folder / "text", ids = folder / "ids", back = folder / "back";
  Random random(1);
  std::string bytes = "Hello <|endoftext|> \n";
  for (int i = 0; i < 5000; ++i) bytes.push_back(static_cast<char>(random.below(256)));
  write_text(text, bytes);
  ASSERT_EQ(run("tokenize " + model, text, ids), 0);
  const std::string line = read_text(ids);
  EXPECT_EQ(line.find_first_not_of("0123456789 "), line.size() - 1);  // one line
  ASSERT_EQ(run("detokenize " + model, ids, back), 0);
  EXPECT_EQ(read_text(back), bytes);

  ASSERT_EQ(run("tokenize --json " + model, text, ids), 0);
  const Json json = parse_json(read_text(ids), "--json");
  EXPECT_EQ(json["count"], json["ids"].size());
  EXPECT_EQ(json["bytes"], bytes.size());

  write_text(text, "1 2 x3");
  EXPECT_EQ(run("detokenize " + model, text, back), 1);
  write_text(text, "99999999");
  EXPECT_EQ(run("detokenize " + model, text, back), 1);
  EXPECT_EQ(run("tokenize", text, back), 2);
  EXPECT_EQ(run("tokenize " + folder.string(), text, back), 1);
  fs::remove_all(folder);
}

}  // namespace
}  // namespace sparsam
