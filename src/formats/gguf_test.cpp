#include "formats/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <fstream>

#include "base/error.h"
#include "base/test_support.h"

namespace sparsam {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// The bytes of a file built by hand: numbers and texts one after the other.
struct Bytes {
  std::string text;

  template <class T>
  Bytes& number(T value) {
    text.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  Bytes& string(std::string_view s) {
    number<u64>(s.size()).text += s;
    return *this;
  }
  Bytes& tensor(std::string_view name, std::vector<u64> lengths, u32 type, u64 offset) {
    string(name).number(static_cast<u32>(lengths.size()));
    for (const u64 n : lengths) number(n);
    return number(type).number(offset);
  }
  Bytes& data(size_t bytes) {
    text.resize((text.size() + 31) / 32 * 32);
    for (size_t i = 0; i < bytes; ++i) text += static_cast<char>(i);
    return *this;
  }
  static Bytes header(u64 tensors, u64 entries, u32 version = 3) {
    Bytes bytes{"GGUF"};
    bytes.number(version).number(tensors).number(entries);
    return bytes;
  }
  static Bytes entry(std::string_view key, u32 type) {
    Bytes bytes = header(0, 1);
    bytes.string(key).number(type);
    return bytes;
  }
};

class Gguf : public ::testing::Test {
 protected:
  Gguf() { fs::create_directories(dir_); }
  ~Gguf() override { fs::remove_all(dir_); }

  fs::path write(const Bytes& bytes) const {
    std::ofstream(dir_ / "hand.gguf", std::ios::binary) << bytes.text;  // many files: no need to reach the disk
    return dir_ / "hand.gguf";
  }
  std::string error_of(const Bytes& bytes) const {
    return sparsam::error_of([&] { GgufFile::open(write(bytes)); });
  }

  const fs::path dir_ =
      fs::temp_directory_path() /
      fmt::format("sparsam-{}-{}", ::getpid(), ::testing::UnitTest::GetInstance()->current_test_info()->name());
};

TEST_F(Gguf, ReadsAFileBuiltByHand) {
  for (const u32 version : {2u, 3u}) {
    Bytes bytes = Bytes::header(2, 3, version);
    bytes.string("general.architecture").number<u32>(8).string("llama");
    bytes.string("a.eps").number<u32>(6).number(0.5f);
    bytes.string("a.heads").number<u32>(9).number<u32>(5).number<u64>(2).number<i32>(4).number<i32>(0);
    bytes.tensor("m", {3, 2}, 0, 0).tensor("v", {2}, 30, 32).data(36);
    const GgufFile file = GgufFile::open(write(bytes));
    EXPECT_EQ(file.metadata()[0].second, GgufValue("llama"));
    EXPECT_EQ(file.metadata()[1].second, GgufValue(0.5f));
    EXPECT_EQ(file.metadata()[2].second, GgufValue(GgufArray{std::vector<i32>{4, 0}}));
    const TensorEntry& m = *file.find("m");
    EXPECT_EQ(m.dtype, DType::f32);
    EXPECT_THAT(m.shape, ElementsAre(2, 3));  // the file names the fastest axis first
    EXPECT_EQ(m.bytes.size(), 24u);
    EXPECT_EQ(static_cast<u8>(m.bytes[5]), 5);
    const TensorEntry& v = *file.find("v");
    EXPECT_EQ(v.dtype, DType::bf16);
    EXPECT_EQ(v.bytes.size(), 4u);
    EXPECT_EQ(static_cast<u8>(v.bytes[0]), 32);
    EXPECT_EQ(file.find("w"), nullptr);
  }
}

TEST_F(Gguf, WritesWhatItReads) {
  const GgufMetadata metadata{{"k.u8", u8{255}},
                              {"k.i8", i8{-1}},
                              {"k.u16", u16{65535}},
                              {"k.i16", i16{-2}},
                              {"k.u32", u32{1} << 31},
                              {"k.i32", i32{-3}},
                              {"k.f32", 0.1f},
                              {"k.bool", true},
                              {"k.text", std::string("\xc3\xa4\0b", 4)},
                              {"k.texts", GgufArray{std::vector<std::string>{"a", "", "ccc"}}},
                              {"k.bools", GgufArray{std::vector<bool>{true, false}}},
                              {"k.none", GgufArray{std::vector<double>{}}},
                              {"k.u64", ~u64{0}},
                              {"k.i64", std::numeric_limits<i64>::min()},
                              {"k.f64", 1e300}};
  std::vector<std::byte> data(1000);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i * 7);
  const std::span<const std::byte> bytes(data);
  const std::vector<TensorEntry> tensors{{"vector", DType::f32, {3}, bytes.first(12)},
                                         {"matrix", DType::bf16, {5, 2}, bytes.subspan(20, 20)},
                                         {"blocks", DType::q8_0, {2, 64}, bytes.subspan(100, 136)},
                                         {"cube", DType::f16, {2, 3, 4}, bytes.subspan(500, 48)}};
  const fs::path path = dir_ / "a.gguf";
  write_gguf(path, metadata, tensors);
  const GgufFile file = GgufFile::open(path);
  EXPECT_EQ(file.metadata(), metadata);
  ASSERT_EQ(file.tensors().size(), tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const TensorEntry &was = tensors[i], &is = file.tensors()[i];
    EXPECT_EQ(is.name, was.name);
    EXPECT_EQ(is.dtype, was.dtype);
    EXPECT_EQ(is.shape, was.shape);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(is.bytes.data()) % 32, 0u);
    ASSERT_EQ(is.bytes.size(), was.bytes.size());
    EXPECT_EQ(std::memcmp(is.bytes.data(), was.bytes.data(), is.bytes.size()), 0);
  }
  EXPECT_EQ(fs::file_size(path) % 32, 0u);
}

TEST_F(Gguf, WriterRefusesWhatGgufOrLlamaCppCannotHold) {
  const auto error = [&](const GgufMetadata& metadata, const std::vector<TensorEntry>& tensors) {
    return sparsam::error_of([&] { write_gguf(dir_ / "b.gguf", metadata, tensors); });
  };
  const std::vector<std::byte> data(8);
  EXPECT_THAT(error({{"k", u8{1}}, {"k", u8{2}}}, {}), HasSubstr("'k'"));
  EXPECT_THAT(error({{"general.alignment", u32{64}}}, {}), HasSubstr("'general.alignment'"));
  EXPECT_THAT(error({}, {{"t", DType::f32, {2}, data}, {"t", DType::f32, {2}, data}}), HasSubstr("'t'"));
  EXPECT_THAT(error({}, {{std::string(64, 'n'), DType::f32, {2}, data}}), HasSubstr("63 bytes"));
  EXPECT_THAT(error({}, {{"t", DType::u32, {2}, data}}), HasSubstr("no number format u32"));
  EXPECT_FALSE(fs::exists(dir_ / "b.gguf"));
}

TEST_F(Gguf, RefusesDamagedHeaders) {
  EXPECT_THAT(error_of({""}), HasSubstr("expected 'GGUF'"));
  EXPECT_THAT(error_of({"GGJT...."}), HasSubstr("begins with 'GGJT', expected 'GGUF'"));
  EXPECT_THAT(error_of({"GGUF"}), HasSubstr("version"));
  EXPECT_THAT(error_of(Bytes::header(0, 0, 1)), HasSubstr("version 1 of GGUF, expected 2 or 3"));
  EXPECT_THAT(error_of(Bytes::header(0, 0, 3u << 24)), HasSubstr("big endian"));
  EXPECT_THAT(error_of(Bytes::header(u64{1} << 60, 0)), AllOf(HasSubstr("tensors"), HasSubstr("1152921504606846976")));
  EXPECT_THAT(error_of(Bytes::header(0, ~u64{0})), HasSubstr("metadata entries"));
  EXPECT_EQ(error_of(Bytes::header(0, 0)), "no error");
}

TEST_F(Gguf, RefusesDamagedMetadata) {
  EXPECT_THAT(error_of(Bytes::header(0, 1).number(~u64{0}).data(64)), HasSubstr("key 0"));
  EXPECT_THAT(error_of(Bytes::entry("", 0).number<u64>(1)), HasSubstr("key 0 is ''"));
  EXPECT_THAT(error_of(Bytes::entry("a\nb", 0).number<u8>(1)), HasSubstr("'a\\x0ab'"));
  EXPECT_THAT(error_of(Bytes::entry("k", 13).number<u64>(1)), HasSubstr("key 'k': value type 13, expected 0 to 12"));
  EXPECT_THAT(error_of(Bytes::entry("k", 7).number<u8>(2)), HasSubstr("the truth value 2"));
  EXPECT_THAT(error_of(Bytes::entry("k", 10).number<u32>(2)), HasSubstr("key 'k'"));
  EXPECT_THAT(error_of(Bytes::entry("k", 8).number<u64>(u64{1} << 62).data(64)), HasSubstr("key 'k': a text of"));
  EXPECT_THAT(error_of(Bytes::entry("k", 9).number<u32>(12).number<u64>((u64{1} << 61) + 1).data(64)),
              HasSubstr("2305843009213693953"));
  EXPECT_THAT(error_of(Bytes::entry("k", 9).number<u32>(9).number<u64>(1).data(64)), HasSubstr("array of arrays"));
  Bytes twice = Bytes::header(0, 2);
  twice.string("k").number<u32>(0).number<u8>(1).string("k").number<u32>(0).number<u8>(2);
  EXPECT_THAT(error_of(twice), HasSubstr("the key 'k' stands twice"));
  for (const u32 alignment : {0u, 4u, 24u, 1u << 17})
    EXPECT_THAT(error_of(Bytes::entry("general.alignment", 4).number(alignment)), HasSubstr("general.alignment"));
  EXPECT_THAT(error_of(Bytes::entry("general.alignment", 8).string("32")), HasSubstr("found the text '32'"));
}

TEST_F(Gguf, RefusesDamagedTensors) {
  const auto one = [&](std::vector<u64> lengths, u32 type, u64 offset, size_t data = 64) {
    return error_of(Bytes::header(1, 0).tensor("t", std::move(lengths), type, offset).data(data));
  };
  EXPECT_EQ(one({4, 4}, 0, 0), "no error");
  EXPECT_EQ(one({4, 3}, 0, 0, 200), "no error");  // bytes after the last tensor
  EXPECT_THAT(one({}, 0, 0), HasSubstr("tensor 't': 0 axes, expected 1 to 4"));
  EXPECT_THAT(one({1, 1, 1, 1, 1}, 0, 0), HasSubstr("5 axes"));
  EXPECT_THAT(one({0}, 0, 0), HasSubstr("length 0"));
  EXPECT_THAT(one({~u64{0} - 7}, 0, 0), HasSubstr("length -8"));
  EXPECT_THAT(one({u64{1} << 32, u64{1} << 32}, 0, 0), HasSubstr("63 bits"));
  EXPECT_THAT(one({u64{1} << 61}, 0, 0), HasSubstr("63 bits"));
  EXPECT_THAT(one({8}, 4, 0), HasSubstr("number format 4, which GGUF does not have"));
  EXPECT_THAT(one({8}, ~0u, 0), HasSubstr("number format 4294967295"));
  EXPECT_THAT(one({256}, 17, 0), HasSubstr("stored as iq2_xs, a number format of GGUF that is not supported"));
  EXPECT_THAT(one({48}, 2, 0), HasSubstr("blocks of 32"));
  EXPECT_THAT(one({4}, 0, 8), HasSubstr("expected a multiple of 32"));
  EXPECT_THAT(one({4}, 0, 64), HasSubstr("bytes 64 to 80 of the data, but the file has 64"));
  EXPECT_THAT(one({4}, 0, ~u64{31}), HasSubstr("tensor 't'"));
  EXPECT_THAT(error_of(Bytes::header(2, 0).tensor("t", {4}, 0, 0).tensor("t", {4}, 0, 32).data(64)),
              HasSubstr("the tensor 't' stands twice"));
  EXPECT_THAT(error_of(Bytes::header(2, 0).tensor("a", {16}, 0, 0).tensor("b", {4}, 0, 32).data(64)),
              HasSubstr("tensors 'a' and 'b' overlap"));
  EXPECT_THAT(error_of(Bytes::header(1, 0).tensor("", {4}, 0, 0).data(64)), HasSubstr("tensor 0 has no name"));
}

TEST_F(Gguf, EveryTruncationIsAnError) {
  Bytes bytes = Bytes::header(2, 2);
  bytes.string("k").number<u32>(8).string("text");
  bytes.string("l").number<u32>(9).number<u32>(8).number<u64>(2).string("a").string("b");
  bytes.tensor("t", {4, 2}, 0, 0).tensor("u", {8}, 1, 32).data(48);
  ASSERT_EQ(error_of(bytes), "no error");
  for (size_t length = 0; length < bytes.text.size(); ++length)
    EXPECT_NE(error_of({bytes.text.substr(0, length)}), "no error") << length;
}

TEST_F(Gguf, FieldsCheckTypesAndLimits) {
  Bytes bytes = Bytes::header(0, 6);
  bytes.string("a.u8").number<u32>(0).number<u8>(200);
  bytes.string("a.big").number<u32>(10).number(~u64{0});
  bytes.string("a.real").number<u32>(6).number(std::numeric_limits<float>::quiet_NaN());
  bytes.string("a.list").number<u32>(9).number<u32>(4).number<u64>(2).number<u32>(7).number<u32>(8);
  bytes.string("a.text").number<u32>(8).string("x");
  bytes.string("b.other").number<u32>(0).number<u8>(1);
  const GgufFile file = GgufFile::open(write(bytes));
  GgufFields fields(file);
  const auto error = [&](auto&& read) { return sparsam::error_of(read); };
  EXPECT_EQ(fields.required<i64>("a.u8"), 200);
  EXPECT_EQ(fields.required<std::string>("a.text"), "x");
  EXPECT_THAT(fields.required<std::vector<i64>>("a.list"), ElementsAre(7, 8));
  EXPECT_EQ(fields.or_default<float>("a.none", 0.5f), 0.5f);
  EXPECT_THAT(error([&] { fields.required<i64>("a.missing"); }), HasSubstr("the key 'a.missing' is missing"));
  EXPECT_THAT(error([&] { fields.required<i64>("a.u8", {.least = 1, .most = 100}); }),
              HasSubstr("key 'a.u8': found 200, expected an integer from 1 to 100"));
  EXPECT_THAT(error([&] { fields.required<i64>("a.big"); }), HasSubstr("found 18446744073709551615"));
  EXPECT_THAT(error([&] { fields.required<float>("a.real", {.least = 0, .most = 1}); }), HasSubstr("a number from"));
  EXPECT_THAT(error([&] { fields.required<i64>("a.text"); }), HasSubstr("found the text 'x'"));
  EXPECT_THAT(error([&] { fields.required<bool>("a.u8"); }), HasSubstr("true or false"));
  EXPECT_THAT(error([&] { fields.required<std::vector<float>>("a.list"); }), HasSubstr("array of 32-bit numbers"));
  EXPECT_EQ(error([&] { fields.finish("a."); }), "no error");
  EXPECT_THAT(error([&] { fields.finish("b."); }), HasSubstr("unknown key 'b.other'"));
}

// Files whose container is damaged are refused here; those with a sound container and a senseless model by the model.
TEST_F(Gguf, HostileFilesAreJudgedRight) {
  const fs::path folder = SPARSAM_DATA "/hostile";
  if (!fs::exists(folder)) GTEST_SKIP() << "the shared data folder is not here";
  const Json cases = parse_json(read_text(folder / "cases.json"), "cases.json");
  int seen = 0;
  for (const Json& item : cases) {
    const auto name = item["file"].get<std::string>(), expect = item["expect"].get<std::string>();
    if (!name.starts_with("gguf/")) continue;
    ++seen;
    const bool of_model = name.starts_with("gguf/meta_") || name.starts_with("gguf/tensor_") ||
                          name == "gguf/missing_embd.gguf" || name == "gguf/vocab_short.gguf";
    std::string error;
    try {
      GgufFile::open(folder / name);
    } catch (const Error& e) {
      error = e.what();
      EXPECT_THAT(error, HasSubstr(name));
    }
    if (expect == "reject" && !of_model) {
      EXPECT_NE(error, "") << name << ": " << item["why"];
    }
    if (expect == "accept" || of_model) {
      EXPECT_EQ(error, "") << name;
    }
  }
  EXPECT_GE(seen, 50);
}

TEST_F(Gguf, ReadsFilesOfOthers) {
  const fs::path folder = SPARSAM_DATA;
  if (!fs::exists(folder)) GTEST_SKIP() << "the shared data folder is not here";
  const GgufFile network = GgufFile::open(folder / "weights/ggml/superpoint.gguf");
  EXPECT_GT(network.tensors().size(), 0u);
  const GgufFile vocabulary = GgufFile::open(folder / "tokenizers/gguf-vocab/ggml-vocab-llama-spm.gguf");
  GgufFields fields(vocabulary);
  EXPECT_EQ(fields.required<std::vector<std::string>>("tokenizer.ggml.tokens").size(), 32000u);
  EXPECT_EQ(fields.required<std::vector<float>>("tokenizer.ggml.scores").size(), 32000u);
}

}  // namespace
}  // namespace sparsam
