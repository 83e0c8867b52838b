#include "text/labelled_text.h"

#include <gmock/gmock.h>

#include "base/error.h"

namespace sparsam {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(LabelledText, ReadsColumnsAndJson) {
  const auto columns = read_labelled_texts("good\ta fine\tday\r\n\nbad\train", "weather.tsv");
  ASSERT_EQ(columns.size(), 2u);
  EXPECT_EQ(columns[0].label, "good");
  EXPECT_EQ(columns[0].text, "a fine\tday");
  EXPECT_EQ(columns[1].text, "rain");
  const auto objects = read_labelled_texts(
      "{\"text\": \"a\\tb\", \"label\": 3, \"id\": 1}\n{\"label\": \"x\", \"text\": \"y\"}\n", "a.jsonl");
  ASSERT_EQ(objects.size(), 2u);
  EXPECT_EQ(objects[0].label, "3");
  EXPECT_EQ(objects[0].text, "a\tb");
  EXPECT_EQ(objects[1].label, "x");
}

TEST(LabelledText, NamesTheLineThatIsWrong) {
  const auto expect_refused = [](const char* content, const char* name, const char* text) {
    EXPECT_THAT([&] { read_labelled_texts(content, name); }, ThrowsMessage<Error>(HasSubstr(text))) << content;
  };
  expect_refused("a\tb\nno tab", "t.tsv", "t.tsv: line 2: 'no tab', expected LABEL<TAB>TEXT");
  expect_refused("\ttext", "t.tsv", "line 1: the label is empty");
  expect_refused("a\tb\n\xff\tb", "t.tsv", "line 2: the label");
  expect_refused("label\t", "t.tsv", "line 1: the text is empty");
  expect_refused("{\"text\": \"a\"}", "t.jsonl", "line 1: expected a field \"label\"");
  expect_refused("{\"text\": \"a\", \"label\": 0.5}", "t.jsonl", "line 1: expected a field \"label\"");
  expect_refused("{\"label\": \"a\"}", "t.jsonl", "text");
}

}  // namespace
}  // namespace sparsam
