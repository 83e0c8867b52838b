// The two kinds of error.
//   The world is wrong (file, flag, request, data): throw Error. Its text names the place, what was found and what was
//   expected; it is caught in main and in the HTTP handler alone.
//   The program is wrong (shape, index): check() aborts and prints both sides. A user's input never reaches check().
#pragma once

#include <fmt/format.h>

#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace sparsam {

// Exit codes of the program.
enum class Exit : int { done = 0, failed = 1, usage = 2, bound_not_reached = 3, interrupted = 130, terminated = 143 };

class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& text, Exit code = Exit::failed) : std::runtime_error(text), code(code) {}
  Exit code;
};

// Throws Error with a formatted text: fail("{}: header says {} bytes, the file has {}", path, said, has).
template <class... A>
[[noreturn]] void fail(fmt::format_string<A...> text, A&&... args) {
  throw Error(fmt::format(text, std::forward<A>(args)...));
}

// The same for a wrong flag or combination of flags (exit code 2).
template <class... A>
[[noreturn]] void fail_usage(fmt::format_string<A...> text, A&&... args) {
  throw Error(fmt::format(text, std::forward<A>(args)...), Exit::usage);
}

// A place in the sources: as a default argument, the caller's. (Clang 14 lacks std::source_location.)
struct Place {
  const char* file;
  const char* function;
  int line;
  static constexpr Place here(const char* file = __builtin_FILE(), const char* function = __builtin_FUNCTION(),
                              int line = __builtin_LINE()) {
    return {file, function, line};
  }
};
[[noreturn]] void abort_check(const Place& where, const std::string& text);

// A fact that only a mistake in this program can break. `text` says both sides: "y (3, 4) but x (3, 5)".
struct CheckText {
  // NOLINTNEXTLINE(google-explicit-constructor): check(ok, "text") is the only use
  CheckText(const char* text, Place where = Place::here()) : text(text), where(where) {}
  const char* text;
  Place where;
};
template <class... A>
void check(bool ok, CheckText text, const A&... args) {
  if (!ok) [[unlikely]]
    abort_check(text.where, fmt::vformat(text.text, fmt::make_format_args(args...)));
}

// The known names nearest to a misspelt one, best first, for "unknown ... did you mean ...?".
std::vector<std::string> close_matches(std::string_view wrong, std::span<const std::string> known);

// "unknown activation 'sliu' (config.json); did you mean silu? known: relu, ..." — the one text for every closed list.
[[noreturn]] void fail_unknown(std::string_view what, std::string_view wrong, std::span<const std::string> known,
                               std::string_view where, Exit code = Exit::failed);

}  // namespace sparsam
