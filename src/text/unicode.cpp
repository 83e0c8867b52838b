#include "text/unicode.h"

#include <utf8proc.h>

#include <cstdlib>
#include <memory>
#include <new>

#include "text/byte_level.h"

namespace sparsam {
namespace {

utf8proc_option_t options_of(NormalForm form) {
  switch (form) {
    case NormalForm::nfc:
      return static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    case NormalForm::nfd:
      return static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE);
    case NormalForm::nfkc:
      return static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT);
    case NormalForm::nfkd:
      break;
  }
  return static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT);
}

// A part of well-formed UTF-8.
void append_normal(std::string& out, std::string_view part, NormalForm form) {
  utf8proc_uint8_t* result = nullptr;
  const utf8proc_ssize_t size = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(part.data()),
                                             static_cast<utf8proc_ssize_t>(part.size()), &result, options_of(form));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(result, &std::free);
  if (size < 0) throw std::bad_alloc();  // the only error that well-formed text can meet
  out.append(reinterpret_cast<const char*>(result), static_cast<size_t>(size));
}

bool ascii(std::string_view text, size_t i) { return static_cast<u8>(text[i]) < 0x80; }

}  // namespace

std::string to_normal_form(std::string_view text, NormalForm form) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    // ASCII is in every form, and nothing composes with it but what follows it: its last character goes with the rest.
    size_t end = i;
    while (end < text.size() && ascii(text, end)) ++end;
    if (end > i && end < text.size()) --end;
    out.append(text, i, end - i);
    i = end;
    while (end < text.size() && !(ascii(text, end) && (end + 1 == text.size() || ascii(text, end + 1)))) {
      const int length = utf8_at(text, end).length;
      if (length == 0) break;
      end += static_cast<size_t>(length);
    }
    if (end > i) append_normal(out, text.substr(i, end - i), form);
    if (i = end; i < text.size() && utf8_at(text, i).length == 0) out.push_back(text[i++]);
  }
  return out;
}

void append_lowercase(std::string& out, u32 c) {
  if (c == 0x130) {  // the one character whose lower case is two
    out.append("i\u0307");
    return;
  }
  append_utf8(out, static_cast<u32>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
}

bool is_nonspacing_mark(u32 c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)) == UTF8PROC_CATEGORY_MN; }

bool is_punctuation(u32 c) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

bool is_control(u32 c) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category >= UTF8PROC_CATEGORY_CC;
}

size_t grapheme_end(std::string_view text, size_t i) {
  Utf8Char before = utf8_at(text, i);
  if (before.length == 0) return i + (i < text.size());
  i += static_cast<size_t>(before.length);
  for (utf8proc_int32_t state = 0;;) {
    const Utf8Char next = utf8_at(text, i);
    if (next.length == 0 || utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(before.code_point),
                                                             static_cast<utf8proc_int32_t>(next.code_point), &state))
      return i;
    before = next;
    i += static_cast<size_t>(next.length);
  }
}

}  // namespace sparsam
