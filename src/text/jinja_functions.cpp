#include "text/jinja_functions.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <ctime>
#include <optional>

namespace sparsam::jinja {

namespace {

// One filter, test or method: its parameters in order, and what it does with a value and the arguments, of which those
// that are not given are undefined.
template <class Result>
struct Function {
  std::string_view name;
  std::vector<std::string_view> parameters;
  Result (*call)(Runtime&, const Value&, std::span<const Value>);
};
using Filter = Function<Value>;
using Test = Function<bool>;

template <class Result>
Result apply(Runtime& runtime, const Function<Result>& function, const Value& value, Arguments arguments) {
  runtime.charge(1 + (value.is<Text>() ? value.text().size() : 0));
  Items bound(function.parameters.size());
  if (arguments.positional.size() > bound.size())
    runtime.refuse(fmt::format("{}: {} arguments, at most {} are supported", function.name, arguments.positional.size(),
                               bound.size()));
  std::move(arguments.positional.begin(), arguments.positional.end(), bound.begin());
  for (auto& [name, argument] : arguments.named) {
    const auto found = std::find(function.parameters.begin(), function.parameters.end(), name);
    if (found == function.parameters.end())
      runtime.refuse(fmt::format("{}: the argument '{}' is not supported", function.name, printable(name)));
    bound[static_cast<size_t>(found - function.parameters.begin())] = std::move(argument);
  }
  return function.call(runtime, value, bound);
}

template <class Result>
const Function<Result>* find(const std::vector<Function<Result>>& functions, std::string_view name) {
  const auto found = std::find_if(functions.begin(), functions.end(), [&](const auto& f) { return f.name == name; });
  return found == functions.end() ? nullptr : &*found;
}

template <class Result>
std::vector<std::string> names_of(const std::vector<Function<Result>>& functions) {
  std::vector<std::string> names;
  for (const auto& function : functions) names.emplace_back(function.name);
  return names;
}

bool given(const Value& value) { return !value.is<Undefined>() && !value.is<None>(); }

std::string_view text_argument(Runtime& runtime, const Value& value) {
  if (!value.is<Text>()) runtime.refuse(fmt::format("found {}, expected a text", kind_of(value)));
  return value.text();
}
i64 integer_argument(Runtime& runtime, const Value& value, i64 otherwise) {
  if (!given(value)) return otherwise;
  if (!value.is<i64>()) runtime.refuse(fmt::format("found {}, expected an integer", kind_of(value)));
  return value.as<i64>();
}

// ---- Texts

// Letter cases of ASCII; other letters would need Unicode's tables, and are refused rather than left as they are.
void require_ascii(Runtime& runtime, std::string_view text) {
  runtime.charge(text.size());
  if (std::any_of(text.begin(), text.end(), [](char c) { return static_cast<u8>(c) >= 0x80; }))
    runtime.refuse(fmt::format("changing the case of '{}' is not supported: it is not ASCII", printable(text)));
}
char upper(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; }
char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }
bool is_letter(char c) { return upper(c) != lower(c); }

template <class Change>
Value changed_case(Runtime& runtime, std::string_view text, Change&& change) {
  require_ascii(runtime, text);
  std::string out(text);
  for (size_t i = 0; i < out.size(); ++i) out[i] = change(text, i);
  return make_text(runtime, std::move(out));
}
Value upper_text(Runtime& runtime, std::string_view text) {
  return changed_case(runtime, text, [](std::string_view t, size_t i) { return upper(t[i]); });
}
Value lower_text(Runtime& runtime, std::string_view text) {
  return changed_case(runtime, text, [](std::string_view t, size_t i) { return lower(t[i]); });
}
Value capitalized_text(Runtime& runtime, std::string_view text) {
  return changed_case(runtime, text, [](std::string_view t, size_t i) { return i ? lower(t[i]) : upper(t[i]); });
}

// Python's strip(): of whitespace, or of the characters that are given (ASCII ones).
enum Sides { left = 1, right = 2 };
Value stripped(Runtime& runtime, std::string_view text, const Value& characters, int sides) {
  runtime.charge(text.size());
  if (!given(characters)) {
    if (sides & left) text = strip_left(text);
    if (sides & right) text = strip_right(text);
    return make_text(runtime, std::string(text));
  }
  const std::string_view set = text_argument(runtime, characters);
  require_ascii(runtime, set);
  const auto inside = [&](char c) { return set.find(c) != set.npos; };
  while ((sides & left) && !text.empty() && inside(text.front())) text.remove_prefix(1);
  while ((sides & right) && !text.empty() && inside(text.back())) text.remove_suffix(1);
  return make_text(runtime, std::string(text));
}

Value replaced(Runtime& runtime, std::string_view text, std::span<const Value> arguments) {
  const std::string_view from = text_argument(runtime, arguments[0]), to = text_argument(runtime, arguments[1]);
  i64 left_over = integer_argument(runtime, arguments[2], -1);
  if (from.empty()) runtime.refuse("replacing the empty text is not supported");
  std::string out;
  for (size_t at; left_over != 0 && (at = text.find(from)) != text.npos; --left_over) {
    runtime.charge(at + to.size() + 1);
    out.append(text.substr(0, at)).append(to);
    text.remove_prefix(at + from.size());
  }
  return make_text(runtime, out.append(text));
}

Value split(Runtime& runtime, std::string_view text, std::span<const Value> arguments, bool from_right) {
  i64 left_over = integer_argument(runtime, arguments[1], -1);
  runtime.charge(text.size());
  std::vector<std::string_view> parts;
  if (!given(arguments[0])) {
    if (from_right && left_over >= 0) runtime.refuse("rsplit() at whitespace with a limit is not supported");
    for (text = strip_left(text); !text.empty(); text = strip_left(text)) {
      size_t end = 0;
      while (end < text.size() && whitespace_at(text, end) == 0) ++end;
      if (left_over-- == 0) end = text.size();
      parts.push_back(text.substr(0, end));
      text.remove_prefix(end);
    }
  } else {
    const std::string_view separator = text_argument(runtime, arguments[0]);
    if (separator.empty()) runtime.refuse("split() at the empty text");
    for (size_t at; left_over != 0; --left_over) {
      at = from_right ? text.rfind(separator) : text.find(separator);
      if (at == text.npos) break;
      const std::string_view before = text.substr(0, at), after = text.substr(at + separator.size());
      parts.push_back(from_right ? after : before);
      text = from_right ? before : after;
    }
    parts.push_back(text);
    if (from_right) std::reverse(parts.begin(), parts.end());
  }
  Items items;
  for (const std::string_view part : parts) items.push_back(make_text(runtime, std::string(part)));
  return make_list(runtime, std::move(items));
}

Value split_lines(Runtime& runtime, std::string_view text) {
  Items items;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    items.push_back(make_text(runtime, std::string(text.substr(0, end))));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return make_list(runtime, std::move(items));
}

bool begins_or_ends(Runtime& runtime, std::string_view text, const Value& wanted, bool begins) {
  const auto one = [&](const Value& value) {
    const std::string_view part = text_argument(runtime, value);
    return begins ? text.starts_with(part) : text.ends_with(part);
  };
  if (!wanted.is<List>()) return one(wanted);
  const Items& items = wanted.as<List>()->items;
  return std::any_of(items.begin(), items.end(), one);
}

Value found_at(std::string_view text, size_t at) {
  return {at == text.npos ? i64{-1} : static_cast<i64>(length_of(text.substr(0, at)))};
}

// Python's int() and float() of a text.
template <class Number>
std::optional<Number> parse_number(std::string_view text) {
  text = strip_left(strip_right(text));
  if (text.starts_with('+')) text.remove_prefix(1);
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

Value to_integer(Runtime& runtime, const Value& value, const Value& otherwise) {
  if (value.is<i64>()) return value;
  if (value.is<bool>()) return {i64{value.as<bool>()}};
  std::optional<double> real;
  if (value.is<double>()) real = value.as<double>();
  if (value.is<Text>()) {
    if (const auto integer = parse_number<i64>(value.text())) return {*integer};
    real = parse_number<double>(value.text());
  }
  if (real && std::abs(*real) < 0x1p62) return {static_cast<i64>(*real)};
  if (real) runtime.refuse("a number of more than 62 bits as an integer");
  return otherwise.is<Undefined>() ? Value{i64{0}} : otherwise;
}

Value to_real(const Value& value, const Value& otherwise) {
  if (is_number(value)) return {number_of(value)};
  if (value.is<Text>())
    if (const auto real = parse_number<double>(value.text())) return {*real};
  return otherwise.is<Undefined>() ? Value{0.0} : otherwise;
}

// ---- Collections

Value length(Runtime& runtime, const Value& value) {
  size_t count = 0;
  if (value.is<Text>())
    runtime.charge(value.text().size()), count = length_of(value.text());
  else if (value.is<List>())
    count = value.as<List>()->items.size();
  else if (value.is<Dict>())
    count = value.as<Dict>()->fields.size();
  else if (!value.is<Undefined>())
    runtime.refuse(fmt::format("{} has no length", kind_of(value)));
  return {static_cast<i64>(count)};
}

Value pairs(Runtime& runtime, const Value& value) {
  if (value.is<Undefined>()) return make_list(runtime, {});
  if (!value.is<Dict>()) runtime.refuse(fmt::format("the items of {}, expected a dictionary", kind_of(value)));
  Items items;
  for (const auto& [key, field] : value.as<Dict>()->fields)
    items.push_back(make_list(runtime, {make_text(runtime, key), field}));
  return make_list(runtime, std::move(items));
}

// The attribute `path` of an item: "function.name" goes two levels down.
Value attribute_of(Runtime& runtime, const Value& item, const Value& path) {
  std::string_view rest = text_argument(runtime, path);
  Value value = item;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find('.'), rest.size());
    const Value* field = value.is<Dict>() ? value.as<Dict>()->find(rest.substr(0, end)) : nullptr;
    value = field ? *field : Value{};
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return value;
}

Value joined(Runtime& runtime, const Value& items, std::string_view separator, const Value& attribute) {
  std::string out;
  std::string_view between;
  for (const Value& item : items_of(runtime, items)) {
    const std::string text = to_text(runtime, given(attribute) ? attribute_of(runtime, item, attribute) : item);
    runtime.charge(between.size() + text.size());
    out.append(between).append(text);
    between = separator;
  }
  return make_text(runtime, std::move(out));
}

// select, reject, selectattr, rejectattr: the items that pass a test, or whose attribute does, or that do not.
Value selected(Runtime& runtime, const Value& value, const Value* attribute, std::span<const Value> test, bool wanted) {
  Items out;
  for (const Value& item : items_of(runtime, value)) {
    const Value tested = attribute ? attribute_of(runtime, item, *attribute) : item;
    bool passes = is_true(tested);
    if (given(test[0])) {
      Arguments arguments;
      if (!test[1].is<Undefined>()) arguments.positional.push_back(test[1]);
      passes = apply_test(runtime, text_argument(runtime, test[0]), tested, std::move(arguments));
    }
    if (passes == wanted) out.push_back(item);
  }
  return make_list(runtime, std::move(out));
}

Value mapped(Runtime& runtime, const Value& value, std::span<const Value> arguments) {
  Items out;
  for (const Value& item : items_of(runtime, value)) {
    if (given(arguments[1])) {
      const Value found = attribute_of(runtime, item, arguments[1]);
      out.push_back(found.is<Undefined>() ? arguments[2] : found);
    } else {
      out.push_back(apply_filter(runtime, text_argument(runtime, arguments[0]), item, {}));
    }
  }
  return make_list(runtime, std::move(out));
}

Value reversed(Runtime& runtime, const Value& value) {
  Items items = items_of(runtime, value);
  std::reverse(items.begin(), items.end());
  return value.is<Text>() ? joined(runtime, make_list(runtime, std::move(items)), "", {})
                          : make_list(runtime, std::move(items));
}

Value end_of(Runtime& runtime, const Value& value, bool first) {
  const Items items = items_of(runtime, value);
  if (items.empty()) return {};
  return first ? items.front() : items.back();
}

Value unique(Runtime& runtime, const Value& value) {
  Items out;
  for (const Value& item : items_of(runtime, value)) {
    runtime.charge(out.size());
    if (std::none_of(out.begin(), out.end(), [&](const Value& other) { return equal(runtime, item, other); }))
      out.push_back(item);
  }
  return make_list(runtime, std::move(out));
}

Value as_json(Runtime& runtime, const Value& value, std::span<const Value> arguments) {
  if (is_true(arguments[0])) runtime.refuse("tojson with ensure_ascii is not supported");
  JsonStyle style;
  style.indent = static_cast<int>(std::clamp<i64>(integer_argument(runtime, arguments[1], -1), -1, 16));
  if (style.indent >= 0) style.item_separator = ",";
  if (given(arguments[2])) {
    const Items separators = items_of(runtime, arguments[2]);
    if (separators.size() != 2) runtime.refuse("tojson: separators must be two texts");
    style.item_separator = text_argument(runtime, separators[0]);
    style.key_separator = text_argument(runtime, separators[1]);
  }
  style.sort_keys = is_true(arguments[3]);
  return make_text(runtime, to_json(runtime, value, style));
}

Value indented(Runtime& runtime, std::string_view text, std::span<const Value> arguments) {
  const std::string space =
      arguments[0].is<Text>()
          ? std::string(arguments[0].text())
          : std::string(static_cast<size_t>(std::clamp<i64>(integer_argument(runtime, arguments[0], 4), 0, 100)), ' ');
  const bool first = is_true(arguments[1]), blank = is_true(arguments[2]);
  std::string out;
  for (bool begin = true;; begin = false) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    runtime.charge(line.size() + space.size() + 1);
    if (begin ? first : blank || !line.empty()) out += space;
    out += line;
    if (end == text.size()) break;
    out += '\n';
    text.remove_prefix(end + 1);
  }
  return make_text(runtime, std::move(out));
}

// Words begin behind spaces, hyphens and opening brackets for the filter, and behind all but letters for the method.
Value titled(Runtime& runtime, std::string_view text, bool filter) {
  return changed_case(runtime, text, [filter](std::string_view t, size_t i) {
    constexpr std::string_view breaks = "- \t\n\v\f\r({[<";
    const bool begins = i == 0 || (filter ? breaks.find(t[i - 1]) != breaks.npos : !is_letter(t[i - 1]));
    return begins ? upper(t[i]) : lower(t[i]);
  });
}

using Arg = std::span<const Value>;
using V = const Value&;
using R = Runtime&;

const std::vector<Filter>& filters() {
  static const std::vector<Filter> list{
      {"trim", {"chars"}, [](R r, V v, Arg a) { return stripped(r, to_text(r, v), a[0], left | right); }},
      {"tojson", {"ensure_ascii", "indent", "separators", "sort_keys"}, as_json},
      {"length", {}, [](R r, V v, Arg) { return length(r, v); }},
      {"count", {}, [](R r, V v, Arg) { return length(r, v); }},
      {"join", {"d", "attribute"}, [](R r, V v, Arg a) { return joined(r, v, to_text(r, a[0]), a[1]); }},
      {"upper", {}, [](R r, V v, Arg) { return upper_text(r, to_text(r, v)); }},
      {"lower", {}, [](R r, V v, Arg) { return lower_text(r, to_text(r, v)); }},
      {"title", {}, [](R r, V v, Arg) { return titled(r, to_text(r, v), true); }},
      {"capitalize", {}, [](R r, V v, Arg) { return capitalized_text(r, to_text(r, v)); }},
      {"replace", {"old", "new", "count"}, [](R r, V v, Arg a) { return replaced(r, to_text(r, v), a); }},
      {"default",
       {"default_value", "boolean"},
       [](R r, V v, Arg a) {
         const bool absent = v.is<Undefined>() || (is_true(a[1]) && !is_true(v));
         return !absent ? v : a[0].is<Undefined>() ? make_text(r, "") : a[0];
       }},
      {"selectattr",
       {"attribute", "test", "value"},
       [](R r, V v, Arg a) { return selected(r, v, &a[0], a.subspan(1), true); }},
      {"rejectattr",
       {"attribute", "test", "value"},
       [](R r, V v, Arg a) { return selected(r, v, &a[0], a.subspan(1), false); }},
      {"select", {"test", "value"}, [](R r, V v, Arg a) { return selected(r, v, nullptr, a, true); }},
      {"reject", {"test", "value"}, [](R r, V v, Arg a) { return selected(r, v, nullptr, a, false); }},
      {"map", {"filter", "attribute", "default"}, mapped},
      {"list", {}, [](R r, V v, Arg) { return make_list(r, items_of(r, v)); }},
      {"first", {}, [](R r, V v, Arg) { return end_of(r, v, true); }},
      {"last", {}, [](R r, V v, Arg) { return end_of(r, v, false); }},
      {"reverse", {}, [](R r, V v, Arg) { return reversed(r, v); }},
      {"unique", {}, [](R r, V v, Arg) { return unique(r, v); }},
      {"items", {}, [](R r, V v, Arg) { return pairs(r, v); }},
      {"int", {"default"}, [](R r, V v, Arg a) { return to_integer(r, v, a[0]); }},
      {"float", {"default"}, [](R, V v, Arg a) { return to_real(v, a[0]); }},
      {"string", {}, [](R r, V v, Arg) { return make_text(r, to_text(r, v)); }},
      {"safe", {}, [](R, V v, Arg) { return v; }},
      {"indent", {"width", "first", "blank"}, [](R r, V v, Arg a) { return indented(r, to_text(r, v), a); }},
      {"abs",
       {},
       [](R r, V v, Arg) {
         if (!is_number(v)) r.refuse(fmt::format("abs of {}", kind_of(v)));
         return number_of(v) < 0 ? arithmetic(r, "-", {i64{0}}, v) : v;
       }},
  };
  return list;
}

template <int Remainder>
bool has_remainder(R r, V v, Arg) {
  if (!v.is<i64>()) r.refuse(fmt::format("found {}, expected an integer", kind_of(v)));
  return (v.as<i64>() & 1) == Remainder;
}
// Tests that compare with one value, under each of their names.
template <const std::string_view& Op>
bool compares(R r, V v, Arg a) {
  return compare(r, Op, v, a[0]);
}
constexpr std::string_view op_eq = "==", op_ne = "!=", op_lt = "<", op_le = "<=", op_gt = ">",
                           op_ge = ">=", op_in = "in";

const std::vector<Test>& tests() {
  static const std::vector<Test> list{
      {"defined", {}, [](R, V v, Arg) { return !v.is<Undefined>(); }},
      {"undefined", {}, [](R, V v, Arg) { return v.is<Undefined>(); }},
      {"none", {}, [](R, V v, Arg) { return v.is<None>(); }},
      {"string", {}, [](R, V v, Arg) { return v.is<Text>(); }},
      {"mapping", {}, [](R, V v, Arg) { return v.is<Dict>(); }},
      {"iterable", {}, [](R, V v, Arg) { return v.is<Text>() || v.is<List>() || v.is<Dict>() || v.is<Undefined>(); }},
      {"sequence", {}, [](R, V v, Arg) { return v.is<Text>() || v.is<List>() || v.is<Dict>() || v.is<Undefined>(); }},
      {"number", {}, [](R, V v, Arg) { return is_number(v); }},
      {"integer", {}, [](R, V v, Arg) { return v.is<i64>(); }},
      {"float", {}, [](R, V v, Arg) { return v.is<double>(); }},
      {"boolean", {}, [](R, V v, Arg) { return v.is<bool>(); }},
      {"true", {}, [](R, V v, Arg) { return v.is<bool>() && v.as<bool>(); }},
      {"false", {}, [](R, V v, Arg) { return v.is<bool>() && !v.as<bool>(); }},
      {"callable", {}, [](R, V v, Arg) { return v.is<Macro>() || v.is<Builtin>(); }},
      {"odd", {}, has_remainder<1>},
      {"even", {}, has_remainder<0>},
      {"divisibleby", {"num"}, [](R r, V v, Arg a) { return number_of(arithmetic(r, "%", v, a[0])) == 0; }},
      {"equalto", {"other"}, compares<op_eq>},
      {"eq", {"other"}, compares<op_eq>},
      {"==", {"other"}, compares<op_eq>},
      {"ne", {"other"}, compares<op_ne>},
      {"!=", {"other"}, compares<op_ne>},
      {"lt", {"other"}, compares<op_lt>},
      {"lessthan", {"other"}, compares<op_lt>},
      {"<", {"other"}, compares<op_lt>},
      {"le", {"other"}, compares<op_le>},
      {"<=", {"other"}, compares<op_le>},
      {"gt", {"other"}, compares<op_gt>},
      {"greaterthan", {"other"}, compares<op_gt>},
      {">", {"other"}, compares<op_gt>},
      {"ge", {"other"}, compares<op_ge>},
      {">=", {"other"}, compares<op_ge>},
      {"in", {"seq"}, compares<op_in>},
  };
  return list;
}

const std::vector<Filter>& text_methods() {
  static const std::vector<Filter> list{
      {"strip", {"chars"}, [](R r, V v, Arg a) { return stripped(r, v.text(), a[0], left | right); }},
      {"lstrip", {"chars"}, [](R r, V v, Arg a) { return stripped(r, v.text(), a[0], left); }},
      {"rstrip", {"chars"}, [](R r, V v, Arg a) { return stripped(r, v.text(), a[0], right); }},
      {"split", {"sep", "maxsplit"}, [](R r, V v, Arg a) { return split(r, v.text(), a, false); }},
      {"rsplit", {"sep", "maxsplit"}, [](R r, V v, Arg a) { return split(r, v.text(), a, true); }},
      {"splitlines", {}, [](R r, V v, Arg) { return split_lines(r, v.text()); }},
      {"startswith", {"prefix"}, [](R r, V v, Arg a) { return Value{begins_or_ends(r, v.text(), a[0], true)}; }},
      {"endswith", {"suffix"}, [](R r, V v, Arg a) { return Value{begins_or_ends(r, v.text(), a[0], false)}; }},
      {"upper", {}, [](R r, V v, Arg) { return upper_text(r, v.text()); }},
      {"lower", {}, [](R r, V v, Arg) { return lower_text(r, v.text()); }},
      {"title", {}, [](R r, V v, Arg) { return titled(r, v.text(), false); }},
      {"capitalize", {}, [](R r, V v, Arg) { return capitalized_text(r, v.text()); }},
      {"replace", {"old", "new", "count"}, [](R r, V v, Arg a) { return replaced(r, v.text(), a); }},
      {"join", {"iterable"}, [](R r, V v, Arg a) { return joined(r, a[0], v.text(), {}); }},
      {"find", {"sub"}, [](R r, V v, Arg a) { return found_at(v.text(), v.text().find(text_argument(r, a[0]))); }},
      {"rfind", {"sub"}, [](R r, V v, Arg a) { return found_at(v.text(), v.text().rfind(text_argument(r, a[0]))); }},
      {"removeprefix",
       {"prefix"},
       [](R r, V v, Arg a) {
         const std::string_view text = v.text(), prefix = text_argument(r, a[0]);
         return make_text(r, std::string(text.starts_with(prefix) ? text.substr(prefix.size()) : text));
       }},
      {"removesuffix",
       {"suffix"},
       [](R r, V v, Arg a) {
         const std::string_view text = v.text(), suffix = text_argument(r, a[0]);
         return make_text(r, std::string(text.ends_with(suffix) ? text.substr(0, text.size() - suffix.size()) : text));
       }},
      {"isdigit",
       {},
       [](R r, V v, Arg) {
         const std::string_view text = v.text();
         require_ascii(r, text);
         return Value{!text.empty() && text.find_first_not_of("0123456789") == text.npos};
       }},
  };
  return list;
}

const std::vector<Filter>& dict_methods() {
  static const std::vector<Filter> list{
      {"items", {}, [](R r, V v, Arg) { return pairs(r, v); }},
      {"keys", {}, [](R r, V v, Arg) { return make_list(r, items_of(r, v)); }},
      {"values",
       {},
       [](R r, V v, Arg) {
         Items items;
         for (const auto& [key, field] : v.as<Dict>()->fields) items.push_back(field);
         return make_list(r, std::move(items));
       }},
      {"get",
       {"key", "default"},
       [](R r, V v, Arg a) {
         const Value* field = v.as<Dict>()->find(text_argument(r, a[0]));
         return field ? *field : a[1].is<Undefined>() ? Value{None{}} : a[1];
       }},
  };
  return list;
}

// Methods that Python's dictionaries have beside those: a field of that name is not what Jinja would find.
constexpr std::string_view refused_methods[] = {"clear", "copy", "fromkeys", "pop", "popitem", "setdefault", "update"};

Value range(Runtime& runtime, const Value&, std::span<const Value> arguments) {
  i64 begin = integer_argument(runtime, arguments[0], 0), end = 0;
  const i64 step = integer_argument(runtime, arguments[2], 1);
  if (given(arguments[1]))
    end = integer_argument(runtime, arguments[1], 0);
  else
    end = std::exchange(begin, 0);
  if (step == 0) runtime.refuse("range() with step 0");
  Items items;
  for (i64 i = begin; step > 0 ? i < end : i > end;) {
    runtime.charge(8);
    items.push_back({i});
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return make_list(runtime, std::move(items));
}

Value formatted_now(Runtime& runtime, const Value&, std::span<const Value> arguments) {
  const std::string format(text_argument(runtime, arguments[0]));
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  std::string out(256 + 8 * std::min<size_t>(format.size(), 1024), '\0');
  out.resize(std::strftime(out.data(), out.size(), format.c_str(), &local));
  return make_text(runtime, std::move(out));
}

}  // namespace

Value apply_filter(Runtime& runtime, std::string_view name, const Value& value, Arguments arguments) {
  const Filter* filter = find(filters(), name == "d" ? "default" : name);
  if (!filter)
    fail_unknown("filter", printable(name), filter_names(), fmt::format("{}: line {}", runtime.where, runtime.line));
  return apply(runtime, *filter, value, std::move(arguments));
}

bool apply_test(Runtime& runtime, std::string_view name, const Value& value, Arguments arguments) {
  const Test* test = find(tests(), name);
  if (!test)
    fail_unknown("test", printable(name), test_names(), fmt::format("{}: line {}", runtime.where, runtime.line));
  return apply(runtime, *test, value, std::move(arguments));
}

bool has_method(const Value& value, std::string_view name) {
  if (value.is<Text>()) return find(text_methods(), name);
  if (!value.is<Dict>()) return false;
  return find(dict_methods(), name) ||
         std::find(std::begin(refused_methods), std::end(refused_methods), name) != std::end(refused_methods);
}

Value apply_method(Runtime& runtime, std::string_view name, const Value& value, Arguments arguments) {
  const Filter* method = value.is<Text>()   ? find(text_methods(), name)
                         : value.is<Dict>() ? find(dict_methods(), name)
                                            : nullptr;
  if (!method) runtime.refuse(fmt::format("the method {}() of {} is not supported", printable(name), kind_of(value)));
  return apply(runtime, *method, value, std::move(arguments));
}

Value apply_function(Runtime& runtime, std::string_view name, Arguments arguments) {
  if (name == "raise_exception") {
    const Filter raise{name, {"message"}, [](R r, V, Arg a) -> Value { r.refuse(to_text(r, a[0])); }};
    return apply(runtime, raise, {}, std::move(arguments));
  }
  if (name == "range") return apply(runtime, Filter{name, {"begin", "end", "step"}, range}, {}, std::move(arguments));
  if (name == "strftime_now") return apply(runtime, Filter{name, {"format"}, formatted_now}, {}, std::move(arguments));
  if (!arguments.positional.empty()) runtime.refuse(fmt::format("{}() takes named arguments only", name));
  if (name == "dict") return make_dict(runtime, std::move(arguments.named));
  check(name == "namespace", "no function {}", name);
  for (const auto& [key, value] : arguments.named) check_member(runtime, value);
  return {std::make_shared<NamespaceData>(NamespaceData{std::move(arguments.named)})};
}

std::vector<std::string> filter_names() {
  auto names = names_of(filters());
  names.emplace_back("d");
  return names;
}
std::vector<std::string> test_names() { return names_of(tests()); }
std::vector<std::string> method_names() {
  auto names = names_of(text_methods());
  for (std::string& name : names_of(dict_methods())) names.push_back(std::move(name));
  return names;
}
const std::vector<std::string_view>& function_names() {
  static const std::vector<std::string_view> names{"raise_exception", "range", "strftime_now", "dict", "namespace"};
  return names;
}

}  // namespace sparsam::jinja
