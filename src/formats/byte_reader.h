// Little endian numbers and runs of bytes out of untrusted bytes.
#pragma once

#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/error.h"
#include "base/types.h"

namespace sparsam {

// Every read that would leave the bytes is an Error naming the place, what was read, where, and how much is left.
class ByteReader {
 public:
  ByteReader(std::span<const std::byte> bytes, std::string place) : bytes_(bytes), place_(std::move(place)) {}

  template <class T>
  requires std::is_arithmetic_v<T> T number(std::string_view what) {
    static_assert(std::endian::native == std::endian::little);
    T value;
    std::memcpy(&value, take(sizeof value, what).data(), sizeof value);
    return value;
  }
  std::span<const std::byte> take(u64 count, std::string_view what) {
    if (count > remaining())
      fail("{}: {} at byte {} takes {} bytes, but {} are left", place_, what, position_, count, remaining());
    const auto taken = bytes_.subspan(position_, static_cast<size_t>(count));
    position_ += taken.size();
    return taken;
  }
  std::string_view text(u64 count, std::string_view what) {
    const auto taken = take(count, what);
    return {reinterpret_cast<const char*>(taken.data()), taken.size()};
  }
  // The bytes up to `end`, which is passed over.
  std::string_view text_until(char end, std::string_view what) {
    const std::string_view rest(reinterpret_cast<const char*>(bytes_.data()) + position_, remaining());
    const size_t length = rest.find(end);
    if (length == rest.npos) fail("{}: {} at byte {} has no end", place_, what, position_);
    position_ += length + 1;
    return rest.substr(0, length);
  }
  void seek(u64 position, std::string_view what) {
    if (position > bytes_.size())
      fail("{}: {} is said to begin at byte {}, but there are {}", place_, what, position, bytes_.size());
    position_ = static_cast<size_t>(position);
  }

  size_t position() const { return position_; }
  size_t remaining() const { return bytes_.size() - position_; }
  const std::string& place() const { return place_; }

 private:
  std::span<const std::byte> bytes_;
  std::string place_;
  size_t position_ = 0;
};

}  // namespace sparsam
