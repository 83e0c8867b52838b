#include "formats/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace sparsam {

namespace {

// Receives the parser's events and builds the value. The library's own builder looks every key up among those before
// it, which takes minutes on the vocabulary of a tokenizer; this one appends, and looks for duplicates once per object.
class Builder : public nlohmann::json_sax<Json> {
 public:
  Builder(std::string_view text, std::string_view where) : text_(text), where_(where) {}
  Json result() { return std::move(root_); }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t& value) override { return add(std::move(value)); }
  bool start_object(size_t) override { return open(Json::object()); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool key(string_t& name) override {
    keys_.back() = std::move(name);
    return true;
  }
  bool end_object() override {
    refuse_duplicates(open_.back());
    return close();
  }
  bool end_array() override { return close(); }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    // "[json.exception.parse_error.101] parse error at line 1, column 5: syntax error ...": keep what follows the
    // place.
    std::string_view reason = error.what();
    if (const size_t begin = reason.find(": "); begin != reason.npos) reason.remove_prefix(begin + 2);
    const std::string_view before = text_.substr(0, position > 0 ? position - 1 : 0);
    const auto line = 1 + std::count(before.begin(), before.end(), '\n');
    const size_t column = before.size() - (before.rfind('\n') + 1) + 1;  // npos + 1 is 0: the first line
    fail("{}: line {}, column {}: {}", where_, line, column, reason.substr(0, 300));
  }

 private:
  bool open(Json container) {
    if (open_.size() >= json_depth)
      fail("{}: arrays and objects stand more than {} levels within each other", where_, json_depth);
    open_.push_back(std::move(container));
    keys_.emplace_back();
    return true;
  }
  bool close() {
    Json done = std::move(open_.back());
    open_.pop_back();
    keys_.pop_back();
    return add(std::move(done));
  }
  bool add(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
    } else if (open_.back().is_array()) {
      open_.back().push_back(std::move(value));
    } else {
      Json::object_t::Container& fields = open_.back().get_ref<Json::object_t&>();  // the vector within ordered_map
      fields.emplace_back(std::move(keys_.back()), std::move(value));
    }
    return true;
  }
  void refuse_duplicates(const Json& object) const {
    std::vector<std::string_view> names;
    names.reserve(object.size());
    for (const auto& [name, value] : object.get_ref<const Json::object_t&>()) names.push_back(name);
    std::sort(names.begin(), names.end());
    const auto twice = std::adjacent_find(names.begin(), names.end());
    if (twice != names.end()) fail("{}: the key '{}' stands twice in one object", where_, printable(*twice));
  }

  std::string_view text_, where_;
  Json root_;
  std::vector<Json> open_;         // the containers that are not closed yet, the outermost first
  std::vector<std::string> keys_;  // for each the key whose value comes next
};

std::string shown(const Json& value) {
  if (value.is_object()) return fmt::format("an object of {} fields", value.size());
  if (value.is_array()) return fmt::format("an array of {} values", value.size());
  if (value.is_string()) return fmt::format("the string '{}'", printable(value.get_ref<const std::string&>()));
  return value.dump();
}

}  // namespace

Json parse_json(std::string_view text, std::string_view where) {
  Builder builder(text, where);
  Json::sax_parse(text.begin(), text.end(), &builder);
  return builder.result();
}

std::string format_json(const Json& value, std::string_view where, int indent) {
  try {
    return value.dump(indent);
  } catch (const nlohmann::json::type_error& error) {
    fail("{}: cannot write as JSON: {}", where, error.what());
  }
}

std::string printable(std::string_view text) {
  constexpr size_t most = 120;
  std::string out;
  for (const char c : text.substr(0, most)) {
    if (c >= ' ' && c <= '~')
      out += c;
    else
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  }
  if (text.size() > most) out += fmt::format("... ({} bytes)", text.size());
  return out;
}

Fields::Fields(const Json& object, std::string where) : json_(object), where_(std::move(where)) {
  if (!object.is_object()) fail("{}: found {}, expected an object", where_, shown(object));
}

const Json* Fields::find(std::string_view name) {
  known_.emplace_back(name);
  const auto found = json_.find(name);
  return found == json_.end() || found->is_null() ? nullptr : &*found;
}

Fields Fields::object(std::string_view name) {
  const Json* value = find(name);
  if (!value) fail_missing(name);
  return Fields(*value, fmt::format("{}: {}", where_, name));
}

void Fields::finish() const {
  std::string text;
  for (const auto& [name, value] : json_.get_ref<const Json::object_t&>()) {
    if (std::find(known_.begin(), known_.end(), name) != known_.end()) continue;
    text += fmt::format("{}unknown field '{}'", text.empty() ? "" : ", ", printable(name));
    const auto near = close_matches(name, known_);
    if (!near.empty()) text += fmt::format(" (did you mean {}?)", fmt::join(near, " or "));
  }
  if (!text.empty()) fail("{}: {}. Known: {}", where_, text, fmt::join(known_, ", "));
}

void Fields::fail_value(std::string_view name, const Json& found, std::string_view expected) const {
  fail("{}: field '{}': found {}, expected {}", where_, name, shown(found), expected);
}

void Fields::fail_missing(std::string_view name) const { fail("{}: the field '{}' is missing", where_, name); }

bool Fields::boolean(const Json& value, std::string_view name) const {
  if (!value.is_boolean()) fail_value(name, value, "true or false");
  return value.get<bool>();
}

i64 Fields::integer(const Json& value, std::string_view name, i64 least, i64 most) const {
  const bool fits = value.is_number_integer() &&
                    !(value.is_number_unsigned() && value.get<u64>() > u64{std::numeric_limits<i64>::max()});
  if (!fits || value.get<i64>() < least || value.get<i64>() > most)
    fail_value(name, value, fmt::format("an integer from {} to {}", least, most));
  return value.get<i64>();
}

double Fields::real(const Json& value, std::string_view name, double least, double most) const {
  if (!value.is_number() || value.get<double>() < least || value.get<double>() > most)
    fail_value(name, value, fmt::format("a number from {} to {}", least, most));
  return value.get<double>();
}

std::string Fields::string(const Json& value, std::string_view name) const {
  if (!value.is_string()) fail_value(name, value, "a string");
  return value.get<std::string>();
}

const Json& Fields::array(const Json& value, std::string_view name) const {
  if (!value.is_array()) fail_value(name, value, "an array");
  return value;
}

}  // namespace sparsam
