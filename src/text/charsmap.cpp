#include "text/charsmap.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "text/byte_level.h"
#include "text/unicode.h"

namespace sparsam {
namespace {

// A unit of the array: bits 0-7 and 31 label, bit 8 has a value, bits 10-30 offset, in steps of 256 where bit 9 is set.
u32 offset_of(u32 unit) { return (unit >> 10) << ((unit & 1u << 9) >> 6); }
u32 label_of(u32 unit) { return unit & (1u << 31 | 0xFF); }
bool has_value(u32 unit) { return (unit >> 8 & 1) != 0; }
bool is_value(u32 unit) { return unit >> 31 != 0; }

}  // namespace

Charsmap::Charsmap(std::string_view bytes, std::string_view where) : bytes_(bytes) {
  u32 array_bytes = 0;
  if (bytes.size() >= sizeof array_bytes) std::memcpy(&array_bytes, bytes.data(), sizeof array_bytes);
  if (array_bytes == 0 || array_bytes % 1024 != 0 || array_bytes >= bytes.size() - sizeof array_bytes)
    fail("{}: a table of normalisations of {} bytes says that {} of them are its trie, expected blocks of 1024 bytes",
         where, bytes.size(), array_bytes);
  units_.resize(array_bytes / sizeof(u32));
  std::memcpy(units_.data(), bytes.data() + sizeof array_bytes, array_bytes);
  replacements_ = sizeof array_bytes + array_bytes;
  if (bytes.back() != '\0') fail("{}: the table of normalisations ends inside a replacement", where);
  // Whole blocks of 256 units: a node inside the array has all its children inside.
  for (size_t i = 0; i < units_.size(); ++i) {
    if (i > 0 && is_value(units_[i])) continue;
    const size_t children = i ^ offset_of(units_[i]);
    if (children >= units_.size())
      fail("{}: node {} of the table of normalisations points to {}, but there are {}", where, i, children,
           units_.size());
    if (!has_value(units_[i])) continue;
    const u32 value = units_[children] & ~(1u << 31);
    if (value >= bytes.size() - replacements_)
      fail("{}: node {} of the table of normalisations has the replacement at byte {}, but there are {}", where, i,
           value, bytes.size() - replacements_);
    constexpr size_t longest = 256;  // bytes; NFKC's has 33
    if (bytes.find('\0', replacements_ + value) - (replacements_ + value) > longest)
      fail("{}: node {} of the table of normalisations has a replacement of more than {} bytes", where, i, longest);
  }
}

std::optional<std::string_view> Charsmap::find(std::string_view text) const {
  u32 place = offset_of(units_[0]);
  for (char c : text) {
    const u32 label = static_cast<u8>(c);
    place ^= label;
    if (label == 0 || label_of(units_[place]) != label) return std::nullopt;
    const bool found = has_value(units_[place]);
    place ^= offset_of(units_[place]);
    if (found) return std::string_view(bytes_.c_str() + replacements_ + (units_[place] & ~(1u << 31)));
  }
  return std::nullopt;
}

void Charsmap::append(std::string& out, std::string_view text) const {
  constexpr size_t longest_cluster = 5;
  const auto ascii = [&](size_t i) { return i >= text.size() || static_cast<u8>(text[i]) < 0x80; };
  for (size_t i = 0; i < text.size();) {
    if (ascii(i) && ascii(i + 1) && text[i] != '\r') {  // the end of the only cluster within ASCII is a line's, \r\n
      const auto replacement = find(text.substr(i, 1));
      out.append(replacement ? *replacement : text.substr(i, 1));
      ++i;
      continue;
    }
    const std::string_view cluster = text.substr(i, grapheme_end(text, i) - i);
    i += cluster.size();
    if (cluster.size() <= longest_cluster) {
      if (const auto replacement = find(cluster)) {
        out.append(*replacement);
        continue;
      }
    }
    for (size_t k = 0; k < cluster.size();) {
      const std::string_view c = cluster.substr(k, static_cast<size_t>(std::max(1, utf8_at(cluster, k).length)));
      const auto replacement = find(c);
      out.append(replacement ? *replacement : c);
      k += c.size();
    }
  }
}

}  // namespace sparsam
