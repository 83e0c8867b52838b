#include "text/jinja_texts.h"

#include <algorithm>

namespace sparsam::jinja {

namespace {

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

}  // namespace

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

void require_ascii(Runtime& runtime, std::string_view text) {
  runtime.charge(text.size());
  if (std::any_of(text.begin(), text.end(), [](char c) { return static_cast<u8>(c) >= 0x80; }))
    runtime.refuse(fmt::format("cases and sets of characters are supported in ASCII, found '{}', which is not ASCII",
                               printable(text)));
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

Value stripped(Runtime& runtime, std::string_view text, const Value& characters, StripEnds sides) {
  runtime.charge(text.size());
  if (!given(characters)) {
    if (sides & strip_begin) text = strip_left(text);
    if (sides & strip_end) text = strip_right(text);
    return make_text(runtime, std::string(text));
  }
  const std::string_view set = text_argument(runtime, characters);
  require_ascii(runtime, set);
  const auto inside = [&](char c) { return set.find(c) != set.npos; };
  while ((sides & strip_begin) && !text.empty() && inside(text.front())) text.remove_prefix(1);
  while ((sides & strip_end) && !text.empty() && inside(text.back())) text.remove_suffix(1);
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

Value titled(Runtime& runtime, std::string_view text, bool filter) {
  return changed_case(runtime, text, [filter](std::string_view t, size_t i) {
    constexpr std::string_view breaks = "- \t\n\v\f\r({[<";
    const bool begins = i == 0 || (filter ? breaks.find(t[i - 1]) != breaks.npos : !is_letter(t[i - 1]));
    return begins ? upper(t[i]) : lower(t[i]);
  });
}

}  // namespace sparsam::jinja
