#include "text/labelled_text.h"

#include <algorithm>

#include "base/error.h"
#include "formats/json.h"
#include "text/byte_level.h"

namespace sparsam {

namespace {

LabelledText of_json(std::string_view line, const std::string& where) {
  const Json json = parse_json(line, where);
  Fields fields(json, where);
  const Json* label = fields.find("label");
  if (!label || !(label->is_string() || label->is_number_integer()))
    fail("{}: expected a field \"label\", a string or an integer", where);
  return {label->is_string() ? label->get<std::string>() : label->dump(), fields.required<std::string>("text")};
}

LabelledText of_columns(std::string_view line, const std::string& where) {
  const size_t tab = line.find('\t');
  if (tab == std::string_view::npos) fail("{}: '{}', expected LABEL<TAB>TEXT", where, printable(line));
  return {std::string(line.substr(0, tab)), std::string(line.substr(tab + 1))};
}

// A label is written into config.json, which holds nothing else: better refused before the training than after it.
bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();)
    if (const int length = utf8_at(text, i).length)
      i += static_cast<size_t>(length);
    else
      return false;
  return true;
}

}  // namespace

std::vector<LabelledText> read_labelled_texts(std::string_view content, const std::string& name) {
  std::vector<LabelledText> texts;
  for (size_t number = 1; !content.empty(); ++number) {
    const size_t end = std::min(content.find('\n'), content.size());
    std::string_view line = content.substr(0, end);
    content.remove_prefix(std::min(end + 1, content.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    const std::string where = fmt::format("{}: line {}", name, number);
    texts.push_back(name.ends_with(".jsonl") ? of_json(line, where) : of_columns(line, where));
    if (texts.back().label.empty()) fail("{}: the label is empty", where);
    if (!is_utf8(texts.back().label)) fail("{}: the label '{}' is not UTF-8", where, printable(texts.back().label));
    if (texts.back().text.empty()) fail("{}: the text is empty", where);
  }
  return texts;
}

}  // namespace sparsam
