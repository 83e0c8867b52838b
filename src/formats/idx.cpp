#include "formats/idx.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <limits>

#include "base/error.h"

namespace sparsam {

namespace {

constexpr size_t header_bytes = 4, axis_bytes = 4, most_axes = 8;
constexpr u64 most_ratio = 1032;  // of deflate: 258 bytes from two bits
constexpr size_t step_bytes = size_t{1} << 20;

// The bytes of the file in order, unpacked where they are packed.
class Source {
 public:
  explicit Source(const fs::path& path) : file_(path) {
    const auto bytes = file_.bytes();
    packed_ = bytes.size() >= 2 && bytes[0] == std::byte{0x1f} && bytes[1] == std::byte{0x8b};
    rest_ = bytes;
    constexpr int gzip_only = 16;
    if (packed_ && inflateInit2(&stream_, gzip_only + MAX_WBITS) != Z_OK) fail("{}: zlib does not start", place());
  }
  ~Source() {
    if (packed_) inflateEnd(&stream_);
  }
  Source(const Source&) = delete;

  // The next bytes, fewer than asked for only at the end.
  size_t read(std::span<std::byte> out) { return packed_ ? unpack(out) : copy(out); }
  u64 most_bytes() const { return packed_ ? file_.bytes().size() * most_ratio : file_.bytes().size(); }
  std::string place() const { return file_.path().string(); }

 private:
  size_t copy(std::span<std::byte> out) {
    const size_t count = std::min(out.size(), rest_.size());
    std::copy_n(rest_.begin(), count, out.begin());
    rest_ = rest_.subspan(count);
    return count;
  }
  size_t unpack(std::span<std::byte> out) {
    size_t done = 0;
    while (done < out.size() && !ended_) {
      constexpr size_t most = std::numeric_limits<uInt>::max();
      const uInt in = static_cast<uInt>(std::min(rest_.size(), most));
      const uInt space = static_cast<uInt>(std::min(out.size() - done, most));
      // zlib reads through a pointer to non-constant bytes and writes nothing there.
      stream_.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(rest_.data()));
      stream_.next_out = reinterpret_cast<Bytef*>(out.data() + done);
      stream_.avail_in = in, stream_.avail_out = space;
      const int result = inflate(&stream_, Z_NO_FLUSH);
      rest_ = rest_.subspan(in - stream_.avail_in);
      done += space - stream_.avail_out;
      ended_ = result == Z_STREAM_END;
      if (result != Z_OK && !ended_)
        fail("{}: cannot be unpacked: {}", place(),
             result == Z_BUF_ERROR ? "the gzip data are cut"
             : stream_.msg         ? stream_.msg
                                   : "the gzip data are damaged");
    }
    if (ended_ && !rest_.empty()) fail("{}: {} bytes follow the gzip data", place(), rest_.size());
    return done;
  }

  MappedFile file_;
  std::span<const std::byte> rest_;
  bool packed_ = false, ended_ = false;
  z_stream stream_{};
};

DType type_of(u8 code, const std::string& place) {
  switch (code) {
    case 8:
      return DType::u8;
    case 12:
      return DType::i32;
    case 13:
      return DType::f32;
    case 14:
      return DType::f64;
    default:
      fail("{}: number type {}, expected 8 (u8), 12 (i32), 13 (f32) or 14 (f64)", place, code);
  }
}

}  // namespace

IdxArray read_idx(const fs::path& path) {
  Source source(path);
  const std::string place = source.place();
  std::array<std::byte, header_bytes> header{};
  if (source.read(header) != header.size() || header[0] != std::byte{0} || header[1] != std::byte{0})
    fail("{}: does not begin with two zeros, a number type and a count of axes; is this an IDX file?", place);
  IdxArray array{.dtype = type_of(static_cast<u8>(header[2]), place), .shape = {}, .bytes = {}};
  const auto axes = static_cast<size_t>(header[3]);
  if (axes < 1 || axes > most_axes) fail("{}: {} axes, expected 1 to {}", place, axes, most_axes);
  const auto size = static_cast<u64>(size_of(array.dtype));
  u64 total = size;
  for (size_t i = 0; i < axes; ++i) {
    std::array<std::byte, axis_bytes> length{};
    if (source.read(length) != length.size()) fail("{}: cut within the lengths of its {} axes", place, axes);
    std::reverse(length.begin(), length.end());
    const auto n = std::bit_cast<u32>(length);
    if (n == 0 || __builtin_mul_overflow(total, u64{n}, &total) || total > source.most_bytes())
      fail("{}: axis {} has length {}: that is more than the file can hold, or nothing", place, i, n);
    array.shape.push_back(n);
  }
  while (array.bytes.size() < total) {
    const size_t begin = array.bytes.size();
    array.bytes.resize(begin + std::min(step_bytes, static_cast<size_t>(total) - begin));
    if (const size_t count = source.read(std::span(array.bytes).subspan(begin)); begin + count < array.bytes.size())
      fail("{}: shape {} of {} takes {} bytes, but there are {}", place, array.entry().shape_text(),
           name_of(array.dtype), total, begin + count);
  }
  if (std::byte more{}; source.read({&more, 1}) != 0)
    fail("{}: bytes follow the {} that shape {} takes", place, total, array.entry().shape_text());
  for (auto number = array.bytes.begin(); size > 1 && number != array.bytes.end();
       number += static_cast<std::ptrdiff_t>(size))
    std::reverse(number, number + static_cast<std::ptrdiff_t>(size));
  return array;
}

}  // namespace sparsam
