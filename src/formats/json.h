// JSON: parsing of untrusted text, fields read by name with types and limits, and text of values.
#pragma once

#include <concepts>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/types.h"

namespace sparsam {

using Json =
    nlohmann::ordered_json;  // objects keep the order of their fields; looking one up is linear in their number

constexpr int json_depth = 200;  // arrays and objects within each other that parse_json() accepts

// Parses one JSON value (RFC 8259: no comments, no trailing commas, no NaN, valid UTF-8). `where` heads the errors:
// syntax (with line and column), more than json_depth levels, a key that stands twice in one object.
// Time n log n in the length of the text.
Json parse_json(std::string_view text, std::string_view where);

// The text of a value; `indent` < 0 writes one line. Error naming `where` when a string in it is not UTF-8.
std::string format_json(const Json& value, std::string_view where, int indent = -1);

// A name or value from a file as it may stand in a message: control characters and bytes that are not ASCII escaped,
// long ones cut.
std::string printable(std::string_view text);

// The inclusive range in which a number of a file must lie. Other types have none.
template <class T>
struct Limits {};
template <class T>
requires std::is_arithmetic_v<T>
struct Limits<T> {
  T least = std::numeric_limits<T>::lowest(), most = std::numeric_limits<T>::max();
};

// The fields of one JSON object, read by name. T: bool, i64, int, float, double, std::string, Json, or a std::vector of
// these. Integers must be written as such (8, not 8.0 or 8e0) and fit; nothing is converted or clamped. Every error
// names the place, the field, what was found and what was expected.
//
//   Fields fields(json, "config.json");
//   config.dim = fields.required<i64>("hidden_size", {.least = 1, .most = 1 << 20});
//   config.eps = fields.or_default<float>("rms_norm_eps", 1e-6f, {.least = 0});
//   fields.ignore("transformers_version");
//   fields.finish();
class Fields {
 public:
  Fields(const Json& object, std::string where);  // `object` must outlive this; Error unless it is an object
  Fields(Json&&, std::string) = delete;

  template <class T>
  T required(std::string_view name, Limits<T> limits = {}) {
    const Json* value = find(name);
    if (!value) fail_missing(name);
    return convert<T>(*value, name, limits);
  }
  // Nothing when the field is absent or null.
  template <class T>
  std::optional<T> optional(std::string_view name, Limits<T> limits = {}) {
    const Json* value = find(name);
    if (!value) return std::nullopt;
    return convert<T>(*value, name, limits);
  }
  template <class T>
  T or_default(std::string_view name, std::type_identity_t<T> otherwise, Limits<T> limits = {}) {
    return optional<T>(name, limits).value_or(std::move(otherwise));
  }
  // The raw value, for fields of several types; null pointer when absent or null. Counts as known from here on.
  const Json* find(std::string_view name);
  // A nested object: Fields rope = fields.object("rope_scaling"). Error when absent.
  Fields object(std::string_view name);

  void ignore(std::string_view name) { known_.emplace_back(name); }
  void finish() const;  // Error naming each field that none of the calls above asked for, with close matches

  const std::string& where() const { return where_; }
  [[noreturn]] void fail_value(std::string_view name, const Json& found, std::string_view expected) const;

 private:
  [[noreturn]] void fail_missing(std::string_view name) const;
  bool boolean(const Json& value, std::string_view name) const;
  i64 integer(const Json& value, std::string_view name, i64 least, i64 most) const;
  double real(const Json& value, std::string_view name, double least, double most) const;
  std::string string(const Json& value, std::string_view name) const;
  const Json& array(const Json& value, std::string_view name) const;

  template <class T>
  struct Element {};
  template <class T>
  struct Element<std::vector<T>> {
    using Type = T;
  };

  template <class T>
  T convert(const Json& value, std::string_view name, Limits<T> limits) const {
    if constexpr (std::same_as<T, Json>) {
      return value;
    } else if constexpr (std::same_as<T, bool>) {
      return boolean(value, name);
    } else if constexpr (std::integral<T>) {
      static_assert(sizeof(T) < sizeof(i64) || std::is_signed_v<T>, "the limits must fit in i64");
      return static_cast<T>(integer(value, name, limits.least, limits.most));
    } else if constexpr (std::floating_point<T>) {
      return static_cast<T>(real(value, name, limits.least, limits.most));
    } else if constexpr (std::same_as<T, std::string>) {
      return string(value, name);
    } else {
      using Item = typename Element<T>::Type;
      T items;
      for (const Json& item : array(value, name)) items.push_back(convert<Item>(item, name, Limits<Item>{}));
      return items;
    }
  }

  const Json& json_;
  std::string where_;
  std::vector<std::string> known_;
};

}  // namespace sparsam
