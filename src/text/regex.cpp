#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "text/byte_level.h"

namespace sparsam {
namespace {

// Oniguruma's Ruby syntax -> PCRE2. \s is White_Space in both once said so (PCRE2's own \s adds U+180E); a class inside
// a class is a union, which PCRE2 lacks: its brackets are dropped.
std::string translate(std::string_view pattern, std::string_view where) {
  std::string out;
  int depth = 0;  // of [ ]
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    const char next = i + 1 < pattern.size() ? pattern[i + 1] : '\0';
    const auto refuse = [&](std::string_view what) {
      fail("{}: regular expression '{}' uses {}, which this program does not support", where, pattern, what);
    };
    if (c == '\\') {
      if (next == 's' || next == 'S') {
        out.append(next == 's' ? "\\p{White_Space}" : "\\P{White_Space}");
      } else {
        const bool letter =
            (next >= 'a' && next <= 'z') || (next >= 'A' && next <= 'Z') || (next >= '0' && next <= '9');
        if (letter && std::string_view("pPdDrntx").find(next) == std::string_view::npos)
          refuse(fmt::format("'\\{}'", next));
        out.append(1, c);
        if (i + 1 < pattern.size()) out.append(1, next);
      }
      ++i;
    } else if (c == '[') {
      if (next == ':') refuse("a POSIX class '[:'");
      if (depth > 0 && next == '^') refuse("a negated class inside a class");
      if (++depth == 1) out.append(1, c);
    } else if (c == ']' && depth > 0) {
      if (--depth == 0) out.append(1, c);
    } else {
      if (depth > 0 && c == '&' && next == '&') refuse("a class intersection '&&'");
      if (depth == 0 && c == '(' && next == '*') refuse("a verb '(*'");
      out.append(1, c);
    }
  }
  return out;
}

pcre2_code* code_of(const std::shared_ptr<void>& code) { return static_cast<pcre2_code*>(code.get()); }

}  // namespace

class Regex::Scratch {
 public:
  explicit Scratch(const pcre2_code* code)
      : data_(pcre2_match_data_create_from_pattern(code, nullptr)), context_(pcre2_match_context_create(nullptr)) {}
  ~Scratch() { pcre2_match_data_free(data_), pcre2_match_context_free(context_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  pcre2_match_data* data() { return data_; }
  pcre2_match_context* context() { return context_; }

 private:
  pcre2_match_data* data_;
  pcre2_match_context* context_;
};

Regex::Regex(std::string_view pattern, std::string_view where) : pattern_(pattern) {
  const std::string translated = translate(pattern, where);
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                   PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF | PCRE2_NEVER_BACKSLASH_C, &error,
                                   &offset, nullptr);
  if (code == nullptr) {
    PCRE2_UCHAR text[256] = {};
    pcre2_get_error_message(error, text, sizeof text);
    fail("{}: regular expression '{}' is not valid: {}", where, pattern, reinterpret_cast<const char*>(text));
  }
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // where it is not available, pcre2_match interprets
  code_ = std::shared_ptr<void>(code, [](void* c) { pcre2_code_free(static_cast<pcre2_code*>(c)); });
}

std::shared_ptr<Regex::Scratch> Regex::scratch() const { return std::make_shared<Scratch>(code_of(code_)); }

bool Regex::find(std::string_view text, size_t from, Scratch& scratch, Match& match) const {
  const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  // Enough to go through a text of one kind of character a few times, not to try all ways of cutting it.
  const u64 steps = 1'000'000 + 16 * static_cast<u64>(text.size());
  pcre2_set_match_limit(scratch.context(), static_cast<u32>(std::min<u64>(steps, UINT32_MAX)));
  int found = pcre2_match(code_of(code_), subject, text.size(), from, 0, scratch.data(), scratch.context());
  if (found == PCRE2_ERROR_JIT_STACKLIMIT)  // the interpreter keeps its state on the heap
    found = pcre2_match(code_of(code_), subject, text.size(), from, PCRE2_NO_JIT, scratch.data(), scratch.context());
  if (found == PCRE2_ERROR_NOMATCH) return false;
  if (found < 0) {
    PCRE2_UCHAR reason[256] = {};
    pcre2_get_error_message(found, reason, sizeof reason);
    fail("regular expression '{}' gave up at byte {} of the text: {}", pattern_, from,
         reinterpret_cast<const char*>(reason));
  }
  const PCRE2_SIZE* range = pcre2_get_ovector_pointer(scratch.data());
  match = {range[0], range[1]};
  return true;
}

CharClass char_class(u32 code_point) {
  // No letter, number or space stands beyond U+3FFFF (Unicode 15). Built from runs that PCRE2 finds in the text of all
  // code points, so that the table cannot disagree with the regular expressions.
  static const std::vector<CharClass> table = [] {
    constexpr u32 limit = 0x40000;
    std::vector<CharClass> classes(limit, CharClass::other);
    std::string all;
    for (u32 c = 0; c < limit; ++c)
      if (c < 0xD800 || c >= 0xE000) append_utf8(all, c);
    const std::pair<const char*, CharClass> kinds[] = {
        {"\\p{L}+", CharClass::letter}, {"\\p{N}+", CharClass::number}, {"\\s+", CharClass::space}};
    for (const auto& [pattern, kind] : kinds) {
      const Regex regex(pattern, "character classes");
      const auto scratch = regex.scratch();
      Regex::Match match{};
      for (size_t from = 0; regex.find(all, from, *scratch, match); from = match.end)
        for (size_t i = match.begin; i < match.end;) {
          const Utf8Char c = utf8_at(all, i);
          classes[c.code_point] = kind;
          i += static_cast<size_t>(c.length);
        }
    }
    return classes;
  }();
  return code_point < table.size() ? table[code_point] : CharClass::other;
}

}  // namespace sparsam
