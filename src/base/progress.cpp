#include "base/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "base/types.h"

namespace sparsam {

namespace {
constexpr double redraw_seconds = 0.2;  // on a terminal
constexpr double line_seconds = 5.0;    // elsewhere
}  // namespace

bool colour_allowed(int descriptor) {
  const char* no_color = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  return ::isatty(descriptor) && !(no_color && *no_color) && !(term && std::string_view(term) == "dumb");
}

Progress::Progress(std::string what, bool quiet)
    : what_(std::move(what)), quiet_(quiet), terminal_(::isatty(STDERR_FILENO)) {}

void Progress::update(double fraction, std::string_view detail) {
  const double now = clock_.seconds();
  if (quiet_ || (fraction < 1 && now - last_seconds_ < (terminal_ ? redraw_seconds : line_seconds))) return;
  last_seconds_ = now;
  std::string line = fmt::format("{} {:3.0f} %  {}", what_, 100 * fraction, detail);
  if (fraction > 0.002 && fraction < 1)
    line += fmt::format("  {} left", format_duration(now / fraction * (1 - fraction)));
  if (terminal_) {
    fmt::print(stderr, "\r\033[K{}", line);
    std::fflush(stderr);
    drawn_ = true;
  } else {
    fmt::print(stderr, "{}\n", line);
  }
}

void Progress::finish() {
  if (drawn_) fmt::print(stderr, "\n");
  drawn_ = false;
}

std::string format_duration(double seconds) {
  const i64 s = static_cast<i64>(std::llround(seconds));
  if (s < 60) return fmt::format("{} s", s);
  if (s < 3600) return fmt::format("{} min {:02} s", s / 60, s % 60);
  return fmt::format("{} h {:02} min", s / 3600, s / 60 % 60);
}

std::string format_count(double count) {
  std::string digits = fmt::format("{:.0f}", count);
  for (i64 i = static_cast<i64>(digits.size()) - 3; i > (digits[0] == '-'); i -= 3)
    digits.insert(static_cast<size_t>(i), 1, ',');
  return digits;
}

std::string format_bytes(double bytes) {
  const char* units[] = {"B", "kB", "MB", "GB", "TB"};
  int unit = 0;
  while (bytes >= 999.5 && unit < 4) bytes /= 1000, ++unit;
  return unit == 0 ? fmt::format("{:.0f} B", bytes) : fmt::format("{:.1f} {}", bytes, units[unit]);
}

}  // namespace sparsam
