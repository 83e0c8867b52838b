// Structs that list their fields once, f(name, help, member...): the list as JSON, from JSON, and compared.
#pragma once

#include <string>
#include <type_traits>
#include <vector>

#include "base/error.h"
#include "formats/json.h"
#include "model/config.h"

namespace sparsam {

// A closed list of names is written by name. Function has names of its own (ops/activation.h).
template <class T>
std::vector<std::string> names_of_enum() {
  if constexpr (std::is_same_v<T, Function>)
    return function_names();
  else
    return enum_names<T>();
}
template <class T>
T value_from_name(const std::string& name, std::string_view where, Exit code = Exit::failed) {
  const auto names = names_of_enum<T>();
  for (size_t i = 0; i < names.size(); ++i)
    if (names[i] == name) return static_cast<T>(i);
  fail_unknown("value", name, names, where, code);
}
template <class T>
Json field_json(const T& value) {
  if constexpr (std::is_enum_v<T>)
    return names_of_enum<T>()[static_cast<size_t>(value)];
  else if constexpr (std::is_same_v<T, float>)
    return std::stod(fmt::format("{}", value));  // the shortest decimal that reads back as it
  else
    return value;
}

template <class S>
Json fields_to_json(const S& values) {
  Json json = Json::object();
  S::fields([&](const char* name, const char*, const auto& value) { json[name] = field_json(value); }, values);
  return json;
}

// Every field must be there, and no other.
template <class S>
S fields_from_json(const Json& json, const std::string& where) {
  S values;
  Fields fields(json, where);
  S::fields(
      [&]<class T>(const char* name, const char*, T& value) {
        if constexpr (std::is_enum_v<T>)
          value = value_from_name<T>(fields.required<std::string>(name), where + "." + name);
        else
          value = fields.required<T>(name);
      },
      values);
  fields.finish();
  return values;
}

// The fields that are there replace those of `values`; a name that is no field's is an Error.
template <class S>
void read_fields(S& values, const Json& json, const std::string& where) {
  Fields fields(json, where);
  S::fields(
      [&]<class T>(const char* name, const char*, T& value) {
        if constexpr (std::is_enum_v<T>) {
          if (const auto text = fields.optional<std::string>(name))
            value = value_from_name<T>(*text, where + "." + name);
        } else {
          value = fields.or_default<T>(name, value);
        }
      },
      values);
  fields.finish();
}

// "--lr is 0.002, the run has 0.001" for each field that differs.
template <class S>
void list_differences(const S& asked, const S& has, std::vector<std::string>& texts) {
  S::fields(
      [&](const char* name, const char*, const auto& a, const auto& h) {
        if (a != h)
          texts.push_back(fmt::format("--{} {} (the run has {})", name, field_json(a).dump(), field_json(h).dump()));
      },
      asked, has);
}

}  // namespace sparsam
