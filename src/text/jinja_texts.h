// What filters and methods do with texts, as Python's str does.
#pragma once

#include <span>
#include <string_view>

#include "text/jinja_value.h"

namespace sparsam::jinja {

// Arguments: neither undefined nor none; a text, or an Error; an integer, `otherwise` when not given, or an Error.
bool given(const Value& value);
std::string_view text_argument(Runtime& runtime, const Value& value);
i64 integer_argument(Runtime& runtime, const Value& value, i64 otherwise);

// Letter cases of ASCII; other letters would need Unicode's tables, and are refused rather than left as they are.
void require_ascii(Runtime& runtime, std::string_view text);
Value upper_text(Runtime& runtime, std::string_view text);
Value lower_text(Runtime& runtime, std::string_view text);
Value capitalized_text(Runtime& runtime, std::string_view text);
// Words begin behind spaces, hyphens and opening brackets for the filter, and behind all but letters for the method.
Value titled(Runtime& runtime, std::string_view text, bool filter);

// strip(): whitespace, or the characters that are given (ASCII ones), from one end or both.
enum StripEnds : u8 { strip_begin = 1, strip_end = 2, strip_both = 3 };
Value stripped(Runtime& runtime, std::string_view text, const Value& characters, StripEnds sides);

// Arguments as in the template: (old, new, count), (separator, limit), (width, first line too, blank lines too).
Value replaced(Runtime& runtime, std::string_view text, std::span<const Value> arguments);
Value split(Runtime& runtime, std::string_view text, std::span<const Value> arguments, bool from_right);
Value split_lines(Runtime& runtime, std::string_view text);
Value indented(Runtime& runtime, std::string_view text, std::span<const Value> arguments);

bool begins_or_ends(Runtime& runtime, std::string_view text, const Value& wanted,
                    bool begins);                  // one, or any of a list
Value found_at(std::string_view text, size_t at);  // a place in bytes as one in characters; npos: -1

}  // namespace sparsam::jinja
