#include "formats/torch_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <cstring>

#include "base/error.h"
#include "base/test_support.h"
#include "formats/test_support.h"
#include "formats/zip.h"

namespace sparsam {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

fs::path golden(const std::string& name) { return fs::path(SPARSAM_TEST_DATA) / "golden/torch" / name; }

template <class T>
std::vector<T> values(const TensorEntry& entry) {
  std::vector<T> out(entry.bytes.size() / sizeof(T));
  std::memcpy(out.data(), entry.bytes.data(), entry.bytes.size());
  return out;
}
std::vector<float> floats(const TorchFile& file, const std::string& name) { return values<float>(*file.find(name)); }

TEST(TorchFile, ReadsAStateDictionaryOfTorch) {
  const TorchFile file = TorchFile::open(golden("linear.pt"));
  ASSERT_EQ(file.tensors().size(), 2u);
  EXPECT_EQ(file.tensors()[0].name, "weight");
  EXPECT_THAT(file.tensors()[0].shape, ElementsAre(2, 3));
  EXPECT_THAT(floats(file, "weight"), ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_THAT(floats(file, "bias"), ElementsAre(0, 1));
  EXPECT_EQ(file.find("gain"), nullptr);
}

TEST(TorchFile, ReadsEveryNumberFormatStrideAndProtocolOfTorch) {
  for (const char* name : {"kinds2.pt", "kinds4.pt"}) {
    const TorchFile file = TorchFile::open(golden(name));
    const auto at = [&](const std::string& tensor) { return *file.find("module." + tensor); };
    EXPECT_EQ(at("f16").dtype, DType::f16);
    EXPECT_EQ(f16_to_float(values<u16>(at("f16"))[3]), 3);
    EXPECT_EQ(at("bf16").dtype, DType::bf16);
    EXPECT_EQ(bf16_to_float(values<u16>(at("bf16"))[4]), 4);
    EXPECT_THAT(values<double>(at("f64")), ElementsAre(0, 1, 2, 3, 4));
    EXPECT_THAT(values<u8>(at("u8")), ElementsAre(0, 1, 2, 3, 4));
    EXPECT_THAT(values<u8>(at("bool")), ElementsAre(0, 1, 1, 1, 1));
    EXPECT_THAT(values<i32>(at("i32")), ElementsAre(0, 1, 2, 3, 4));
    EXPECT_THAT(values<i64>(at("i64")), ElementsAre(0, 1, 2, 3, 4));
    EXPECT_THAT(values<float>(at("scalar")), ElementsAre(7));
    EXPECT_TRUE(at("scalar").shape.empty());
    EXPECT_THAT(at("empty").shape, ElementsAre(0, 3));
    EXPECT_TRUE(at("empty").bytes.empty());
    EXPECT_EQ(at("tied").bytes.data(), at("shared").bytes.data()) << "tied weights are one";
    EXPECT_THAT(at("rows").shape, ElementsAre(2, 4));
    EXPECT_THAT(values<float>(at("rows")), ElementsAre(4, 5, 6, 7, 8, 9, 10, 11));
    EXPECT_THAT(at("transposed").shape, ElementsAre(4, 3));
    EXPECT_THAT(values<float>(at("transposed")), ElementsAre(0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11));
    EXPECT_THAT(values<float>(at("column")), ElementsAre(1, 5, 9));
    EXPECT_THAT(values<float>(at("parameter")), ElementsAre(0, 1, 2, 3));
  }
}

// Archives built by hand.
struct Member {
  std::string name, data;
  u16 method = 0;
};

template <class T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

std::string zip_of(const std::vector<Member>& members, u32 crc_error = 0) {
  std::string file, directory;
  for (const Member& m : members) {
    const u32 position = static_cast<u32>(file.size()), size = static_cast<u32>(m.data.size());
    const u32 crc =
        static_cast<u32>(crc32_z(0, reinterpret_cast<const Bytef*>(m.data.data()), m.data.size())) ^ crc_error;
    const auto common = [&](std::string& out) {
      put<u16>(out, 0), put(out, m.method), put<u32>(out, 0), put(out, crc), put(out, size), put(out, size);
      put(out, static_cast<u16>(m.name.size())), put<u16>(out, 0);
    };
    put<u32>(file, 0x04034b50), put<u16>(file, 0), common(file);
    file.append(m.name).append(m.data);
    put<u32>(directory, 0x02014b50), put<u32>(directory, 0), common(directory);
    directory.append(10, '\0');
    put(directory, position);
    directory.append(m.name);
  }
  const u32 begin = static_cast<u32>(file.size()), size = static_cast<u32>(directory.size());
  file.append(directory);
  put<u32>(file, 0x06054b50), put<u32>(file, 0);
  put(file, static_cast<u16>(members.size())), put(file, static_cast<u16>(members.size()));
  put(file, size), put(file, begin), put<u16>(file, 0);
  return file;
}

class HandmadeTorchFile : public testing::Test {
 protected:
  static std::string error_of(std::string_view bytes) { return error_of_bytes(bytes, TorchFile::open); }
  static std::string error_of_pickle(const std::string& pickle) {
    return error_of(zip_of({{"a/data.pkl", pickle}, {"a/data/0", std::string(16, '\0')}}));
  }
  // A dictionary with one tensor over a storage of four floats.
  static std::string error_of_tensor(const std::string& first, const std::string& shape, const std::string& strides) {
    return error_of_pickle("\x80\x02}X\x01" + std::string(3, '\0') + "w" + tensor(first, shape, strides) + "s.");
  }
  static std::string tensor(const std::string& first, const std::string& shape, const std::string& strides,
                            const std::string& elements = "K\x04") {
    return "ctorch._utils\n_rebuild_tensor_v2\n((X\x07" + std::string(3, '\0') + "storagectorch\nFloatStorage\nX\x01" +
           std::string(3, '\0') + "0X\x03" + std::string(3, '\0') + "cpu" + elements + "tQ" + first + shape + strides +
           "\x89}tR";
  }
};

const std::string big("\x8a\x08\0\0\0\0\0\0\0\x10", 10);  // LONG1 2^60
const std::string minus_one("J\xff\xff\xff\xff", 5);      // BININT -1
const std::string empty_dict = "\x80\x02}.", protocol = "\x80\x02";

TEST_F(HandmadeTorchFile, ShapesAndStridesMustStayInTheirStorage) {
  EXPECT_EQ(error_of_pickle(empty_dict), "no error");
  EXPECT_EQ(error_of_tensor({"K\0", 2}, "(K\x02K\x02t", "(K\x02K\x01t"), "no error");
  EXPECT_EQ(error_of_tensor("K\x04", {"K\0\x85", 3}, "K\x01\x85"), "no error") << "empty, at the end";
  const auto leaves = HasSubstr("leaves its storage of 4 elements");
  EXPECT_THAT(error_of_tensor("K\x01", "K\x04\x85", "K\x01\x85"), leaves);
  EXPECT_THAT(error_of_tensor("K\x05", {"K\0\x85", 3}, "K\x01\x85"), leaves);
  EXPECT_THAT(error_of_tensor(minus_one, "K\x01\x85", "K\x01\x85"), leaves);
  EXPECT_THAT(error_of_tensor({"K\0", 2}, minus_one + "\x85", "K\x01\x85"), leaves);
  EXPECT_THAT(error_of_tensor("K\x03", "K\x02\x85", minus_one + "\x85"), leaves);
  EXPECT_THAT(error_of_tensor({"K\0", 2}, big + big + "\x86", "K\x01K\x01\x86"), leaves);
  EXPECT_THAT(error_of_tensor({"K\0", 2}, "K\x02\x85", big + "\x85"), leaves);
  EXPECT_THAT(error_of_tensor({"K\0", 2}, big + "\x85", {"K\0\x85", 3}), leaves) << "expanded without end";
  EXPECT_THAT(error_of_tensor({"K\0", 2}, std::string("K\0", 2) + big + big + "\x87", "K\x01K\x01K\x01\x87"), leaves);
  EXPECT_THAT(error_of_tensor({"K\0", 2}, "K\x02\x85", "K\x01K\x01\x86"), HasSubstr("2 strides, expected as many"));
  EXPECT_THAT(error_of_pickle(protocol + "}X\x01" + std::string(3, '\0') + "w" +
                              tensor({"K\0", 2}, "K\x02\x85", "K\x01\x85", "K\x05") + "s."),
              HasSubstr("tensor 'w': its storage '0' has 16 bytes, expected 5 elements of f32"));
}

TEST_F(HandmadeTorchFile, PicklesThatCallThingsAreRefusedByName) {
  EXPECT_THAT(error_of_pickle("\x80\x02"
                              "cos\nsystem\nX\x02" +
                              std::string(3, '\0') + "ls\x85R."),
              AllOf(HasSubstr("data.pkl: byte 2: names os.system, expected one of collections.OrderedDict"),
                    HasSubstr("torch.FloatStorage")));
  EXPECT_THAT(error_of_pickle("\x80\x04\x8c\x08"
                              "builtins\x8c\x04"
                              "eval\x93."),
              HasSubstr("names builtins.eval"));
  EXPECT_THAT(error_of_pickle("\x80\x02(X\x02" + std::string(3, '\0') + "lsios\nsystem\n."),
              HasSubstr("the instruction INST"));
  EXPECT_THAT(error_of_pickle("\x80\x02"
                              "ccollections\nOrderedDict\n)\x81."),
              HasSubstr("the instruction NEWOBJ"));
  EXPECT_THAT(error_of_pickle("\x80\x02\x82\x01."), HasSubstr("the instruction EXT1"));
  EXPECT_THAT(error_of_pickle("\x80\x02Pabc\n."), HasSubstr("the instruction PERSID"));
  EXPECT_THAT(error_of_pickle("\x80\x02\xff."), HasSubstr("the instruction 0xff, which pickles do not have"));
  EXPECT_THAT(error_of_pickle("\x80\x02"
                              "ctorch\nFloatStorage\n)R."),
              HasSubstr("a storage is called"));
  EXPECT_THAT(error_of_pickle("\x80\x02"
                              "ccollections\nOrderedDict\n]\x85R."),
              HasSubstr("called with arguments"));
  EXPECT_THAT(error_of_pickle("\x80\x02]}b."), HasSubstr("BUILD of something else"));
  EXPECT_THAT(error_of_pickle("\x80\x09."), HasSubstr("protocol 9, expected 2 to 5"));
}

TEST_F(HandmadeTorchFile, PicklesThatAreDamagedAreRefused) {
  EXPECT_THAT(error_of_pickle(""), HasSubstr("an instruction at byte 0"));
  EXPECT_THAT(error_of_pickle("\x80\x02}"), HasSubstr("an instruction at byte 3 takes 1 bytes, but 0 are left"));
  EXPECT_THAT(error_of_pickle("\x80\x02."), HasSubstr("ends with 0 values"));
  EXPECT_THAT(error_of_pickle("\x80\x02}}."), HasSubstr("ends with 2 values"));
  EXPECT_THAT(error_of_pickle("\x80\x02(}."), HasSubstr("ends with"));
  EXPECT_THAT(error_of_pickle("\x80\x02}.x"), HasSubstr("1 bytes follow its end"));
  EXPECT_THAT(error_of_pickle("\x80\x02]."), HasSubstr("holds a list, expected a dictionary of tensors"));
  EXPECT_THAT(error_of_pickle("\x80\x02}(K\x01u."), HasSubstr("a key without a value"));
  EXPECT_THAT(error_of_pickle("\x80\x02}K\x01K\x01s."), HasSubstr("an integer as a key"));
  EXPECT_THAT(error_of_pickle("\x80\x02s."), HasSubstr("takes 2 values from a stack of 0"));
  EXPECT_THAT(error_of_pickle("\x80\x02}(s."), HasSubstr("takes 2 values from a stack of 0"));
  EXPECT_THAT(error_of_pickle("\x80\x02t."), HasSubstr("no mark"));
  EXPECT_THAT(error_of_pickle("\x80\x02h\x07."), HasSubstr("memo index 7, but 0 are set"));
  EXPECT_THAT(error_of_pickle("\x80\x02}r\xff\xff\xff\xff."), HasSubstr("memo index 4294967295, expected at most 0"));
  EXPECT_THAT(error_of_pickle("\x80\x02X\xff\xff\xff\xff."), HasSubstr("takes 4294967295 bytes"));
  EXPECT_THAT(error_of_pickle("\x80\x02"
                              "cos"),
              HasSubstr("has no end"));
}

// A dictionary that holds itself, and chains in which each holds the next twice: 2^levels names if they were unfolded.
TEST_F(HandmadeTorchFile, SharedDictionariesAreNotUnfolded) {
  const auto key = [](char c) { return "X\x01" + std::string(3, '\0') + c; };
  const auto get = [](int memo) { return std::string("h") + static_cast<char>(memo); };
  const auto refused = HasSubstr("stands in two places, holds itself or lies more than 8 levels deep");
  EXPECT_THAT(error_of_pickle(fmt::format("\x80\x04}}\x94{}{}s.", key('a'), get(0))), refused);
  for (const int levels : {1, 5, 60}) {
    std::string chain = "}\x94";
    for (int i = 0; i < levels; ++i) chain = fmt::format("}}{}{}s{}{}s\x94", key('a'), chain, key('b'), get(i));
    EXPECT_THAT(error_of_pickle(fmt::format("\x80\x04{}.", chain)), refused);
  }
}

TEST_F(HandmadeTorchFile, ArchivesThatReadersDisagreeOnAreRefused) {
  const Member pickle{"a/data.pkl", empty_dict};
  EXPECT_EQ(error_of(zip_of({pickle})), "no error");
  EXPECT_THAT(error_of(zip_of({pickle, pickle})), HasSubstr("member 'a/data.pkl': stands twice"));
  EXPECT_THAT(error_of(zip_of({pickle, {"b/data.pkl", empty_dict}})), HasSubstr("two pickles"));
  EXPECT_THAT(error_of(zip_of({pickle, {"a/constants.pkl", ""}})), HasSubstr("TorchScript"));
  EXPECT_THAT(error_of(zip_of({pickle, {"a/byteorder", "big"}})), HasSubstr("byte order is big"));
  EXPECT_THAT(error_of(zip_of({{"a/data/0", ""}})), HasSubstr("no member data.pkl"));
  EXPECT_THAT(error_of(zip_of({{"a/data.pkl", empty_dict, 8}})), HasSubstr("compressed (method 8)"));
  EXPECT_THAT(error_of(zip_of({pickle}, 1)), HasSubstr("checksum"));
  EXPECT_THAT(error_of(zip_of({pickle}) + "x"), HasSubstr("bytes follow the end record"));
  EXPECT_THAT(error_of(empty_dict), HasSubstr("as torch wrote before 1.6"));
  EXPECT_THAT(error_of("{}"), HasSubstr("expected the ZIP archive"));
  EXPECT_THAT(error_of(""), HasSubstr("expected the ZIP archive"));

  const std::string whole = zip_of({pickle, {"a/data/0", "1234"}});
  const size_t directory = whole.find("PK\x01\x02"), local = 0;
  const auto changed = [&](size_t at, char to) {
    std::string bytes = whole;
    bytes[at] = to;
    return error_of(bytes);
  };
  EXPECT_THAT(changed(local + 30, 'b'), HasSubstr("differ in name"));
  EXPECT_THAT(changed(local + 6, 1), HasSubstr("encrypted"));
  EXPECT_THAT(changed(directory + 8, 1), HasSubstr("encrypted"));
  EXPECT_THAT(changed(local + 8, 8), HasSubstr("compressed"));
  EXPECT_THAT(changed(directory + 10, 8), HasSubstr("compressed"));
  EXPECT_THAT(changed(local + 14, 'x'), HasSubstr("size or checksum"));
  EXPECT_THAT(changed(directory + 24, 99), HasSubstr("stored and 99 unpacked"));
  EXPECT_THAT(changed(directory + 42, 1), HasSubstr("the member's header at byte 1 is damaged"));
  EXPECT_THAT(changed(whole.size() - 14, 9), HasSubstr("in several parts"));
}

// Archives beyond 4 GB say sizes and places in 64 bits; the fields of 32 bits are then all ones.
TEST_F(HandmadeTorchFile, ReadsZip64) {
  const std::string name = "a/data.pkl", bytes = empty_dict;
  const auto archive = [&](u64 size, u64 position, u64 end_position_error) {
    const u32 crc = static_cast<u32>(crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
    const auto common = [&](std::string& out, u16 extra) {
      put<u64>(out, 0), put(out, crc), put<u64>(out, ~u64{0});
      put(out, static_cast<u16>(name.size())), put(out, extra);
    };
    const auto sizes = [&](std::string& out, u16 more) {
      put<u16>(out, 1), put(out, static_cast<u16>(16 + more)), put(out, size), put(out, size);
    };
    std::string file;
    put<u32>(file, 0x04034b50), put<u16>(file, 45);
    common(file, 20);
    file.append(name), sizes(file, 0), file.append(bytes);
    const u64 directory = file.size();
    put<u32>(file, 0x02014b50), put<u32>(file, 45);
    common(file, 28);
    file.append(10, '\0'), put(file, ~u32{0}), file.append(name), sizes(file, 8), put(file, position);
    const u64 end = file.size();
    put<u32>(file, 0x06064b50), put<u64>(file, 44), put<u32>(file, 0), put<u64>(file, 0);
    put<u64>(file, 1), put<u64>(file, 1), put(file, end - directory), put(file, directory);
    put<u32>(file, 0x07064b50), put<u32>(file, 0), put(file, end + end_position_error), put<u32>(file, 1);
    put<u32>(file, 0x06054b50), put<u32>(file, 0), put(file, ~u64{0}), put(file, ~u32{0}), put<u16>(file, 0);
    return file;
  };
  EXPECT_EQ(error_of(archive(bytes.size(), 0, 0)), "no error");
  EXPECT_THAT(error_of(archive(~u64{0} - 20, 0, 0)), HasSubstr("its data at byte"));
  EXPECT_THAT(error_of(archive(bytes.size(), ~u64{0} - 1, 0)), HasSubstr("its header is said to begin at byte"));
  EXPECT_THAT(error_of(archive(bytes.size(), 0, u64{1} << 60)), HasSubstr("zip64 end record is said to begin"));
  EXPECT_THAT(error_of(archive(bytes.size(), 0, 1)), HasSubstr("zip64 end record"));
}

TEST_F(HandmadeTorchFile, EveryCutAndEveryChangedByteEndsWell) {
  const std::string whole = read_text(golden("linear.pt"));
  for (size_t length = 0; length < whole.size(); ++length)
    EXPECT_NE(error_of(whole.substr(0, length)), "no error") << length;
  for (size_t at = 0; at < whole.size(); ++at)
    for (const char flip : {'\x01', '\x80', '\xff'}) {
      std::string bytes = whole;
      bytes[at] = static_cast<char>(bytes[at] ^ flip);
      error_of(bytes);  // either is right; a crash is not
    }
}

TEST(TorchFile, RefusesWhatIsNoDictionaryOfTensors) {
  const auto error_of = [](const char* name) { return sparsam::error_of([&] { TorchFile::open(golden(name)); }); };
  EXPECT_THAT(error_of("training.pt"), HasSubstr("training.pt: 'step' is an integer, expected tensors only"));
  EXPECT_THAT(error_of("legacy.pt"), HasSubstr("as torch wrote before 1.6"));
}

}  // namespace
}  // namespace sparsam
