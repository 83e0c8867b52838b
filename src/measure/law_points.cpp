#include "measure/law_points.h"

#include <algorithm>

#include "base/error.h"

namespace sparsam {

namespace {

constexpr double most = 1e18;

std::vector<TriedCett> tried_from_json(const Json& json, const std::string& where) {
  std::vector<TriedCett> tried;
  if (!json.is_array()) fail("{}: tried is {}, expected an array", where, json.type_name());
  for (const Json& item : json) {
    Fields fields(item, where + ": tried");
    tried.push_back({fields.required<double>("cett", {.least = 0, .most = 1}),
                     fields.required<double>("activation_ratio", {.least = 0, .most = 1}),
                     fields.required<double>("perplexity", {.least = 1, .most = most})});
    fields.finish();
    if (tried.size() > 1 && tried.back().cett <= tried[tried.size() - 2].cett)
      fail("{}: tried: cett {} after {}, expected ascending", where, tried.back().cett, tried[tried.size() - 2].cett);
  }
  return tried;
}

LawPoint point_from_json(const Json& json, const std::string& where) {
  Fields fields(json, where);
  LawPoint point;
  point.model = fields.required<std::string>("model");
  point.activation = fields.required<std::string>("activation");
  point.tokens = fields.required<double>("tokens", {.least = 1, .most = most});
  point.activation_ratio = fields.required<double>("activation_ratio", {.least = 0, .most = 1});
  point.dim = fields.or_default<i64>("dim", 0, {.least = 0, .most = i64{1} << 40});
  point.layers = fields.or_default<i64>("layers", 0, {.least = 0, .most = i64{1} << 40});
  point.parameters = fields.or_default<i64>("parameters", 0, {.least = 0, .most = i64{1} << 60});
  point.percent = fields.or_default<double>("percent", 0, {.least = 0, .most = 1000});
  point.cett = fields.or_default<double>("cett", 0, {.least = 0, .most = 1});
  point.perplexity = fields.or_default<double>("perplexity", 0, {.least = 0, .most = most});
  point.nonzero_ratio = fields.or_default<double>("nonzero_ratio", 0, {.least = 0, .most = 1});
  if (const Json* tried = fields.find("tried")) point.tried = tried_from_json(*tried, where);
  fields.finish();
  return point;
}

}  // namespace

Json to_json(const LawPoint& p) {
  Json json{{"model", p.model},
            {"activation", p.activation},
            {"tokens", p.tokens},
            {"dim", p.dim},
            {"layers", p.layers},
            {"parameters", p.parameters},
            {"percent", p.percent},
            {"activation_ratio", p.activation_ratio},
            {"cett", p.cett},
            {"perplexity", p.perplexity},
            {"nonzero_ratio", p.nonzero_ratio},
            {"tried", Json::array()}};
  for (const TriedCett& t : p.tried)
    json["tried"].push_back({{"cett", t.cett}, {"activation_ratio", t.activation_ratio}, {"perplexity", t.perplexity}});
  return json;
}

std::vector<LawPoint> read_law_points(const fs::path& path) {
  std::vector<LawPoint> points;
  if (!fs::exists(path)) return points;
  const std::string text = read_text(path);
  size_t begin = 0;
  for (int line = 1; begin < text.size(); ++line) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string where = fmt::format("{} line {}", path.string(), line);
    const std::string_view content = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    if (content.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const Json json = parse_json(content, where);
    LawPoint point = point_from_json(json, where);
    for (const LawPoint& other : points)
      if (other.model == point.model && other.activation == point.activation && other.tokens == point.tokens)
        fail("{}: a second point of {} {} at {} tokens", where, printable(point.model), printable(point.activation),
             point.tokens);
    points.push_back(std::move(point));
  }
  return points;
}

void write_law_points(const fs::path& path, std::span<const LawPoint> points) {
  std::string text;
  for (const LawPoint& point : points) text += format_json(to_json(point), path.string()) + '\n';
  write_text(path, text);
}

}  // namespace sparsam
