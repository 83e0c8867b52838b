#include "text/jinja_value.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace sparsam::jinja {

const Value* find_field(const Fields& fields, std::string_view key) {
  const auto found = std::find_if(fields.begin(), fields.end(), [&](const auto& field) { return field.first == key; });
  return found == fields.end() ? nullptr : &found->second;
}

void set_field(Fields& fields, std::string_view key, Value value) {
  const auto found = std::find_if(fields.begin(), fields.end(), [&](const auto& field) { return field.first == key; });
  if (found == fields.end())
    fields.emplace_back(key, std::move(value));
  else
    found->second = std::move(value);
}

const Value* DictData::find(std::string_view key) const { return find_field(fields, key); }

namespace {

constexpr size_t value_cost = 8;  // of a value beside its text, in the units of Runtime::work

int depth_of(const Value& value) {
  if (value.is<List>()) return value.as<List>()->depth;
  if (value.is<Dict>()) return value.as<Dict>()->depth;
  return 0;
}

int depth_with(const Runtime& runtime, int depth, const Value& member) {
  check_member(runtime, member);
  const int deeper = std::max(depth, depth_of(member) + 1);
  if (deeper > most_value_depth)
    runtime.refuse(fmt::format("lists and dictionaries stand more than {} levels within each other", most_value_depth));
  return deeper;
}

// Python's repr() of a float: the shortest digits that give it back, with a point or an exponent.
std::string real_text(double value) {
  std::string text = fmt::format("{}", value);
  if (text.find_first_not_of("-0123456789") == text.npos) text += ".0";
  return text;
}

// Python's repr() of a text: in single quotes unless only those stand in it.
void append_quoted(std::string& out, std::string_view text) {
  const bool has_single = text.find('\'') != text.npos, has_double = text.find('"') != text.npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  out += quote;
  for (const char c : text) {
    if (c == quote || c == '\\')
      out.append({'\\', c});
    else if (c == '\n')
      out += "\\n";
    else if (c == '\r')
      out += "\\r";
    else if (c == '\t')
      out += "\\t";
    else if (static_cast<u8>(c) < 0x20 || c == 0x7f)
      out += fmt::format("\\x{:02x}", static_cast<u8>(c));
    else
      out += c;
  }
  out += quote;
}

void append_shown(std::string& out, Runtime& runtime, const Value& value) {
  runtime.charge(1);
  if (value.is<Text>()) {
    runtime.charge(value.text().size());
    append_quoted(out, value.text());
  } else if (value.is<List>()) {
    out += '[';
    const char* separator = "";
    for (const Value& item : value.as<List>()->items) {
      out += std::exchange(separator, ", ");
      append_shown(out, runtime, item);
    }
    out += ']';
  } else if (value.is<Dict>()) {
    out += '{';
    const char* separator = "";
    for (const auto& [key, item] : value.as<Dict>()->fields) {
      out += std::exchange(separator, ", ");
      append_quoted(out, key);
      out += ": ";
      append_shown(out, runtime, item);
    }
    out += '}';
  } else {
    out += to_text(runtime, value);
  }
}

void append_json_text(std::string& out, std::string_view text) {
  out += '"';
  for (const char c : text) {
    constexpr std::string_view special = "\"\\\n\r\t\b\f", names = "\"\\nrtbf";
    if (const size_t at = special.find(c); at != special.npos)
      out.append({'\\', names[at]});
    else if (static_cast<u8>(c) < 0x20)
      out += fmt::format("\\u{:04x}", static_cast<u8>(c));
    else
      out += c;
  }
  out += '"';
}

class JsonWriter {
 public:
  JsonWriter(Runtime& runtime, const JsonStyle& style) : runtime_(runtime), style_(style) {}
  std::string result;

  void write(const Value& value, int level) {
    runtime_.charge(1 + static_cast<size_t>(std::max(style_.indent, 0) * level));
    if (value.is<None>()) {
      result += "null";
    } else if (value.is<bool>()) {
      result += value.as<bool>() ? "true" : "false";
    } else if (value.is<i64>()) {
      result += fmt::format("{}", value.as<i64>());
    } else if (value.is<double>()) {
      const double number = value.as<double>();
      result += std::isfinite(number) ? real_text(number)
                : std::isnan(number)  ? "NaN"
                : number > 0          ? "Infinity"
                                      : "-Infinity";
    } else if (value.is<Text>()) {
      runtime_.charge(value.text().size());
      append_json_text(result, value.text());
    } else if (value.is<List>()) {
      const Items& items = value.as<List>()->items;
      container('[', ']', items.size(), level, [&](size_t i) { write(items[i], level + 1); });
    } else if (value.is<Dict>()) {
      const Fields& fields = value.as<Dict>()->fields;
      std::vector<size_t> order(fields.size());
      std::iota(order.begin(), order.end(), size_t{0});
      if (style_.sort_keys)
        std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return fields[a].first < fields[b].first; });
      container('{', '}', fields.size(), level, [&](size_t i) {
        const auto& [key, field] = fields[order[i]];
        append_json_text(result, key);
        result += style_.key_separator;
        write(field, level + 1);
      });
    } else {
      runtime_.refuse(fmt::format("{} cannot be written as JSON", kind_of(value)));
    }
  }

 private:
  void container(char open, char close, size_t count, int level, const auto& write_item) {
    result += open;
    for (size_t i = 0; i < count; ++i) {
      if (i > 0) result += style_.item_separator;
      new_line(level + 1);
      write_item(i);
    }
    if (count > 0) new_line(level);
    result += close;
  }
  void new_line(int level) {
    if (style_.indent >= 0) result.append("\n").append(static_cast<size_t>(style_.indent * level), ' ');
  }

  Runtime& runtime_;
  const JsonStyle& style_;
};

}  // namespace

void check_member(const Runtime& runtime, const Value& value) {
  if (value.is<Namespace>()) runtime.refuse("a namespace within another value is not supported");
}

Value make_text(Runtime& runtime, std::string text) {
  runtime.charge(text.size() + value_cost);
  return {std::make_shared<const std::string>(std::move(text))};
}

Value make_list(Runtime& runtime, Items items) {
  runtime.charge(value_cost * (items.size() + 1));
  int depth = 1;
  for (const Value& item : items) depth = depth_with(runtime, depth, item);
  return {std::make_shared<const ListData>(ListData{std::move(items), depth})};
}

Value make_dict(Runtime& runtime, Fields fields) {
  runtime.charge(value_cost * (fields.size() + 1));
  int depth = 1;
  for (const auto& [key, value] : fields) depth = depth_with(runtime, depth, value);
  return {std::make_shared<const DictData>(DictData{std::move(fields), depth})};
}

Value make_value(Runtime& runtime, const Json& json) {
  if (json.is_null()) return {None{}};
  if (json.is_boolean()) return {json.get<bool>()};
  if (json.is_number_unsigned() && json.get<u64>() > u64{std::numeric_limits<i64>::max()}) return {json.get<double>()};
  if (json.is_number_integer()) return {json.get<i64>()};
  if (json.is_number()) return {json.get<double>()};
  if (json.is_string()) return make_text(runtime, json.get<std::string>());
  if (json.is_array()) {
    Items items;
    for (const Json& item : json) items.push_back(make_value(runtime, item));
    return make_list(runtime, std::move(items));
  }
  Fields fields;
  for (const auto& [key, value] : json.get_ref<const Json::object_t&>())
    fields.emplace_back(key, make_value(runtime, value));
  return make_dict(runtime, std::move(fields));
}

std::string_view kind_of(const Value& value) {
  constexpr std::string_view names[] = {"undefined",   "none",    "a truth value", "an integer",
                                        "a number",    "a text",  "a list",        "a dictionary",
                                        "a namespace", "a macro", "a function"};
  return names[value.data.index()];
}

bool is_true(const Value& value) {
  if (value.is<bool>()) return value.as<bool>();
  if (is_number(value)) return number_of(value) != 0;
  if (value.is<Text>()) return !value.text().empty();
  if (value.is<List>()) return !value.as<List>()->items.empty();
  if (value.is<Dict>()) return !value.as<Dict>()->fields.empty();
  return !value.is<Undefined>() && !value.is<None>();
}

bool is_number(const Value& value) { return value.is<bool>() || value.is<i64>() || value.is<double>(); }

double number_of(const Value& value) {
  if (value.is<double>()) return value.as<double>();
  return value.is<bool>() ? value.as<bool>() : static_cast<double>(value.as<i64>());
}

bool equal(Runtime& runtime, const Value& a, const Value& b) {
  runtime.charge(1);
  if (is_number(a) && is_number(b))
    return a.is<i64>() && b.is<i64>() ? a.as<i64>() == b.as<i64>() : number_of(a) == number_of(b);
  if (a.data.index() != b.data.index()) return false;
  if (a.is<Text>()) {
    runtime.charge(std::min(a.text().size(), b.text().size()) / 16);
    return a.text() == b.text();
  }
  if (a.is<List>()) {
    const Items &x = a.as<List>()->items, &y = b.as<List>()->items;
    return std::equal(x.begin(), x.end(), y.begin(), y.end(),
                      [&](const Value& one, const Value& other) { return equal(runtime, one, other); });
  }
  if (a.is<Dict>()) {
    const DictData &x = *a.as<Dict>(), &y = *b.as<Dict>();
    runtime.charge(x.fields.size() * y.fields.size());
    return x.fields.size() == y.fields.size() && std::all_of(x.fields.begin(), x.fields.end(), [&](const auto& field) {
             const Value* other = y.find(field.first);
             return other && equal(runtime, field.second, *other);
           });
  }
  if (a.is<Namespace>()) return a.as<Namespace>() == b.as<Namespace>();
  if (a.is<Macro>()) return a.as<Macro>().node == b.as<Macro>().node;
  if (a.is<Builtin>()) return a.as<Builtin>().name == b.as<Builtin>().name;
  return true;  // undefined, none
}

std::string to_text(Runtime& runtime, const Value& value) {
  if (value.is<Undefined>()) return {};
  if (value.is<None>()) return "None";
  if (value.is<bool>()) return value.as<bool>() ? "True" : "False";
  if (value.is<i64>()) return fmt::format("{}", value.as<i64>());
  if (value.is<double>()) return real_text(value.as<double>());
  if (value.is<Text>()) return std::string(value.text());
  if (!value.is<List>() && !value.is<Dict>()) runtime.refuse(fmt::format("{} is written as text", kind_of(value)));
  std::string out;
  append_shown(out, runtime, value);
  return out;
}

std::string to_json(Runtime& runtime, const Value& value, const JsonStyle& style) {
  JsonWriter writer(runtime, style);
  writer.write(value, 0);
  return std::move(writer.result);
}

Items items_of(Runtime& runtime, const Value& value) {
  if (value.is<Undefined>()) return {};
  Items items;
  if (value.is<List>()) {
    items = value.as<List>()->items;
  } else if (value.is<Dict>()) {
    for (const auto& [key, field] : value.as<Dict>()->fields) items.push_back(make_text(runtime, key));
  } else if (value.is<Text>()) {
    const std::string_view text = value.text();
    for (size_t at = 0, end = 0; at < text.size(); at = end) {
      end = next_character(text, at);
      items.push_back(make_text(runtime, std::string(text.substr(at, end - at))));
    }
  } else {
    runtime.refuse(fmt::format("found {}, expected a list, a dictionary or a text", kind_of(value)));
  }
  runtime.charge(value_cost * items.size());
  return items;
}

size_t next_character(std::string_view text, size_t at) {
  const auto lead = static_cast<u8>(text[at]);
  const size_t length = lead < 0xc0 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  size_t end = at + 1;
  while (end < std::min(at + length, text.size()) && (static_cast<u8>(text[end]) & 0xc0) == 0x80) ++end;
  return end;
}

size_t length_of(std::string_view text) {
  size_t count = 0;
  for (size_t at = 0; at < text.size(); at = next_character(text, at)) ++count;
  return count;
}

size_t whitespace_at(std::string_view text, size_t at) {
  // Beyond ASCII: NEL, no-break space, ogham space, en quad to hair space, separators, narrow, mathematical,
  // ideographic.
  constexpr std::string_view wide[] = {"\xc2\x85",     "\xc2\xa0",     "\xe1\x9a\x80", "\xe2\x80\x80", "\xe2\x80\x81",
                                       "\xe2\x80\x82", "\xe2\x80\x83", "\xe2\x80\x84", "\xe2\x80\x85", "\xe2\x80\x86",
                                       "\xe2\x80\x87", "\xe2\x80\x88", "\xe2\x80\x89", "\xe2\x80\x8a", "\xe2\x80\xa8",
                                       "\xe2\x80\xa9", "\xe2\x80\xaf", "\xe2\x81\x9f", "\xe3\x80\x80"};
  const char c = text[at];
  if ((c >= '\t' && c <= '\r') || (c >= '\x1c' && c <= ' ')) return 1;
  for (const std::string_view space : wide)
    if (text.substr(at).starts_with(space)) return space.size();
  return 0;
}

std::string_view strip_left(std::string_view text) {
  while (!text.empty()) {
    const size_t bytes = whitespace_at(text, 0);
    if (bytes == 0) break;
    text.remove_prefix(bytes);
  }
  return text;
}

std::string_view strip_right(std::string_view text) {
  for (bool found = true; found && !text.empty();) {
    found = false;
    for (size_t bytes = 1; bytes <= std::min<size_t>(3, text.size()) && !found; ++bytes)
      if (whitespace_at(text, text.size() - bytes) == bytes) text.remove_suffix(bytes), found = true;
  }
  return text;
}

}  // namespace sparsam::jinja
