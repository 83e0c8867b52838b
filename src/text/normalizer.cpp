#include "text/normalizer.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "text/byte_level.h"
#include "text/splitter.h"

namespace sparsam {
namespace {

// Calls of(code point, its bytes) on the characters; ill-formed bytes are kept.
template <class Of>
std::string each_character(std::string_view text, Of&& of) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const Utf8Char c = utf8_at(text, i);
    const size_t length = static_cast<size_t>(std::max(1, c.length));
    c.length == 0 ? void(out.push_back(text[i])) : of(out, c.code_point, text.substr(i, length));
    i += length;
  }
  return out;
}

bool is_space(u32 c) { return char_class(c) == CharClass::space; }

std::string run(NormalForm form, std::string_view text) { return to_normal_form(text, form); }

std::string run(Normalizer::Lowercase, std::string_view text) {
  return each_character(text, [](std::string& out, u32 c, std::string_view) { append_lowercase(out, c); });
}

std::string run(Normalizer::StripAccents, std::string_view text) {
  return each_character(text, [](std::string& out, u32 c, std::string_view bytes) {
    if (!is_nonspacing_mark(c)) out.append(bytes);
  });
}

std::string run(Normalizer::Nmt, std::string_view text) {
  const auto dropped = [](u32 c) {
    return (c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F;
  };
  constexpr std::array<u32, 12> spaces = {9,      10,     12,     13,     0x1680, 0x2028,
                                          0x2029, 0x2581, 0xFEFF, 0xFFFD, 0x200B, 0x200C};
  return each_character(text, [&](std::string& out, u32 c, std::string_view bytes) {
    if (dropped(c)) return;
    const bool space = (c >= 0x200D && c <= 0x200F) || std::find(spaces.begin(), spaces.end(), c) != spaces.end();
    out.append(space ? " " : bytes);
  });
}

std::string run(Normalizer::ByteAlphabet, std::string_view text) { return to_byte_alphabet(text); }

std::string run(const Normalizer::Prepend& prepend, std::string_view text) {
  return text.empty() ? std::string() : std::string(prepend.text).append(text);
}

std::string run(const Normalizer::Strip& strip, std::string_view text) {
  using detail::Kind;
  if (strip.left) text.remove_prefix(detail::run_end(text, 0, Kind::space));
  if (strip.right) text = text.substr(0, detail::run_begin(text, 0, text.size(), Kind::space));
  return std::string(text);
}

std::string run(const Normalizer::Replace& replace, std::string_view text) {
  std::string out;
  size_t done = 0;
  const auto put = [&](size_t begin, size_t end) {
    out.append(text, done, begin - done).append(replace.by);
    done = end;
  };
  if (replace.regex) {
    const auto scratch = replace.regex->scratch();
    size_t from = 0;
    for (Regex::Match m{}; from <= text.size() && replace.regex->find(text, from, *scratch, m);) {
      put(m.begin, m.end);
      from = m.end > m.begin ? m.end : m.end + static_cast<size_t>(std::max(1, utf8_at(text, m.end).length));
    }
  } else {
    for (size_t at = 0; (at = text.find(replace.text, done)) != std::string_view::npos;)
      put(at, at + replace.text.size());
  }
  return out.append(text.substr(done));
}

bool is_chinese(u32 c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
         (c >= 0x2A700 && c <= 0x2B73F) || (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

std::string run(const Normalizer::Bert& bert, std::string_view text) {
  std::string out = each_character(text, [&](std::string& to, u32 c, std::string_view bytes) {
    const bool white = c == '\t' || c == '\n' || c == '\r' || is_space(c);
    if (bert.clean_text && (c == 0 || c == 0xFFFD || (!white && is_control(c)))) return;
    if (bert.clean_text && white) return to.append(1, ' '), void();
    if (!bert.chinese_characters || !is_chinese(c)) return to.append(bytes), void();
    to.append(1, ' ').append(bytes).append(1, ' ');
  });
  if (bert.strip_accents) out = run(Normalizer::StripAccents{}, to_normal_form(out, NormalForm::nfd));
  return bert.lowercase ? run(Normalizer::Lowercase{}, out) : out;
}

std::string run(const Charsmap& charsmap, std::string_view text) {
  std::string out;
  out.reserve(text.size());
  charsmap.append(out, text);
  return out;
}

}  // namespace

std::string Normalizer::apply(std::string_view text) const {
  const size_t most = 64 * text.size() + (1 << 20);  // compatibility forms are up to 18 characters for one
  std::string out(text);
  for (const Step& step : steps) {
    out = std::visit([&](const auto& s) { return run(s, out); }, step);
    if (out.size() > most) fail("the tokenizer's normalizer makes {} bytes of {}", out.size(), text.size());
  }
  return out;
}

}  // namespace sparsam
