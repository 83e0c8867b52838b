// Pre-tokenization: cuts a text into pieces, which a model then encodes each by itself.
#pragma once

#include <algorithm>
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

// The same backwards: where the run that ends at `end`, and does not begin before `from`, begins.
size_t run_begin(std::string_view text, size_t from, size_t end, Kind kind);

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

// What becomes of the matches of a pattern: pieces by themselves; nothing; pieces, neighbours joined; or the end or
// beginning of the piece beside them.
enum class Matches { isolated, removed, contiguous, merged_with_previous, merged_with_next };

// A chain of stages, each applied to the pieces of the one before.
class Splitter {
 public:
  struct Gpt2 {};
  struct AddSpace {};  // a space before each piece that has none
  struct Pattern {
    Regex regex;
    Matches matches = Matches::isolated;
    bool invert = false;  // it is what lies between the matches that is meant
  };
  enum class Prepend { always, first, never };
  struct Metaspace {                    // spaces become `space`, and one is put before
    std::string space = "\u2581";       // one character
    Prepend prepend = Prepend::always;  // each piece, or one at the beginning of the text, that does not begin with it
    bool split = true;                  // before each of them
  };
  struct ByteAlphabet {};      // bytes to the characters of byte_level.h
  struct FromByteAlphabet {};  // and back: the last stage where one that works on such characters comes after them
  using Stage = std::variant<Gpt2, AddSpace, Pattern, Metaspace, ByteAlphabet, FromByteAlphabet>;
  std::vector<Stage> stages;

  bool is_gpt2() const { return stages.size() == 1 && std::holds_alternative<Gpt2>(stages[0]); }
  // The pieces live only during their call. `first`: the text is the beginning of what is encoded.
  template <class Piece>
  void split(std::string_view text, bool first, Piece&& piece, size_t stage = 0) const {
    if (text.empty()) return;
    if (stage == stages.size()) return piece(text);
    const auto next = [&](std::string_view part) {
      split(part, first && part.data() == text.data(), piece, stage + 1);
    };
    const auto changed = [&](std::string_view part) { split(part, first, piece, stage + 1); };
    if (std::holds_alternative<Gpt2>(stages[stage])) return split_gpt2(text, next);
    if (const auto* pattern = std::get_if<Pattern>(&stages[stage])) {
      if (pattern->matches == Matches::isolated) return pattern->regex.split(text, next);
      for (std::string_view part : cut(*pattern, text)) next(part);
    } else if (const auto* metaspace = std::get_if<Metaspace>(&stages[stage])) {
      const std::string spaced = add_metaspace(*metaspace, text, first);
      if (!metaspace->split) return changed(spaced);
      const std::string_view all = spaced;
      for (size_t begin = 0; begin < all.size();) {
        const size_t end = std::min(all.find(metaspace->space, begin + 1), all.size());
        split(all.substr(begin, end - begin), first && begin == 0, piece, stage + 1);
        begin = end;
      }
    } else if (std::holds_alternative<ByteAlphabet>(stages[stage])) {
      changed(to_byte_alphabet(text));
    } else if (std::holds_alternative<FromByteAlphabet>(stages[stage])) {
      changed(from_byte_alphabet(text).value_or(std::string(text)));
    } else if (text[0] == ' ') {
      next(text);
    } else {
      std::string spaced = " ";
      changed(spaced.append(text));
    }
  }

 private:
  static std::vector<std::string_view> cut(const Pattern& pattern, std::string_view text);
  static std::string add_metaspace(const Metaspace& metaspace, std::string_view text, bool first);
};

}  // namespace sparsam
