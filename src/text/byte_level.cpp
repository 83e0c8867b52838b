#include "text/byte_level.h"

#include <algorithm>

namespace sparsam {
namespace {

constexpr bool stands_for_itself(int byte) {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

constexpr std::array<u16, 256> code_points = [] {
  std::array<u16, 256> points{};
  u16 next = 256;
  for (int byte = 0; byte < 256; ++byte) points[byte] = stands_for_itself(byte) ? static_cast<u16>(byte) : next++;
  return points;
}();

constexpr std::array<short, 324> bytes_by_code_point = [] {
  std::array<short, 324> bytes{};
  bytes.fill(-1);
  for (int byte = 0; byte < 256; ++byte) bytes[code_points[byte]] = static_cast<short>(byte);
  return bytes;
}();

}  // namespace

void append_utf8(std::string& out, u32 c) {
  const auto put = [&out](u32 byte) { out.push_back(static_cast<char>(byte)); };
  if (c < 0x80) return put(c);
  if (c < 0x800) return put(0xC0 | c >> 6), put(0x80 | (c & 63));
  if (c < 0x10000) return put(0xE0 | c >> 12), put(0x80 | (c >> 6 & 63)), put(0x80 | (c & 63));
  put(0xF0 | c >> 18), put(0x80 | (c >> 12 & 63)), put(0x80 | (c >> 6 & 63)), put(0x80 | (c & 63));
}

Utf8Char utf8_at(std::string_view text, size_t i) {
  const auto byte = [&](size_t k) { return k < text.size() ? static_cast<u8>(text[k]) : u8{0}; };
  if (i >= text.size()) return {};
  const u32 lead = byte(i);
  if (lead < 0x80) return {lead, 1};
  const int length = lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
  if (length == 0) return {};
  u32 c = lead & (0x7Fu >> length);
  for (int k = 1; k < length; ++k) {
    const u32 next = byte(i + static_cast<size_t>(k));
    if ((next & 0xC0) != 0x80) return {};
    c = c << 6 | (next & 63);
  }
  const bool bad =
      (length == 3 && (c < 0x800 || (c >= 0xD800 && c < 0xE000))) || (length == 4 && (c < 0x10000 || c > 0x10FFFF));
  return bad ? Utf8Char{} : Utf8Char{c, length};
}

std::string to_byte_alphabet(std::string_view bytes) {
  std::string letters;
  letters.reserve(bytes.size() * 2);
  for (char c : bytes) append_utf8(letters, code_points[static_cast<u8>(c)]);
  return letters;
}

std::optional<std::string> from_byte_alphabet(std::string_view letters) {
  std::string bytes;
  for (size_t i = 0; i < letters.size();) {
    const Utf8Char c = utf8_at(letters, i);
    if (c.length == 0 || c.code_point >= bytes_by_code_point.size()) return std::nullopt;
    const short byte = bytes_by_code_point[c.code_point];
    if (byte < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(byte));
    i += static_cast<size_t>(c.length);
  }
  return bytes;
}

std::array<u8, 256> bytes_in_alphabet_order() {
  std::array<u8, 256> bytes;
  for (int i = 0; i < 256; ++i) bytes[i] = static_cast<u8>(i);
  std::sort(bytes.begin(), bytes.end(), [](u8 a, u8 b) { return code_points[a] < code_points[b]; });
  return bytes;
}

}  // namespace sparsam
