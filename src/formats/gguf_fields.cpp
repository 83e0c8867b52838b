// Metadata of GGUF read by key, with types and limits.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"
#include "formats/gguf.h"

namespace sparsam {

namespace {

template <class T>
constexpr bool is_integer = std::integral<T> && !std::same_as<T, bool>;

std::string shown(const GgufValue& value) {
  return std::visit(
      []<class T>(const T& plain) {
        if constexpr (std::same_as<T, std::string>)
          return fmt::format("the text '{}'", printable(plain));
        else if constexpr (std::same_as<T, GgufArray>)
          return std::string("an array");
        else
          return fmt::format("{}", plain);
      },
      value);
}

// The integer in a value of any width; nothing for other types and for what 63 bits do not hold.
std::optional<i64> integer_in(const GgufValue& value) {
  return std::visit(
      []<class T>(const T& plain) -> std::optional<i64> {
        if constexpr (is_integer<T>)
          if (std::in_range<i64>(plain)) return static_cast<i64>(plain);
        return std::nullopt;
      },
      value);
}

std::optional<double> real_in(const GgufValue& value) {
  return std::visit(
      []<class T>(const T& plain) -> std::optional<double> {
        if constexpr (std::floating_point<T>) return static_cast<double>(plain);
        return std::nullopt;
      },
      value);
}

}  // namespace

GgufFields::GgufFields(const GgufFile& file) : metadata_(file.metadata()), where_(file.path().string()) {}

const GgufValue* GgufFields::find(std::string_view key) {
  known_.emplace_back(key);
  const auto found =
      std::find_if(metadata_.begin(), metadata_.end(), [&](const auto& entry) { return entry.first == key; });
  return found == metadata_.end() ? nullptr : &found->second;
}

void GgufFields::finish(std::string_view prefix) const {
  std::vector<std::string> known;
  for (const std::string& key : known_)
    if (key.starts_with(prefix)) known.push_back(key);
  for (const auto& [key, value] : metadata_)
    if (key.starts_with(prefix) && std::find(known.begin(), known.end(), key) == known.end())
      fail_unknown("key", printable(key), known, where_);
}

void GgufFields::fail_value(std::string_view key, const GgufValue& found, std::string_view expected) const {
  fail("{}: key '{}': found {}, expected {}", where_, key, shown(found), expected);
}

void GgufFields::fail_missing(std::string_view key) const { fail("{}: the key '{}' is missing", where_, key); }

bool GgufFields::boolean(const GgufValue& value, std::string_view key) const {
  if (!std::holds_alternative<bool>(value)) fail_value(key, value, "true or false");
  return std::get<bool>(value);
}

i64 GgufFields::integer(const GgufValue& value, std::string_view key, i64 least, i64 most) const {
  const std::optional<i64> found = integer_in(value);
  if (!found || *found < least || *found > most)
    fail_value(key, value, fmt::format("an integer from {} to {}", least, most));
  return *found;
}

double GgufFields::real(const GgufValue& value, std::string_view key, double least, double most) const {
  const std::optional<double> found = real_in(value);
  if (!found || !(*found >= least && *found <= most))
    fail_value(key, value, fmt::format("a number from {} to {}", least, most));
  return *found;
}

std::string GgufFields::string(const GgufValue& value, std::string_view key) const {
  if (!std::holds_alternative<std::string>(value)) fail_value(key, value, "a text");
  return std::get<std::string>(value);
}

void GgufFields::array(const GgufValue& value, std::string_view key, std::vector<i64>& out) const {
  const auto* found = std::get_if<GgufArray>(&value);
  if (!found) fail_value(key, value, "an array of integers");
  std::visit(
      [&]<class Items>(const Items& items) {
        if constexpr (requires { typename Items::value_type; }) {
          using Item = typename Items::value_type;
          if constexpr (is_integer<Item>) {
            for (const Item item : items) {
              if (!std::in_range<i64>(item)) fail_value(key, item, "integers of 63 bits");
              out.push_back(static_cast<i64>(item));
            }
            return;
          }
        }
        fail_value(key, value, "an array of integers");
      },
      found->items);
}

void GgufFields::array(const GgufValue& value, std::string_view key, std::vector<float>& out) const {
  const auto* found = std::get_if<GgufArray>(&value);
  const auto* items = found ? std::get_if<std::vector<float>>(&found->items) : nullptr;
  if (!items) fail_value(key, value, "an array of 32-bit numbers");
  out = *items;
}

void GgufFields::array(const GgufValue& value, std::string_view key, std::vector<std::string>& out) const {
  const auto* found = std::get_if<GgufArray>(&value);
  const auto* items = found ? std::get_if<std::vector<std::string>>(&found->items) : nullptr;
  if (!items) fail_value(key, value, "an array of texts");
  out = *items;
}

}  // namespace sparsam
