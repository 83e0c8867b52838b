// Pre-tokenization: cuts a text into pieces, inside which byte-pair encoding works. The pieces joined are the text.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/byte_level.h"
#include "text/regex.h"

namespace sparsam {

// The pattern of GPT-2, which split_gpt2() runs without a regular expression engine.
inline constexpr std::string_view gpt2_pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

namespace detail {

enum class Kind : u8 { other, letter, number, space, broken, end };  // CharClass, ill-formed UTF-8, end of text
struct Char {
  Kind kind;
  int length;
};

inline constexpr std::array<Kind, 128> ascii_kinds = [] {
  std::array<Kind, 128> kinds{};
  for (int c = 0; c < 128; ++c) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'), number = c >= '0' && c <= '9';
    const bool space = c == ' ' || (c >= 9 && c <= 13);
    kinds[c] = letter ? Kind::letter : number ? Kind::number : space ? Kind::space : Kind::other;
  }
  return kinds;
}();

Char wide_char_at(std::string_view text, size_t i);

inline Char char_at(std::string_view text, size_t i) {
  if (i >= text.size()) return {Kind::end, 0};
  const u8 c = static_cast<u8>(text[i]);
  return c < 128 ? Char{ascii_kinds[c], 1} : wide_char_at(text, i);
}

inline size_t run_end(std::string_view text, size_t i, Kind kind) {
  for (;;) {
    const Char c = char_at(text, i);
    if (c.kind != kind) return i;
    i += static_cast<size_t>(c.length);
  }
}

// Length of 's 't 're 've 'm 'll 'd at the front, else 0.
inline size_t contraction(std::string_view text) {
  if (text.size() < 2) return 0;
  const char a = text[1], b = text.size() > 2 ? text[2] : '\0';
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
  return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

// The end of the piece of the GPT-2 pattern that begins at text[i].
inline size_t gpt2_piece_end(std::string_view text, size_t i) {
  const Char first = char_at(text, i);
  if (first.kind != Kind::space) {
    if (text[i] == '\'')
      if (const size_t length = contraction(text.substr(i))) return i + length;
    return run_end(text, i + static_cast<size_t>(first.length), first.kind);
  }
  if (text[i] == ' ') {
    const Char next = char_at(text, i + 1);
    if (next.kind <= Kind::number) return run_end(text, i + 1 + static_cast<size_t>(next.length), next.kind);
  }
  size_t last = i, end = i + static_cast<size_t>(first.length);  // of the run of spaces: its last character, its end
  for (Char c = char_at(text, end); c.kind == Kind::space; c = char_at(text, end))
    last = end, end += static_cast<size_t>(c.length);
  const bool before_word = char_at(text, end).kind <= Kind::number;
  return before_word && last > i ? last : end;  // \s+(?!\S) leaves a word its last space
}

}  // namespace detail

// Calls piece(view) on the pieces of the GPT-2 pattern; a run of ill-formed bytes is a piece of its own and ends what
// stands before it.
template <class Piece>
void split_gpt2(std::string_view text, Piece&& piece) {
  for (size_t i = 0; i < text.size();) {
    const size_t end = detail::gpt2_piece_end(text, i);
    piece(text.substr(i, end - i));
    i = end;
  }
}

// The first place at or after `from` (and before text.size()) where a text may be cut without changing the pieces of
// the GPT-2 pattern: an ASCII non-space before an ASCII space. No match crosses it, and none looks back. Else the size.
size_t gpt2_safe_cut(std::string_view text, size_t from);

// A chain of cuts, each applied to the pieces of the one before.
class Splitter {
 public:
  struct Gpt2 {};
  struct AddSpace {};  // a space before each piece that has none
  using Stage = std::variant<Gpt2, AddSpace, Regex>;
  std::vector<Stage> stages;

  bool is_gpt2() const { return stages.size() == 1 && std::holds_alternative<Gpt2>(stages[0]); }
  bool changes_text() const {
    for (const Stage& stage : stages)
      if (std::holds_alternative<AddSpace>(stage)) return true;
    return false;
  }
  // Where changes_text(), the pieces live only during their call.
  template <class Piece>
  void split(std::string_view text, Piece&& piece, size_t stage = 0) const {
    if (stage == stages.size()) {
      if (!text.empty()) piece(text);
      return;
    }
    const auto next = [&](std::string_view part) { split(part, piece, stage + 1); };
    if (const Regex* regex = std::get_if<Regex>(&stages[stage])) {
      regex->split(text, next);
    } else if (std::holds_alternative<Gpt2>(stages[stage])) {
      split_gpt2(text, next);
    } else if (text.empty() || text[0] == ' ') {
      next(text);
    } else {
      std::string spaced = " ";
      next(spaced.append(text));
    }
  }
};

}  // namespace sparsam
