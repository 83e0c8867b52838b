#include "text/splitter.h"

namespace sparsam {

detail::Char detail::wide_char_at(std::string_view text, size_t i) {
  const Utf8Char c = utf8_at(text, i);
  if (c.length == 0) return {Kind::broken, 1};
  return {static_cast<Kind>(char_class(c.code_point)), c.length};
}

size_t gpt2_safe_cut(std::string_view text, size_t from) {
  using detail::Kind;
  const auto ascii = [&](size_t i) {
    const u8 c = static_cast<u8>(text[i]);
    return c < 128 ? detail::ascii_kinds[c] : Kind::broken;
  };
  for (size_t i = from < 1 ? 1 : from; i < text.size(); ++i)
    if (ascii(i) == Kind::space && ascii(i - 1) <= Kind::number) return i;
  return text.size();
}

}  // namespace sparsam
