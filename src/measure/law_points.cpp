#include "measure/law_points.h"

#include <algorithm>
#include <cmath>

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

namespace {

// The two points tried around a CETT, and how far between them it lies: 0 at the first, 1 at the second.
struct Between {
  const TriedCett &low, &high;
  double part(double value, double from, double to) const { return to > from ? (value - from) / (to - from) : 0; }
};
Between around(const LawPoint& point, double cett) {
  check(point.tried.size() >= 2, "law point: {} CETTs tried, expected 2 or more", point.tried.size());
  const auto above = std::find_if(point.tried.begin() + 1, point.tried.end() - 1,
                                  [&](const TriedCett& tried) { return tried.cett >= cett; });
  return {*(above - 1), *above};
}

}  // namespace

double perplexity_at(const LawPoint& point, double cett) {
  const Between b = around(point, cett);
  const double part = b.part(cett * cett, b.low.cett * b.low.cett, b.high.cett * b.high.cett);
  return std::exp(std::lerp(std::log(b.low.perplexity), std::log(b.high.perplexity), part));
}

double activation_ratio_at(const LawPoint& point, double cett) {
  const Between b = around(point, cett);
  const auto line = [&](const TriedCett& low, const TriedCett& high) {
    return std::lerp(low.activation_ratio, high.activation_ratio,
                     b.part(std::log(cett), std::log(low.cett), std::log(high.cett)));
  };
  if (b.low.cett > 0) return line(b.low, b.high);
  // Below the least CETT tried the line above it goes on; two that are close would not tell its slope.
  constexpr double apart = 1.4;
  const auto far = std::find_if(point.tried.begin(), point.tried.end() - 1,
                                [&](const TriedCett& tried) { return tried.cett >= apart * b.high.cett; });
  return cett > 0 && far->cett > b.high.cett ? std::min(line(b.high, *far), b.low.activation_ratio)
                                             : b.low.activation_ratio;
}

std::optional<double> shared_cett(std::span<const LawPoint> points, i64 last, double percent) {
  for (const LawPoint& point : points)
    if (point.tried.size() < 2) return std::nullopt;
  const auto counted = points.last(std::min(points.size(), static_cast<size_t>(last)));
  const auto mean = [&](double cett) {
    double sum = 0;
    for (const LawPoint& point : counted) sum += perplexity_at(point, cett);
    return sum / static_cast<double>(counted.size());
  };
  const double limit = mean(0) * (1 + percent / 100);
  double low = 0, high = 1;
  constexpr int halvings = 30;
  for (int i = 0; i < halvings; ++i) {
    const double middle = (low + high) / 2;
    (mean(middle) <= limit ? low : high) = middle;
  }
  return low;
}

void write_law_points(const fs::path& path, std::span<const LawPoint> points) {
  std::string text;
  for (const LawPoint& point : points) text += format_json(to_json(point), path.string()) + '\n';
  write_text(path, text);
}

}  // namespace sparsam
