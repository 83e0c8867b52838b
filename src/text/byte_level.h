// The byte-level alphabet of GPT-2 (Radford et al. 2019): every byte is written as one printable character, so that a
// vocabulary of byte strings can be kept in a JSON file. Bytes 33-126, 161-172 and 174-255 stand for themselves
// (as Latin-1), the 68 others take U+0100, U+0101, ... in byte order: a space is "Ġ" (U+0120).
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "base/types.h"

namespace sparsam {

std::string to_byte_alphabet(std::string_view bytes);
// nullopt if some character is outside the alphabet (or is not UTF-8).
std::optional<std::string> from_byte_alphabet(std::string_view letters);
// The 256 bytes in the order of their characters' code points: the order in which Hugging Face numbers them.
std::array<u8, 256> bytes_in_alphabet_order();

// The character at text[i]: its code point and length in bytes. Ill-formed UTF-8 (overlong, surrogate, truncated,
// beyond U+10FFFF) gives length 0; the end of the text too.
struct Utf8Char {
  u32 code_point = 0;
  int length = 0;
};
Utf8Char utf8_at(std::string_view text, size_t i);
void append_utf8(std::string& out, u32 code_point);

}  // namespace sparsam
