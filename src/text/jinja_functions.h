// The filters, tests, methods and functions that templates may use: one list each, which also refuses all others.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/jinja_value.h"

namespace sparsam::jinja {

// Arguments as they stand in the template.
struct Arguments {
  Items positional;
  Fields named;
};

Value apply_filter(Runtime& runtime, std::string_view name, const Value& value, Arguments arguments);
bool apply_test(Runtime& runtime, std::string_view name, const Value& value, Arguments arguments);
// Methods of texts and dictionaries. has_method(): whether Python has one of the name for this value.
bool has_method(const Value& value, std::string_view name);
Value apply_method(Runtime& runtime, std::string_view name, const Value& value, Arguments arguments);
Value apply_function(Runtime& runtime, std::string_view name, Arguments arguments);

// Texts: 'a' + 'b', 2 * 3. `op` as in Node::arithmetic.
Value arithmetic(Runtime& runtime, std::string_view op, const Value& a, const Value& b);
bool compare(Runtime& runtime, std::string_view op, const Value& a, const Value& b);  // == != < <= > >= in, not in

std::vector<std::string> filter_names();
std::vector<std::string> test_names();
std::vector<std::string> method_names();
const std::vector<std::string_view>& function_names();

}  // namespace sparsam::jinja
