#include "base/error.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "base/types.h"

namespace sparsam {

void abort_check(const Place& where, const std::string& text) {
  fmt::print(stderr, "sparsam: internal check failed at {}:{} ({}): {}\n", where.file, where.line, where.function,
             text);
  std::abort();
}

// Levenshtein distance, one row at a time.
static i64 edit_distance(std::string_view a, std::string_view b) {
  std::vector<i64> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = static_cast<i64>(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    i64 diagonal = row[0];
    row[0] = static_cast<i64>(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const i64 substitute = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitute});
    }
  }
  return row[b.size()];
}

std::vector<std::string> close_matches(std::string_view wrong, std::span<const std::string> known) {
  std::vector<std::pair<i64, std::string>> ranked;
  for (const std::string& name : known) {
    const i64 distance = edit_distance(wrong, name);
    const i64 allowed = std::max<i64>(2, static_cast<i64>(name.size()) / 3);
    if (distance <= allowed) ranked.emplace_back(distance, name);
  }
  std::stable_sort(ranked.begin(), ranked.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<std::string> names;
  for (auto& [distance, name] : ranked)
    if (names.size() < 3) names.push_back(std::move(name));
  return names;
}

void fail_unknown(std::string_view what, std::string_view wrong, std::span<const std::string> known,
                  std::string_view where, Exit code) {
  const auto near = close_matches(wrong, known);
  std::string text = fmt::format("{}: unknown {} '{}'", where, what, wrong);
  text += near.empty() ? "." : fmt::format("; did you mean {}?", fmt::join(near, " or "));
  text += fmt::format(" Known: {}", fmt::join(known, ", "));
  throw Error(text, code);
}

}  // namespace sparsam
