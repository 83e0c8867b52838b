#include "formats/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/test_support.h"

namespace sparsam {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

std::string parse_error(std::string_view text) {
  return error_of([&] { parse_json(text, "x.json"); });
}

TEST(Json, KeepsTheOrderOfFields) {
  const Json json = parse_json(R"({"z": 1, "a": [true, null, "\u00e4", -2.5e-3], "m": {}})", "x.json");
  EXPECT_EQ(json.dump(), R"({"z":1,"a":[true,null,"ä",-0.0025],"m":{}})");
}

// Syntax cases from RFC 8259 and JSONTestSuite (nst/JSONTestSuite, files n_*).
TEST(Json, RefusesWhatIsNotJson) {
  for (const char* text :
       {"",           " ",        "{",           "[1,]",    "{\"a\":1,}", "[1] x", "[NaN]", "[Infinity]",
        "[01]",       "[1.]",     "[.5]",        "[+1]",    "['a']",      "{a:1}", "[1 2]", "// c\n[1]",
        "[/* c */1]", "\"\xff\"", "\"\\ud800\"", "[1e400]", "\"\t\"",     "nul",   "[\"a",  "{\"a\" 1}"})
    EXPECT_THAT(parse_error(text), HasSubstr("x.json: line 1, column")) << text;
}

TEST(Json, NamesLineAndColumn) {
  EXPECT_THAT(parse_error("{\n  \"a\": 1,\n  \"b\": ?\n}"), HasSubstr("x.json: line 3, column 8: "));
}

TEST(Json, RefusesDuplicateKeys) {
  EXPECT_THAT(parse_error(R"({"b": {"a": 1, "\u0061": 2}})"), HasSubstr("the key 'a' stands twice"));
  EXPECT_EQ(parse_error(R"([{"a": 1}, {"a": {"a": 2}}])"), "no error");
}

TEST(Json, LimitsDepth) {
  const auto nested = [](int depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_EQ(parse_error(nested(json_depth)), "no error");
  EXPECT_THAT(parse_error(nested(json_depth + 1)), HasSubstr("more than 200 levels"));
  EXPECT_THAT(parse_error(nested(1'000'000)), HasSubstr("more than 200 levels"));
}

// A vocabulary: an object of 200,000 fields. Quadratic building takes a minute.
TEST(Json, BuildsLargeObjectsFast) {
  std::string text = "{";
  for (int i = 0; i < 200'000; ++i) text += fmt::format("{}\"token {}\": {}", i ? "," : "", i, i);
  text += "}";
  const Stopwatch clock;
  EXPECT_EQ(parse_json(text, "x.json").size(), 200'000u);
  EXPECT_LT(clock.seconds(), 10);
}

TEST(Json, WritesOnlyUtf8) {
  EXPECT_EQ(format_json(Json{{"a", 1}}, "out"), R"({"a":1})");
  EXPECT_THAT(error_of([] { format_json(Json("\xff"), "out"); }), HasSubstr("out: cannot write as JSON"));
}

TEST(Json, PrintableEscapesAndCuts) {
  EXPECT_EQ(printable("a\n\x1b[31m\xc3"), "a\\x0a\\x1b[31m\\xc3");
  EXPECT_EQ(printable(std::string(1000, 'x')), std::string(120, 'x') + "... (1000 bytes)");
}

TEST(Fields, ReadByNameAndType) {
  const Json json = parse_json(
      R"({"dim": 64, "eps": 1e-5, "theta": 10000, "name": "x", "tied": true, "none": null, "list": [1, 2], "sub": {"k": 2}})",
      "c.json");
  Fields fields(json, "c.json");
  EXPECT_EQ(fields.required<i64>("dim", {.least = 1, .most = 64}), 64);
  EXPECT_FLOAT_EQ(fields.required<float>("eps"), 1e-5f);
  EXPECT_EQ(fields.required<double>("theta"), 10000.0);
  EXPECT_EQ(fields.required<std::string>("name"), "x");
  EXPECT_TRUE(fields.required<bool>("tied"));
  EXPECT_EQ(fields.optional<i64>("none"), std::nullopt);
  EXPECT_EQ(fields.or_default<i64>("absent", 7), 7);
  EXPECT_EQ(fields.required<std::vector<i64>>("list"), (std::vector<i64>{1, 2}));
  EXPECT_EQ(fields.object("sub").required<int>("k"), 2);
  fields.finish();
}

TEST(Fields, RefuseWrongTypesAndValuesOutsideTheLimits) {
  const auto number = [](const std::string& text, Limits<i64> limits = {}) {
    const Json json = parse_json("{\"n\": " + text + "}", "c.json");
    return error_of([&] { Fields(json, "c.json").required<i64>("n", limits); });
  };
  EXPECT_EQ(number("9223372036854775807"), "no error");
  EXPECT_EQ(number("-9223372036854775808"), "no error");
  for (const char* text :
       {"1e30", "1.5", "8.0", "9223372036854775808", "18446744073709551616", "\"8\"", "true", "[8]", "{}"})
    EXPECT_THAT(number(text), AllOf(HasSubstr("c.json: field 'n': found "), HasSubstr("expected an integer"))) << text;
  EXPECT_THAT(number("0", {.least = 1, .most = 9}), HasSubstr("found 0, expected an integer from 1 to 9"));
  EXPECT_THAT(number("10", {.least = 1, .most = 9}), HasSubstr("found 10, expected an integer from 1 to 9"));
  EXPECT_THAT(number("null"), HasSubstr("the field 'n' is missing"));

  const Json json = parse_json(R"({"f": 1e39, "i": 3000000000, "b": 1, "s": 1, "l": [1, "x"]})", "c.json");
  Fields fields(json, "c.json");
  EXPECT_THAT(error_of([&] { fields.required<float>("f"); }), HasSubstr("expected a number from"));
  EXPECT_THAT(error_of([&] { fields.required<int>("i"); }), HasSubstr("expected an integer from"));
  EXPECT_THAT(error_of([&] { fields.required<bool>("b"); }), HasSubstr("found 1, expected true or false"));
  EXPECT_THAT(error_of([&] { fields.required<std::string>("s"); }), HasSubstr("expected a string"));
  EXPECT_THAT(error_of([&] { fields.required<std::vector<i64>>("l"); }), HasSubstr("found the string 'x', expected"));
  EXPECT_THAT(error_of([&] { fields.object("b"); }), HasSubstr("c.json: b: found 1, expected an object"));
}

TEST(Fields, NameUnknownFieldsAndCloseOnes) {
  const Json json = parse_json(R"({"hiden_size": 1, "torch_dtype": "x", "zzzzzzzzzz": 2})", "c.json");
  Fields fields(json, "c.json");
  fields.or_default<i64>("hidden_size", 4);
  fields.ignore("torch_dtype");
  const std::string text = error_of([&] { fields.finish(); });
  EXPECT_THAT(text, AllOf(HasSubstr("unknown field 'hiden_size' (did you mean hidden_size?)"),
                          HasSubstr("unknown field 'zzzzzzzzzz'"), Not(HasSubstr("field 'torch_dtype'"))));
}

}  // namespace
}  // namespace sparsam
