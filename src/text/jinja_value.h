// Values of templates: what Python's None, bool, int, float, str, list and dict are to Jinja.
#pragma once

#include <fmt/format.h>

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/error.h"
#include "base/types.h"
#include "formats/json.h"

namespace sparsam::jinja {

// What bounds a rendering, and where it is. Work is counted in steps and in bytes and values made, so that it bounds
// time and memory alike.
struct Runtime {
  std::string where;  // heads every error
  int line = 0;       // of the template, being rendered
  i64 work;

  [[noreturn]] void refuse(std::string_view text) const { fail("{}: line {}: {}", where, line, text); }
  void charge(size_t steps) {
    if (static_cast<u64>(work) < steps) refuse("the template takes more work than any conversation needs; stopped");
    work -= static_cast<i64>(steps);
  }
};

struct Undefined {};
struct None {};
struct Value;
struct Node;

using Items = std::vector<Value>;
using Fields = std::vector<std::pair<std::string, Value>>;  // in the order in which they were added
struct ListData;
struct DictData;
struct NamespaceData;
using Text = std::shared_ptr<const std::string>;
using List = std::shared_ptr<const ListData>;  // also Python's tuples
using Dict = std::shared_ptr<const DictData>;
using Namespace = std::shared_ptr<NamespaceData>;  // the one value that changes
struct Macro {
  const Node* node;
};
struct Builtin {
  std::string_view name;
};

struct Value {
  std::variant<Undefined, None, bool, i64, double, Text, List, Dict, Namespace, Macro, Builtin> data;

  template <class T>
  bool is() const {
    return std::holds_alternative<T>(data);
  }
  template <class T>
  const T& as() const {
    return std::get<T>(data);
  }
  std::string_view text() const { return *as<Text>(); }
};

// Values within each other, at most this many levels: what walks over them recurses.
constexpr int most_value_depth = 64;
struct ListData {
  Items items;
  int depth;
};
struct DictData {
  Fields fields;
  int depth;
  const Value* find(std::string_view key) const;
};
struct NamespaceData {
  Fields fields;
};
const Value* find_field(const Fields& fields, std::string_view key);
void set_field(Fields& fields, std::string_view key, Value value);

// Making values charges for their size. Errors: too deep; a namespace, which could come to hold itself, in another
// value.
Value make_text(Runtime& runtime, std::string text);
Value make_list(Runtime& runtime, Items items);
Value make_dict(Runtime& runtime, Fields fields);
Value make_value(Runtime& runtime, const Json& json);
void check_member(const Runtime& runtime, const Value& value);  // the last of those errors

std::string_view kind_of(const Value& value);  // "a text", "undefined", ...
bool is_true(const Value& value);
bool is_number(const Value& value);  // also bool, as in Python
double number_of(const Value& value);
bool equal(Runtime& runtime, const Value& a, const Value& b);
std::string to_text(Runtime& runtime, const Value& value);  // Python's str(); of undefined: nothing

struct JsonStyle {
  int indent = -1;  // < 0: one line
  std::string item_separator = ", ", key_separator = ": ";
  bool sort_keys = false;
};
std::string to_json(Runtime& runtime, const Value& value, const JsonStyle& style);  // Python's json.dumps()

// The members over which a loop runs: of a list its items, of a dictionary its keys, of a text its characters, of
// undefined none. Error for others.
Items items_of(Runtime& runtime, const Value& value);

// Text as Python has it, in code points; bytes that are no UTF-8 count as characters of their own.
size_t next_character(std::string_view text, size_t at);  // where the character at `at` ends
size_t length_of(std::string_view text);
size_t whitespace_at(std::string_view text, size_t at);  // bytes of the whitespace character there, 0 if it is none
std::string_view strip_left(std::string_view text);      // of whitespace as Python's str.strip() knows it
std::string_view strip_right(std::string_view text);

}  // namespace sparsam::jinja
