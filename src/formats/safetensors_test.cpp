#include "formats/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <fstream>

#include "base/error.h"
#include "base/random.h"
#include "base/test_support.h"
#include "formats/json.h"

namespace sparsam {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A directory of its own for each test, gone afterwards.
class Safetensors : public ::testing::Test {
 protected:
  Safetensors() { fs::create_directories(dir_); }
  ~Safetensors() override { fs::remove_all(dir_); }

  fs::path write(const std::string& name, std::string_view bytes) const {
    write_text(dir_ / name, bytes);
    return dir_ / name;
  }
  // A file built by hand: length, header, data.
  static std::string file_of(const std::string& header, size_t data_bytes) {
    const u64 length = header.size();
    std::string bytes(8, '\0');
    std::memcpy(bytes.data(), &length, 8);
    bytes += header;
    for (size_t i = 0; i < data_bytes; ++i) bytes += static_cast<char>(i);
    return bytes;
  }
  std::string error_of(const fs::path& path) const {
    return sparsam::error_of([&] { SafetensorsFile::open(path); });
  }
  std::string error_of_header(const std::string& header, size_t data_bytes = 32) const {
    return error_of(write("hand.safetensors", file_of(header, data_bytes)));
  }
  // The same for one tensor 'w' over 32 bytes of data.
  std::string error_of_tensor(const std::string& dtype, const std::string& shape, const std::string& offsets) const {
    return error_of_header(
        fmt::format(R"({{"w":{{"dtype":{},"shape":{},"data_offsets":{}}}}})", dtype, shape, offsets));
  }

  const fs::path dir_ =
      fs::temp_directory_path() /
      fmt::format("sparsam-{}-{}", ::getpid(), ::testing::UnitTest::GetInstance()->current_test_info()->name());
};

std::vector<u8> values(std::span<const std::byte> bytes) {
  std::vector<u8> out;
  for (const std::byte b : bytes) out.push_back(static_cast<u8>(b));
  return out;
}

TEST_F(Safetensors, ReadsAFileBuiltByHand) {
  const auto path = write("a.safetensors", file_of(R"({"__metadata__":{"k":"v"},)"
                                                   R"("b":{"dtype":"BF16","shape":[2,1],"data_offsets":[4,8]},)"
                                                   R"("s":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
                                                   R"("none":{"dtype":"F64","shape":[0,3],"data_offsets":[4,4]}}  )",
                                                   8));
  const auto file = SafetensorsFile::open(path);
  ASSERT_EQ(file.tensors().size(), 3u);
  const TensorEntry& b = file.at("b");
  EXPECT_EQ(b.dtype, DType::bf16);
  EXPECT_THAT(b.shape, ElementsAre(2, 1));
  EXPECT_EQ(b.elements(), 2);
  EXPECT_THAT(values(b.bytes), ElementsAre(4, 5, 6, 7));
  EXPECT_THAT(values(file.at("s").bytes), ElementsAre(0, 1, 2, 3));
  EXPECT_EQ(file.at("s").elements(), 1);
  EXPECT_TRUE(file.at("none").bytes.empty());
  EXPECT_EQ(file.metadata().at("k"), "v");
  EXPECT_EQ(file.find("c"), nullptr);
}

// Headers of any length are valid, so a float may lie at any address of the file; it is handed out aligned.
TEST_F(Safetensors, AlignsTensorsThatLieUnaligned) {
  for (int spaces = 0; spaces < 9; ++spaces) {
    const auto path = write("a.safetensors", file_of(R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                                                     R"("w":{"dtype":"F64","shape":[2],"data_offsets":[1,17]}})" +
                                                         std::string(spaces, ' '),
                                                     17));
    const auto file = SafetensorsFile::open(path);
    const auto bytes = file.at("w").bytes;
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(bytes.data()) % 8, 0u);
    EXPECT_THAT(values(bytes), ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16));
  }
}

TEST_F(Safetensors, NamesWhatIsWrongWithATensor) {
  EXPECT_EQ(error_of_tensor("\"F32\"", "[8]", "[0,32]"), "no error");
  EXPECT_THAT(error_of_tensor("\"F32\"", "[9]", "[0,32]"),
              AllOf(HasSubstr("hand.safetensors: tensor 'w': shape (9) of F32 takes 36 bytes"), HasSubstr("span 32")));
  EXPECT_THAT(error_of_tensor("\"f32\"", "[8]", "[0,32]"), AllOf(HasSubstr("unknown dtype 'f32'"), HasSubstr("F32")));
  EXPECT_THAT(error_of_tensor("\"F32\"", "[8]", "[0,33]"), HasSubstr("leave the 32 bytes of data"));
  EXPECT_THAT(error_of_tensor("\"F32\"", "[8]", "[32,0]"), HasSubstr("leave the 32 bytes of data"));
  EXPECT_THAT(error_of_tensor("\"F32\"", "[8]", "[0]"), HasSubstr("holds 1 values"));
  EXPECT_THAT(error_of_tensor("\"F32\"", "[-8]", "[0,32]"), HasSubstr("negative dimension"));
  EXPECT_THAT(error_of_tensor("\"F32\"", "[1152921504606846976,16]", "[0,0]"), HasSubstr("63 bits"));
  EXPECT_THAT(error_of_tensor("\"F32\"", "[0,1152921504606846976,1152921504606846976]", "[0,0]"), HasSubstr("63 bits"));
  EXPECT_THAT(error_of_tensor("\"F32\"", "[2305843009213693952]", "[0,0]"), HasSubstr("63 bits"));
  EXPECT_THAT(error_of_tensor("\"F32\"", "8", "[0,32]"), HasSubstr("found 8, expected an array"));
  EXPECT_THAT(error_of_tensor("\"F32\"", "[7]", "[4,32]"), HasSubstr("begins at byte 4 of the data, expected 0"));
  EXPECT_THAT(error_of_tensor("\"F32\"", "[7]", "[0,28]"), HasSubstr("end at byte 28 of the data, but it has 32"));
  EXPECT_THAT(error_of_header(R"({"a":{"dtype":"U8","shape":[20],"data_offsets":[0,20]},)"
                              R"("b":{"dtype":"U8","shape":[13],"data_offsets":[19,32]}})"),
              HasSubstr("tensor 'b' begins at byte 19 of the data, expected 20: tensors overlap"));
  EXPECT_THAT(error_of_header("{}"), HasSubstr("end at byte 0 of the data, but it has 32"));
  EXPECT_EQ(error_of_header("{}", 0), "no error");
}

TEST_F(Safetensors, EveryTruncationIsRefused) {
  const std::string whole = file_of(R"({"w":{"dtype":"F32","shape":[8],"data_offsets":[0,32]}})", 32);
  ASSERT_EQ(error_of(write("whole.safetensors", whole)), "no error");
  for (size_t length = 0; length < whole.size(); ++length)
    EXPECT_THAT(error_of(write("cut.safetensors", whole.substr(0, length))), HasSubstr("cut.safetensors")) << length;
  EXPECT_THAT(error_of(write("long.safetensors", whole + "x")), HasSubstr("bytes that no tensor owns"));
}

// Damaged files either open with sound ranges or throw; the sanitizers watch the reads.
TEST_F(Safetensors, DamagedBytesNeverReachBeyondTheFile) {
  const std::string whole = file_of(R"({"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},)"
                                    R"("v":{"dtype":"I64","shape":[2],"data_offsets":[16,32]}})",
                                    32);
  const fs::path path = write("damaged.safetensors", whole);
  Random random(1);
  int refused = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string damaged = whole;
    for (u64 i = 0, n = 1 + random.below(3); i < n; ++i)
      damaged[random.below(damaged.size() - 32)] =
          static_cast<char>(random.below(2) ? random.below(256) : '0' + random.below(10));
    std::fstream(path, std::ios::in | std::ios::out | std::ios::binary) << damaged;  // in place: no flush of a new file
    try {
      const auto file = SafetensorsFile::open(path);
      size_t bytes = 0;
      for (const TensorEntry& entry : file.tensors()) bytes += values(entry.bytes).size();
      EXPECT_EQ(bytes, 32u);
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 1000);
}

TEST_F(Safetensors, RoundTripIsBitEqual) {
  Random random(2);
  std::vector<std::vector<std::byte>> data;
  std::vector<TensorEntry> entries;
  const std::vector<std::vector<i64>> shapes = {{3, 5}, {}, {0, 7}, {1}, {2, 3, 4}, {13}};
  for (const DType dtype :
       {DType::f32, DType::f16, DType::bf16, DType::f64, DType::u8, DType::u16, DType::u32, DType::i32, DType::i64})
    for (const auto& shape : shapes) {
      TensorEntry entry{.name = fmt::format("t{}.\"ä\"", entries.size()), .dtype = dtype, .shape = shape, .bytes = {}};
      std::vector<std::byte> bytes(static_cast<size_t>(entry.elements() * size_of(dtype)));
      for (std::byte& b : bytes) b = static_cast<std::byte>(random.below(256));
      entry.bytes = data.emplace_back(std::move(bytes));
      entries.push_back(std::move(entry));
    }
  const fs::path path = dir_ / "model.safetensors";
  write_safetensors(path, entries, {{"note", "x"}});
  const auto file = SafetensorsFile::open(dir_);
  ASSERT_EQ(file.tensors().size(), entries.size());
  for (size_t i = 0; i < entries.size(); ++i) {
    const TensorEntry& found = file.tensors()[i];
    EXPECT_EQ(found.name, entries[i].name);
    EXPECT_EQ(found.dtype, entries[i].dtype);
    EXPECT_EQ(found.shape, entries[i].shape);
    EXPECT_EQ(values(found.bytes), values(entries[i].bytes));
  }
  EXPECT_THAT(file.metadata(), ElementsAre(std::pair("format", "pt"), std::pair("note", "x")));

  // The layout as the format's text says it, read without the reader.
  const std::string bytes = read_text(path);
  u64 length = 0;
  std::memcpy(&length, bytes.data(), 8);
  EXPECT_EQ((8 + length) % 64, 0u);
  EXPECT_TRUE(std::string_view(bytes).substr(8).starts_with(R"({"__metadata__":{"format":"pt","note":"x"},"t0)"));
  EXPECT_EQ(bytes.substr(8 + length, entries[0].bytes.size()),
            std::string(reinterpret_cast<const char*>(entries[0].bytes.data()), entries[0].bytes.size()));
}

TEST_F(Safetensors, WriterRefusesBadNames) {
  const TensorEntry w{.name = "w", .dtype = DType::u8, .shape = {0}, .bytes = {}};
  EXPECT_THROW(write_safetensors(dir_ / "x", std::vector{w, w}), Error);
  TensorEntry reserved = w, binary = w;
  reserved.name = "__metadata__";
  binary.name = "\xff";
  EXPECT_THROW(write_safetensors(dir_ / "x", std::vector{reserved}), Error);
  EXPECT_THROW(write_safetensors(dir_ / "x", std::vector{binary}), Error);
  EXPECT_TRUE(fs::is_empty(dir_));
}

TEST_F(Safetensors, ReadsShardsThroughTheIndex) {
  const auto shard = [&](const std::string& file, const std::string& tensor) {
    write(file, file_of(fmt::format(R"({{"{}":{{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}}})", tensor), 2));
  };
  const auto index = [&](const std::string& map) {
    return error_of(write("model.safetensors.index.json",
                          fmt::format(R"({{"metadata":{{"total_size":4}},"weight_map":{}}})", map)));
  };
  EXPECT_THAT(error_of(dir_), HasSubstr("expected model.safetensors or"));
  shard("one.safetensors", "a");
  shard("two.safetensors", "b");
  EXPECT_EQ(index(R"({"b":"two.safetensors","a":"one.safetensors"})"), "no error");
  const auto file = SafetensorsFile::open(dir_);
  EXPECT_THAT(values(file.at("b").bytes), ElementsAre(0, 1));
  EXPECT_EQ(file.tensors().size(), 2u);
  EXPECT_THAT([&] { file.at("bb"); },
              ::testing::ThrowsMessage<Error>(HasSubstr("the tensor 'bb' is missing; it holds b")));

  EXPECT_THAT(index(R"({"a":"one.safetensors","c":"one.safetensors"})"), HasSubstr("tensor 'c' is said to be in one"));
  EXPECT_THAT(index(R"({"c":"one.safetensors"})"), HasSubstr("tensor 'a' stands in one.safetensors, but the index"));
  EXPECT_THAT(index(R"({"a":"../one.safetensors"})"), HasSubstr("expected the name of a file in the same directory"));
  EXPECT_THAT(index(R"({"a":7})"), HasSubstr("is said to be in '7'"));
  EXPECT_THAT(index(R"({"a":"missing.safetensors"})"),
              HasSubstr("index.json: the shard missing.safetensors is not beside it"));
  EXPECT_THAT(index("[]"), HasSubstr("expected an object 'weight_map'"));
  shard("two.safetensors", "a");
  write("model.safetensors.index.json", R"({"weight_map":{"a":"one.safetensors"}})");
  EXPECT_EQ(SafetensorsFile::open(dir_).tensors().size(), 1u);
  shard("model.safetensors", "a");
  EXPECT_THAT(error_of(dir_), HasSubstr("holds both"));
}

// A collection of damaged files with the verdict that each deserves.
TEST(SafetensorsHostile, EveryCaseIsJudgedRight) {
  const fs::path folder = SPARSAM_DATA "/hostile";
  if (!fs::exists(folder / "cases.json")) GTEST_SKIP() << "the shared folder of damaged files is not here";
  int judged = 0;
  for (const Json& item : parse_json(read_text(folder / "cases.json"), "cases.json")) {
    const auto name = item.at("file").get<std::string>(), expected = item.at("expect").get<std::string>();
    if (!name.starts_with("safetensors/")) continue;
    std::string verdict = "accept", text;
    try {
      size_t sum = 0;
      const auto file = SafetensorsFile::open(folder / name);
      for (const TensorEntry& entry : file.tensors())
        for (const u8 value : values(entry.bytes)) sum += value;
      EXPECT_LT(sum, size_t{1} << 40);
    } catch (const Error& error) {
      verdict = "reject", text = error.what();
    }
    if (expected != "no-crash") {
      EXPECT_EQ(verdict, expected) << name << ": " << item.at("why") << ": " << text;
    }
    if (verdict == "reject") {
      EXPECT_THAT(text, HasSubstr(fs::path(name).filename().string()));
      EXPECT_LT(text.size(), 800u) << name;
    }
    ++judged;
  }
  EXPECT_GT(judged, 45);
}

}  // namespace
}  // namespace sparsam
