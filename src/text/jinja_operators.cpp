// Arithmetic and comparisons, as Python does them.
#include <algorithm>
#include <cmath>

#include "text/jinja_functions.h"

namespace sparsam::jinja {

namespace {

[[noreturn]] void refuse_operands(Runtime& runtime, std::string_view op, const Value& a, const Value& b) {
  runtime.refuse(fmt::format("{} {} {} is not supported", kind_of(a), op, kind_of(b)));
}

// Division rounds down, and the remainder has the sign of the divisor.
i64 floored_division(i64 a, i64 b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }

i64 integer_of(const Value& value) { return value.is<bool>() ? value.as<bool>() : value.as<i64>(); }

Value integer_arithmetic(Runtime& runtime, std::string_view op, i64 a, i64 b) {
  i64 result = 0;
  bool overflows = false;
  if (op == "+") {
    overflows = __builtin_add_overflow(a, b, &result);
  } else if (op == "-") {
    overflows = __builtin_sub_overflow(a, b, &result);
  } else if (op == "*") {
    overflows = __builtin_mul_overflow(a, b, &result);
  } else if (op == "**") {
    if (b < 0) return {std::pow(static_cast<double>(a), static_cast<double>(b))};
    runtime.charge(static_cast<size_t>(b));
    result = 1;
    for (i64 i = 0; i < b && !overflows; ++i) overflows = __builtin_mul_overflow(result, a, &result);
  } else {
    if (b == 0) runtime.refuse("division by zero");
    overflows = a == std::numeric_limits<i64>::min() && b == -1;
    if (!overflows) result = op == "//" ? floored_division(a, b) : a - floored_division(a, b) * b;
  }
  if (overflows) runtime.refuse("an integer of more than 63 bits");
  return {result};
}

Value real_arithmetic(Runtime& runtime, std::string_view op, double a, double b) {
  if (op == "+") return {a + b};
  if (op == "-") return {a - b};
  if (op == "*") return {a * b};
  if (op == "**") return {std::pow(a, b)};
  if (b == 0) runtime.refuse("division by zero");
  if (op == "/") return {a / b};
  if (op == "//") return {std::floor(a / b)};
  return {a - std::floor(a / b) * b};
}

Value repeated(Runtime& runtime, const Value& text, i64 count) {
  std::string out;
  const size_t size = text.text().size();
  for (i64 i = 0; i < count; ++i) {
    runtime.charge(size + 1);
    out += text.text();
  }
  return make_text(runtime, std::move(out));
}

bool contains(Runtime& runtime, const Value& whole, const Value& part) {
  if (whole.is<Text>()) {
    if (!part.is<Text>()) refuse_operands(runtime, "in", part, whole);
    runtime.charge(whole.text().size());
    return whole.text().find(part.text()) != std::string_view::npos;
  }
  if (whole.is<Dict>()) return part.is<Text>() && whole.as<Dict>()->find(part.text());
  const Items items = items_of(runtime, whole);
  return std::any_of(items.begin(), items.end(), [&](const Value& item) { return equal(runtime, item, part); });
}

// -1, 0, 1 as a is before, equal to or behind b; lists by their first difference.
int order_of(Runtime& runtime, std::string_view op, const Value& a, const Value& b) {
  if (is_number(a) && is_number(b)) {
    if (a.is<i64>() && b.is<i64>()) return a.as<i64>() < b.as<i64>() ? -1 : a.as<i64>() > b.as<i64>();
    return number_of(a) < number_of(b) ? -1 : number_of(a) > number_of(b);
  }
  if (a.is<Text>() && b.is<Text>()) runtime.charge(std::min(a.text().size(), b.text().size()) / 16);
  if (a.is<Text>() && b.is<Text>()) return a.text() < b.text() ? -1 : a.text() > b.text();
  refuse_operands(runtime, op, a, b);
}

}  // namespace

Value arithmetic(Runtime& runtime, std::string_view op, const Value& a, const Value& b) {
  if (op == "~" || (op == "+" && a.is<Text>() && b.is<Text>())) {
    std::string left = to_text(runtime, a);
    return make_text(runtime, left.append(to_text(runtime, b)));
  }
  if (op == "+" && a.is<List>() && b.is<List>()) {
    Items items = items_of(runtime, a);
    const Items& more = b.as<List>()->items;
    items.insert(items.end(), more.begin(), more.end());
    return make_list(runtime, std::move(items));
  }
  if (op == "*" && a.is<Text>() && b.is<i64>()) return repeated(runtime, a, b.as<i64>());
  if (!is_number(a) || !is_number(b)) refuse_operands(runtime, op, a, b);
  if (a.is<double>() || b.is<double>() || op == "/") return real_arithmetic(runtime, op, number_of(a), number_of(b));
  return integer_arithmetic(runtime, op, integer_of(a), integer_of(b));
}

bool compare(Runtime& runtime, std::string_view op, const Value& a, const Value& b) {
  runtime.charge(1);
  if (op == "==") return equal(runtime, a, b);
  if (op == "!=") return !equal(runtime, a, b);
  if (op == "in") return contains(runtime, b, a);
  if (op == "not in") return !contains(runtime, b, a);
  const int order = order_of(runtime, op, a, b);
  if (op == "<") return order < 0;
  if (op == "<=") return order <= 0;
  return op == ">" ? order > 0 : order >= 0;
}

}  // namespace sparsam::jinja
