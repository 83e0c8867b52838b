#include "text/splitter.h"

#include <algorithm>

namespace sparsam {

detail::Char detail::wide_char_at(std::string_view text, size_t i) {
  const Utf8Char c = utf8_at(text, i);
  if (c.length == 0) return {Kind::broken, 1};
  return {static_cast<Kind>(char_class(c.code_point)), c.length};
}

size_t detail::run_begin(std::string_view text, size_t from, size_t end, Kind kind) {
  while (end > from) {
    size_t start = end - 1;
    while (start > from && (static_cast<u8>(text[start]) & 0xC0) == 0x80) --start;
    if (char_at(text, start).kind != kind) break;
    end = start;
  }
  return end;
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

std::vector<std::string_view> Splitter::cut(const Pattern& pattern, std::string_view text) {
  struct Part {
    std::string_view text;
    bool match;
  };
  std::vector<Part> parts;
  size_t done = 0;
  const auto add = [&](size_t end, bool match) {
    if (end > done) parts.push_back({text.substr(done, end - done), match != pattern.invert}), done = end;
  };
  const auto scratch = pattern.regex.scratch();
  size_t from = 0;
  for (Regex::Match m{}; from <= text.size() && pattern.regex.find(text, from, *scratch, m);) {
    add(m.begin, false), add(m.end, true);
    from = m.end > m.begin ? m.end : m.end + static_cast<size_t>(std::max(1, utf8_at(text, m.end).length));
  }
  add(text.size(), false);

  std::vector<std::string_view> pieces;
  const auto join = [&](const Part& part, bool joined) {  // with the piece before it
    if (joined && !pieces.empty())
      pieces.back() = {pieces.back().data(), pieces.back().size() + part.text.size()};
    else
      pieces.push_back(part.text);
  };
  for (size_t i = 0; i < parts.size(); ++i) {
    const Part& part = parts[i];
    const bool match_before = i > 0 && parts[i - 1].match;
    switch (pattern.matches) {
      case Matches::isolated:
        join(part, false);
        break;
      case Matches::removed:
        if (!part.match) join(part, false);
        break;
      case Matches::contiguous:
        join(part, i > 0 && part.match == match_before);
        break;
      case Matches::merged_with_previous:
        join(part, part.match && !match_before);
        break;
      case Matches::merged_with_next:
        // A match begins the piece of what follows it, unless that is a match too.
        join(part, match_before && !part.match);
        break;
    }
  }
  return pieces;
}

std::string Splitter::add_metaspace(const Metaspace& metaspace, std::string_view text, bool first) {
  std::string spaced;
  spaced.reserve(text.size() + text.size() / 2 + metaspace.space.size());
  const bool wanted = metaspace.prepend == Prepend::always || (metaspace.prepend == Prepend::first && first);
  if (wanted && text[0] != ' ' && text.substr(0, metaspace.space.size()) != metaspace.space) spaced = metaspace.space;
  for (char c : text) c == ' ' ? spaced.append(metaspace.space) : spaced.append(1, c);
  return spaced;
}

}  // namespace sparsam
