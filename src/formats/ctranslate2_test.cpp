#include "formats/ctranslate2.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "formats/test_support.h"

namespace sparsam {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

// Files built by hand.
template <class... T>
std::string numbers(T... values) {
  std::string out;
  (out.append(reinterpret_cast<const char*>(&values), sizeof values), ...);
  return out;
}
std::string text(const std::string& value) { return numbers(static_cast<u16>(value.size() + 1)) + value + '\0'; }
std::string shape_of(const std::vector<u32>& shape) {
  std::string out = numbers(static_cast<u8>(shape.size()));
  for (const u32 n : shape) out += numbers(n);
  return out;
}
// As from version 4, and as before.
std::string variable(const std::string& name, const std::vector<u32>& shape, u8 format, const std::string& data) {
  return text(name) + shape_of(shape) + numbers(format, static_cast<u32>(data.size())) + data;
}
std::string old_variable(const std::string& name, const std::vector<u32>& shape, u8 size, const std::string& data) {
  return text(name) + shape_of(shape) + numbers(size, static_cast<u32>(data.size() / size)) + data;
}
std::string head(u32 version, u32 variables) {
  return numbers(version) + (version >= 2 ? text("Spec") + numbers(u32{7}) : "") + numbers(variables);
}

const std::string one_old = old_variable("w:0", {2, 1}, 2, numbers(i16{-500}, i16{250}));
const std::string newest =
    head(6, 6) + variable("a/weight", {2, 2}, 1, numbers(i8{-127}, i8{64}, i8{1}, i8{0})) +
    variable("a/weight_scale", {2}, 0, numbers(127.f, 2.f)) + variable("heads", {}, 2, numbers(i16{8})) +
    variable("half", {1}, 4, numbers(float_to_f16(-0.5f))) + variable("brain", {1}, 5, numbers(float_to_bf16(1.5f))) +
    variable("i32", {2}, 3, numbers(i32{-3}, i32{70'000})) + numbers(u32{1}) + text("b/weight") + text("a/weight");

std::string error_of(const std::string& bytes) { return error_of_bytes(bytes, Ctranslate2File::open); }
std::string error_of_floats(const std::string& bytes) {
  return error_of_bytes(bytes, [](const fs::path& path) { Ctranslate2File::open(path).floats("w"); });
}

TEST(Ctranslate2File, ReadsEveryVersionFormatAndAlias) {
  const MemoryFile bytes(newest);
  const Ctranslate2File file = Ctranslate2File::open(bytes.path());
  EXPECT_EQ(file.version(), 6u);
  EXPECT_EQ(file.specification(), "Spec");
  EXPECT_EQ(file.revision(), 7u);
  ASSERT_EQ(file.tensors().size(), 8u) << "the alias has a scale too";
  EXPECT_EQ(file.tensors()[0].name, "a/weight");
  EXPECT_THAT(file.tensors()[0].shape, ElementsAre(2, 2));
  for (const char* name : {"a/weight", "b/weight"}) EXPECT_THAT(file.floats(name), ElementsAre(-1, 64.f / 127, 0.5, 0));
  EXPECT_EQ(file.find("a/weight")->bytes.data(), file.find("b/weight")->bytes.data());
  EXPECT_TRUE(file.find("heads")->shape.empty());
  EXPECT_THAT(file.floats("heads"), ElementsAre(8)) << "a count has no scale";
  EXPECT_THAT(file.floats("half"), ElementsAre(-0.5));
  EXPECT_THAT(file.floats("brain"), ElementsAre(1.5));
  EXPECT_THAT(file.floats("i32"), ElementsAre(-3, 70'000));

  for (const u32 version : {1u, 2u, 3u}) {
    const MemoryFile old(head(version, 1) + one_old + (version == 3 ? numbers(u32{0}) : ""));
    const Ctranslate2File read = Ctranslate2File::open(old.path());
    EXPECT_EQ(read.specification(), version == 1 ? "" : "Spec");
    EXPECT_THAT(read.floats("w:0"), ElementsAre(-0.5, 0.25)) << "by 1000 where no scale is stored";
  }
}

TEST(Ctranslate2File, IsToldByItsBeginning) {
  const auto is_model = [](const std::string& bytes) {
    return Ctranslate2File::is_model(std::as_bytes(std::span(bytes)));
  };
  EXPECT_TRUE(is_model(newest));
  EXPECT_TRUE(is_model(head(1, 1) + one_old));
  EXPECT_FALSE(is_model(""));
  EXPECT_FALSE(is_model(head(7, 0)));
  EXPECT_FALSE(is_model(numbers(i32{2}, i32{4}, i32{1}, i32{1}, i32{1}, i32{3}, i32{4}) + std::string(400, '\0')))
      << "llama2.c";
  EXPECT_FALSE(is_model(numbers(i32{5}, -1.f, i32{3}) + "abc" + numbers(-2.f, i32{1}) + "a")) << "its vocabularies";
}

TEST(Ctranslate2File, ErrorsNameThePlace) {
  const std::string f = numbers(1.f, 2.f);
  const auto with = [](const std::string& one) { return error_of(head(6, 1) + one + numbers(u32{0})); };
  EXPECT_EQ(with(variable("w", {2}, 0, f)), "no error");
  EXPECT_THAT(with(variable("w", {3}, 0, f)), AllOf(HasSubstr("/proc/self/fd/"), HasSubstr("tensor 'w': 8 bytes"),
                                                    HasSubstr("shape (3) of f32 takes 12")));
  EXPECT_THAT(with(variable("w", {2, 0}, 0, "")), HasSubstr("shape (2, 0), expected dimensions from 1"));
  EXPECT_THAT(with(variable("w", {~0u, ~0u, ~0u}, 0, f)), HasSubstr("64 bits"));
  EXPECT_THAT(with(variable("w", std::vector<u32>(9, 1), 0, f)), HasSubstr("9 axes, expected at most 8"));
  EXPECT_THAT(with(variable("w", {2}, 6, f)), HasSubstr("number format 6, expected one below 6"));
  EXPECT_THAT(with(variable("w", {2}, 0, f).substr(0, 16)), HasSubstr("takes 8 bytes, but"));
  EXPECT_THAT(with(variable("", {2}, 0, f)), HasSubstr("the name of a variable at byte"));
  EXPECT_THAT(with(variable({"a\0b", 3}, {2}, 0, f)), HasSubstr("its only zero byte"));
  EXPECT_THAT(error_of(head(1, 1) + old_variable("w", {1}, 8, f)),
              HasSubstr("elements of 8 bytes, expected 1, 2 or 4"));
  EXPECT_THAT(error_of(head(6, ~0u)), HasSubstr("number of variables is 4294967295, but only 0 bytes follow"));
  EXPECT_THAT(error_of(head(6, 0) + numbers(~0u)), HasSubstr("number of aliases is 4294967295"));
  EXPECT_THAT(error_of(head(6, 0) + numbers(u32{1}) + text("a") + text("b")),
              HasSubstr("'a' stands for the tensor 'b', which is not there"));
  EXPECT_THAT(error_of(head(1, 2) + one_old + one_old), HasSubstr("'w:0' stands twice"));
  EXPECT_THAT(error_of(newest + "x"), HasSubstr("1 bytes follow the last of its 8 tensors"));
  EXPECT_THAT(error_of(head(7, 0)), HasSubstr("version 7, expected a model of CTranslate2 of version 1 to 6"));
}

TEST(Ctranslate2File, ScalesMustFit) {
  const std::string w = variable("w", {2, 1}, 1, "ab");
  const auto with = [&](const std::string& scale) {
    return error_of_floats(head(6, scale.empty() ? 1 : 2) + w + scale + numbers(u32{0}));
  };
  EXPECT_EQ(with(variable("w_scale", {2}, 0, numbers(1.f, 2.f))), "no error");
  EXPECT_EQ(with(variable("w_scale", {}, 0, numbers(1.f))), "no error");
  EXPECT_THAT(with(""), HasSubstr("tensor 'w': its scale is missing"));
  EXPECT_THAT(with(variable("w_scale", {3}, 0, numbers(1.f, 1.f, 1.f))),
              HasSubstr("shape (3) of f32 for shape (2, 1)"));
  EXPECT_THAT(with(variable("w_scale", {2}, 2, "abcd")), HasSubstr("of u16 for shape"));
  EXPECT_THAT(with(variable("w_scale", {}, 0, numbers(0.f))), HasSubstr("a scale of 0, expected more"));
  EXPECT_THAT(error_of_floats(head(6, 0) + numbers(u32{0})), HasSubstr("the tensor 'w' is missing"));
}

// Every file cut short is an error; with a byte changed it is read or refused, and never more.
TEST(Ctranslate2File, CutsAndChangesAreErrors) {
  for (const std::string& whole : {newest, head(1, 1) + one_old, head(2, 1) + one_old}) {
    for (size_t length = 0; length < whole.size(); ++length)
      EXPECT_THAT(error_of(whole.substr(0, length)), HasSubstr("/proc/self/fd/")) << length;
    for (size_t i = 0; i < whole.size(); ++i)
      for (const int change : {0x01, 0x80, 0xff}) {
        std::string changed = whole;
        changed[i] = static_cast<char>(changed[i] ^ change);
        const MemoryFile bytes(changed);
        try {
          const Ctranslate2File file = Ctranslate2File::open(bytes.path());
          for (const TensorEntry& tensor : file.tensors())
            EXPECT_EQ(file.floats(tensor.name).size(), static_cast<size_t>(tensor.elements()));
        } catch (const Error& error) {
          EXPECT_THAT(error.what(), HasSubstr("/proc/self/fd/")) << i;
        }
      }
  }
}

}  // namespace
}  // namespace sparsam
