#include "formats/idx.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <cstring>

#include "formats/test_support.h"

namespace sparsam {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class Idx : public testing::Test {
 protected:
  static IdxArray read(std::string_view bytes) { return read_idx(MemoryFile(bytes).path()); }
  static std::string error_of(std::string_view bytes) { return error_of_bytes(bytes, read_idx); }
  static std::string gzip(std::string bytes) {
    z_stream stream{};
    EXPECT_EQ(deflateInit2(&stream, 9, Z_DEFLATED, 16 + MAX_WBITS, 9, Z_DEFAULT_STRATEGY), Z_OK);
    std::string out(deflateBound(&stream, bytes.size()), '\0');
    stream.next_in = reinterpret_cast<Bytef*>(bytes.data()), stream.avail_in = static_cast<uInt>(bytes.size());
    stream.next_out = reinterpret_cast<Bytef*>(out.data()), stream.avail_out = static_cast<uInt>(out.size());
    EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
    out.resize(stream.total_out);
    deflateEnd(&stream);
    return out;
  }
};

const std::string small(
    "\0\0\x08\x02\0\0\0\x02\0\0\0\x03"
    "abcdef",
    18);
const std::string reals("\0\0\x0d\x01\0\0\0\x02\x3f\x80\0\0\xc0\0\0\0", 16);  // 1 and -2

TEST_F(Idx, ReadsPlainAndPackedArrays) {
  for (const std::string& bytes : {small, gzip(small)}) {
    const IdxArray array = read(bytes);
    EXPECT_EQ(array.dtype, DType::u8);
    EXPECT_THAT(array.shape, ElementsAre(2, 3));
    EXPECT_EQ(std::memcmp(array.bytes.data(), "abcdef", 6), 0);
  }
  const IdxArray array = read(reals);
  EXPECT_EQ(array.dtype, DType::f32);
  float numbers[2];
  ASSERT_EQ(array.bytes.size(), sizeof numbers);
  std::memcpy(numbers, array.bytes.data(), sizeof numbers);
  EXPECT_THAT(numbers, ElementsAre(1, -2));
}

TEST_F(Idx, NamesWhatIsWrong) {
  const auto at = [](size_t position, char to) {
    std::string bytes = small;
    bytes[position] = to;
    return bytes;
  };
  EXPECT_THAT(error_of(""), HasSubstr("is this an IDX file?"));
  EXPECT_THAT(error_of(at(0, 1)), HasSubstr("is this an IDX file?"));
  EXPECT_THAT(error_of(at(2, 9)), HasSubstr("number type 9"));
  EXPECT_THAT(error_of(at(3, 0)), HasSubstr("0 axes, expected 1 to 8"));
  EXPECT_THAT(error_of(at(3, '\xff')), HasSubstr("255 axes"));
  EXPECT_THAT(error_of(small.substr(0, 10)), HasSubstr("cut within the lengths of its 2 axes"));
  EXPECT_THAT(error_of(at(4, '\xff')), HasSubstr("axis 0 has length 4278190082: that is more than the file can hold"));
  EXPECT_THAT(error_of(at(7, 0)), HasSubstr("axis 0 has length 0"));
  EXPECT_THAT(error_of(small + "g"), HasSubstr("bytes follow the 6 that shape (2, 3) takes"));
  EXPECT_THAT(error_of(gzip(small + "g")), HasSubstr("bytes follow the 6"));
  EXPECT_THAT(error_of(gzip(small) + "g"), HasSubstr("1 bytes follow the gzip data"));
  EXPECT_THAT(error_of(small.substr(0, 17)), HasSubstr("takes 6 bytes, but there are 5"));
  EXPECT_THAT(error_of(gzip(small).substr(0, 20)), HasSubstr("the gzip data are cut"));
}

// 64 MB of zeros packed into 64 kB: what the header does not announce is not unpacked.
TEST_F(Idx, UnpacksNoMoreThanTheShapeSays) {
  EXPECT_THAT(error_of(gzip(small + std::string(1 << 26, '\0'))), HasSubstr("bytes follow the 6"));
  const std::string announced("\0\0\x08\x01\x10\0\0\0", 8);  // 2^28, but little follows
  EXPECT_THAT(error_of(gzip(announced + "x")), HasSubstr("more than the file can hold"));
}

TEST_F(Idx, EveryCutEndsWell) {
  const std::string packed = gzip(small);
  for (size_t length = 0; length < packed.size(); ++length)
    EXPECT_NE(error_of(packed.substr(0, length)), "no error") << length;
  for (size_t length = 0; length < small.size(); ++length)
    EXPECT_NE(error_of(small.substr(0, length)), "no error") << length;
}

}  // namespace
}  // namespace sparsam
