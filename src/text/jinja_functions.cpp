#include "text/jinja_functions.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <ctime>
#include <optional>

#include "text/jinja_texts.h"

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

using Arg = std::span<const Value>;
using V = const Value&;
using R = Runtime&;

const std::vector<Filter>& filters() {
  static const std::vector<Filter> list{
      {"trim", {"chars"}, [](R r, V v, Arg a) { return stripped(r, to_text(r, v), a[0], strip_both); }},
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
      {"strip", {"chars"}, [](R r, V v, Arg a) { return stripped(r, v.text(), a[0], strip_both); }},
      {"lstrip", {"chars"}, [](R r, V v, Arg a) { return stripped(r, v.text(), a[0], strip_begin); }},
      {"rstrip", {"chars"}, [](R r, V v, Arg a) { return stripped(r, v.text(), a[0], strip_end); }},
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
