#include "text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/files.h"
#include "base/test_support.h"

namespace sparsam {
namespace {

using testing::HasSubstr;

std::string rendered(std::string_view text, const Json& variables = Json::object()) {
  return ChatTemplate::parse(text, "template").render(variables);
}
std::string error_of(std::string_view text, const Json& variables = Json::object()) {
  return sparsam::error_of([&] { rendered(text, variables); });
}

// The templates of published models over several conversations, against Python's Jinja (tools/write_chat_goldens.py).
TEST(ChatTemplate, RendersAsJinjaDoes) {
  const fs::path folder = fs::path(SPARSAM_TEST_DATA) / "golden/chat";
  const Json golden = parse_json(read_text(folder / "expected.json"), "expected.json");
  int compared = 0;
  for (const auto& [name, cases] : golden["expected"].get_ref<const Json::object_t&>()) {
    const ChatTemplate parsed = ChatTemplate::parse(read_text(folder / (name + ".jinja")), name);
    for (const auto& [conversation, expected] : cases.get_ref<const Json::object_t&>()) {
      Json variables{{"add_generation_prompt", true}, {"tools", nullptr}, {"documents", nullptr}};
      variables["bos_token"] = "<s>", variables["eos_token"] = "</s>";
      for (const auto& [key, value] : golden["conversations"][conversation].get_ref<const Json::object_t&>())
        value.is_null() ? void(variables.erase(key)) : void(variables[key] = value);
      std::string found;
      try {
        found = parsed.render(variables);
      } catch (const Error& error) {
        EXPECT_TRUE(expected.is_object()) << name << ", " << conversation << ": " << error.what();
        continue;
      }
      EXPECT_TRUE(expected.is_string()) << name << ", " << conversation << ": expected an error";
      EXPECT_EQ(found, expected.is_string() ? expected.get<std::string>() : "") << name << ", " << conversation;
      ++compared;
    }
  }
  EXPECT_GT(compared, 120);
}

TEST(ChatTemplate, MessagesAndTokensReachTheTemplate) {
  const ChatTemplate parsed = ChatTemplate::parse(
      "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}{{ eos_token }}{% endfor %}"
      "{% if add_generation_prompt %}[assistant]{% endif %}",
      "template");
  const std::vector<ChatMessage> messages{{"system", "be brief"}, {"user", "why?"}};
  EXPECT_EQ(parsed.render(messages, {.bos = "<s>", .eos = "|"}), "<s>[system] be brief|[user] why?|[assistant]");
  EXPECT_EQ(parsed.render(messages, {.add_generation_prompt = false}), "[system] be brief[user] why?");
}

TEST(ChatTemplate, WhatIsOutsideTheSubsetIsRefusedByNameAndLine) {
  EXPECT_THAT(error_of("\n\n{% include 'x' %}"), HasSubstr("template: line 3: unknown tag 'include'"));
  EXPECT_THAT(error_of("{% endif %}"), HasSubstr("unknown tag 'endif'"));
  EXPECT_THAT(error_of("a\n{{ x | frobnicate }}"), HasSubstr("template: line 2: unknown filter 'frobnicate'"));
  EXPECT_THAT(error_of("{{ x | uper }}"), HasSubstr("did you mean upper"));
  EXPECT_THAT(error_of("{{ x is strin }}"), HasSubstr("unknown test 'strin'"));
  EXPECT_THAT(error_of("{% if false %}{{ x.encode() }}{% endif %}"), HasSubstr("unknown method 'encode'"));
  EXPECT_THAT(error_of("{{ [].__class__() }}"), HasSubstr("unknown method '__class__'"));
  EXPECT_EQ(rendered("{{ ''.__class__ }}"), "") << "not there, as in Jinja's sandbox";
  EXPECT_THAT(error_of("{{ cycler('a') }}"),
              HasSubstr("cycler is called, but is undefined; known functions: raise_exception"));
  EXPECT_THAT(error_of("{% for x in y recursive %}{% endfor %}"), HasSubstr("recursive loops are not supported"));
  EXPECT_THAT(error_of("{{ 'É' | lower }}"), HasSubstr("not ASCII"));
  EXPECT_THAT(error_of("{{ f(*a) }}"), HasSubstr("unpacked arguments are not supported"));
  EXPECT_THAT(error_of("{{ 'x' | trim(side='left') }}"), HasSubstr("trim: the argument 'side' is not supported"));
  EXPECT_THAT(error_of("{{ '%s' % 'x' }}"), HasSubstr("a text % a text is not supported"));
  EXPECT_THAT(error_of("{{ {1: 2} }}"), HasSubstr("as the key of a dictionary"));
  EXPECT_THAT(error_of("{% set ns = namespace() %}{% set ns.self = ns %}"), HasSubstr("a namespace within another"));
}

TEST(ChatTemplate, NamesSyntaxErrors) {
  EXPECT_THAT(error_of("a\n{% if x %}b"), HasSubstr("line 2: the template ends, expected {% endif %}"));
  EXPECT_THAT(error_of("{{ 1 + }}"), HasSubstr("line 1: found '}}', expected an expression"));
  EXPECT_THAT(error_of("{{ 'abc }}"), HasSubstr("a text has no end"));
  EXPECT_THAT(error_of("\n{# abc"), HasSubstr("line 2: a comment has no end"));
  EXPECT_THAT(error_of("{% for x in y"), HasSubstr("a tag has no end '%}'"));
  EXPECT_THAT(error_of("{{ (1 }}"), HasSubstr("found '}', expected ')'"));
  EXPECT_THAT(error_of("{{ 1 $ 2 }}"), HasSubstr("'$' is no part of an expression"));
  EXPECT_THAT(error_of("{{ 99999999999999999999 }}"), HasSubstr("does not fit"));
  EXPECT_THAT(error_of("{% break %}"), HasSubstr("outside of a loop"));
  EXPECT_THAT(error_of("{{ x y }}"), HasSubstr("found 'y', expected '}}'"));
  EXPECT_EQ(rendered(""), "");
  EXPECT_EQ(rendered("{ {"), "{ {");
}

TEST(ChatTemplate, NamesWhatGoesWrongInRendering) {
  EXPECT_THAT(error_of("{{ raise_exception('roles must alternate') }}"),
              HasSubstr("template: line 1: roles must alternate"));
  EXPECT_THAT(error_of("\n{{ a.b.c }}"), HasSubstr("line 2: a is undefined, so that it has no 'b'"));
  EXPECT_THAT(error_of("{{ 'a' + 1 }}"), HasSubstr("a text + an integer is not supported"));
  EXPECT_THAT(error_of("{{ 1 // 0 }}"), HasSubstr("division by zero"));
  EXPECT_THAT(error_of("{% for x in 3 %}{% endfor %}"), HasSubstr("found an integer, expected a list"));
  EXPECT_THAT(error_of("{{ 9223372036854775807 + 1 }}"), HasSubstr("more than 63 bits"));
  EXPECT_THAT(error_of("{{ 2 ** 64 }}"), HasSubstr("more than 63 bits"));
  EXPECT_THAT(error_of("{{ (-9223372036854775807 - 1) // -1 }}"), HasSubstr("more than 63 bits"));
  EXPECT_THAT(error_of("{{ [1][::0] }}"), HasSubstr("step 0"));
}

// What would take hours or all memory ends in seconds with an error.
TEST(ChatTemplate, WorkIsBounded) {
  const std::vector<std::string> endless{
      "{% for i in range(1000000000) %}x{% endfor %}",
      "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}",
      "{% set ns = namespace(s='x') %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(100) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
      "{% set ns = namespace(l=[]) %}{% for i in range(100) %}{% set ns.l = [ns.l] %}{% endfor %}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l == ns.l "
      "+ [] }}",
      "{{ 'x' * 1000000000000 }}",
      "{{ 1 ** 1000000000000 }}",
      "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
      "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
      "{{ [1, 2] | tojson(indent=1000000000) }}{% for i in range(2000000) %}x{% endfor %}",
  };
  const i64 work = sanitized ? ChatTemplate::most_work / 32 : ChatTemplate::most_work;
  for (const std::string& text : endless) {
    const ChatTemplate parsed = ChatTemplate::parse(text, "template");
    const Stopwatch clock;
    EXPECT_NE(sparsam::error_of([&] { parsed.render(Json::object(), work); }), "no error") << text;
    EXPECT_LT(clock.seconds(), 10) << text;  // about 1 s
  }
  const auto many = [](const std::string& part) {
    std::string all;
    for (int i = 0; i < 100'000; ++i) all += part;
    return all;
  };
  for (const std::string part : {"(", "[", "not ", "-", "a if ", "{'a':"})
    EXPECT_NE(error_of("{{ " + many(part) + "1 }}"), "no error") << part;
  for (const std::string part : {"+1", ".a", "|trim", "[0]", " ~ 1", " and 1", " is odd"})
    EXPECT_NE(error_of("{{ 1" + many(part) + " }}"), "no error") << part;
  EXPECT_NE(error_of(many("{% if 1 %}")), "no error");
  EXPECT_EQ(rendered(many("{{ 1 }}")).size(), 100'000u);
}

TEST(ChatTemplate, EveryCutOfATemplateEndsWell) {
  const std::string text = read_text(fs::path(SPARSAM_TEST_DATA) / "golden/chat/qwen3.jinja");
  for (size_t length = 0; length < text.size(); ++length) error_of(text.substr(0, length));
}

}  // namespace
}  // namespace sparsam
