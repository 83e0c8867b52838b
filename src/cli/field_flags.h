// Flags made from a struct that lists its fields (train/fields.h).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cli/common.h"
#include "train/fields.h"

namespace sparsam {

template <class T>
CLI::Option* add_field(CLI::App& app, const std::string& name, const std::string& help, T& value) {
  const std::string flag = "--" + name;
  if constexpr (std::is_same_v<T, bool>) {
    return app.add_flag(fmt::format("{},!--no-{}", flag, name), value, help);
  } else if constexpr (std::is_enum_v<T>) {
    const auto set = [flag, &value](const std::string& text) { value = value_from_name<T>(text, flag, Exit::usage); };
    return app.add_option_function<std::string>(flag, set, help)
        ->type_name(fmt::format("{}", fmt::join(names_of_enum<T>(), "|")));
  } else {
    return app.add_option(flag, value, help);
  }
}

// Adds a flag for every field of S. The result copies the fields that were given on the command line to another S.
template <class S>
std::function<void(S&)> add_fields(CLI::App& app, const char* group) {
  const auto given = std::make_shared<S>();
  const auto options = std::make_shared<std::vector<CLI::Option*>>();
  S::fields(
      [&](const char* name, const char* help, auto& value) {
        const bool common = std::string_view(name) == "seed";  // every verb has that flag
        options->push_back(common ? app.get_option("--seed") : add_field(app, name, help, value)->group(group));
      },
      *given);
  return [given, options](S& target) {
    size_t i = 0;
    S::fields(
        [&](const char*, const char*, const auto& from, auto& to) {
          if ((*options)[i++]->count() > 0) to = from;
        },
        *given, target);
  };
}

}  // namespace sparsam
