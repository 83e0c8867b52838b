#include "cli/law_fit.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/progress.h"
#include "cli/common.h"
#include "measure/law_fit.h"
#include "measure/law_points.h"
#include "measure/plot.h"

namespace sparsam {

namespace {

// One curve to explain, and the forms that were tried.
struct Explained {
  std::vector<double> x, y;
  std::vector<Fit> fits;
  std::vector<std::optional<Bands>> bands;  // of each fit
  size_t preferred = 0;
  const Fit& best() const { return fits[preferred]; }
};

struct ModelSeries {
  LawPoint model;  // the last point
  std::optional<double> cett;
  Explained data;  // activation ratio against tokens / unit
};

struct LawReport {
  std::vector<ModelSeries> series;
  // By activation, for series of several models.
  double last = 0;                          // tokens / unit that all models have seen
  std::map<std::string, Explained> sizes;   // ratio there against parameters
  std::map<std::string, Explained> limits;  // limit A0 of the published form against parameters
  std::map<std::string, Explained> shapes;  // ratio there against width / depth
};

// The published form of an activation: SiLU's for all that are not of ReLU's kind.
LawForm published_form(const std::string& activation) {
  return activation.find("relu") != std::string::npos ? LawForm::exponential : LawForm::power;
}

Explained explain(std::vector<double> x, std::vector<double> y, std::span<const LawForm> forms,
                  const LawFitFlags& flags, u64 seed) {
  Explained result{.x = std::move(x), .y = std::move(y), .fits = {}, .bands = {}};
  for (const LawForm form : forms) {
    if (result.x.size() < parameter_names(form).size()) continue;
    result.fits.push_back(fit_curve(form, result.x, result.y));
    result.bands.push_back(bootstrap(result.fits.back(), result.x, result.y, result.x, flags.resamples, seed));
  }
  const auto least = std::min_element(result.fits.begin(), result.fits.end(),
                                      [](const Fit& a, const Fit& b) { return a.aicc() < b.aicc(); });
  result.preferred = static_cast<size_t>(least - result.fits.begin());
  return result;
}

ModelSeries explain_model(std::vector<LawPoint> points, const LawFitFlags& flags, u64 seed) {
  std::sort(points.begin(), points.end(), [](const LawPoint& a, const LawPoint& b) { return a.tokens < b.tokens; });
  ModelSeries series{.model = points.back(), .cett = {}, .data = {}};
  if (flags.cett == "shared") {
    series.cett = shared_cett(points, flags.last, flags.percent > 0 ? flags.percent : points.back().percent);
    if (!series.cett)
      fail("{}: {}: a point has no CETTs tried, which --cett shared needs", flags.points, series.model.model);
  }
  std::vector<double> x, y;
  for (const LawPoint& point : points) {
    x.push_back(point.tokens / flags.unit);
    y.push_back(series.cett ? activation_ratio_at(point, *series.cett) : point.activation_ratio);
  }
  constexpr LawForm forms[] = {LawForm::constant, LawForm::logarithmic, LawForm::power, LawForm::exponential};
  series.data = explain(std::move(x), std::move(y), forms, flags, seed);
  return series;
}

// A0 of the published form, where its band lies in (0, 1): else the data do not tell it.
std::optional<double> limit_of(const ModelSeries& series) {
  const Explained& data = series.data;
  for (size_t f = 0; f < data.fits.size(); ++f) {
    if (data.fits[f].curve.form != published_form(series.model.activation) || !data.bands[f]) continue;
    if (data.bands[f]->parameters.back().high < 1) return data.fits[f].curve.parameters.back();
  }
  return std::nullopt;
}

void explain_shapes(LawReport& report, const LawFitFlags& flags, u64 seed) {
  std::map<std::string, std::map<double, double>> by_size, limits, by_shape;
  report.last = report.series.front().data.x.back();
  for (const ModelSeries& series : report.series) report.last = std::min(report.last, series.data.x.back());
  for (const ModelSeries& series : report.series) {
    const LawPoint& model = series.model;
    const auto size = static_cast<double>(model.parameters);
    const double ratio = series.data.best().curve.at(report.last);
    if (size > 0) by_size[model.activation][size] = ratio;
    if (const auto limit = limit_of(series); size > 0 && limit) limits[model.activation][size] = *limit;
    if (model.dim > 0 && model.layers > 0)
      by_shape[model.activation][static_cast<double>(model.dim) / static_cast<double>(model.layers)] = ratio;
  }
  const auto add = [&](const auto& from, std::map<std::string, Explained>& to, std::span<const LawForm> forms) {
    for (const auto& [activation, values] : from) {
      std::vector<double> x, y;
      for (const auto& [at, value] : values) x.push_back(at), y.push_back(value);
      if (constexpr size_t fewest = 3; x.size() >= fewest) to[activation] = explain(x, y, forms, flags, seed);
    }
  };
  constexpr LawForm of_size[] = {LawForm::constant, LawForm::logarithmic};
  constexpr LawForm of_shape[] = {LawForm::constant, LawForm::linear, LawForm::plateau};
  add(by_size, report.sizes, of_size);
  add(limits, report.limits, of_size);
  add(by_shape, report.shapes, of_shape);
}

LawReport make_report(const LawFitFlags& flags, const Common& common) {
  const fs::path path =
      fs::is_directory(flags.points) ? fs::path(flags.points) / "points.jsonl" : fs::path(flags.points);
  if (!fs::exists(path)) fail("{}: no such file", path.string());
  const std::vector<LawPoint> points = read_law_points(path);
  if (points.empty()) fail("{}: no points", path.string());
  std::vector<std::pair<std::string, std::vector<LawPoint>>> models;  // in the order of the file
  for (const LawPoint& point : points) {
    const std::string name = point.model + " " + point.activation;
    const auto at = std::find_if(models.begin(), models.end(), [&](const auto& model) { return model.first == name; });
    (at == models.end() ? models.emplace_back(name, std::vector<LawPoint>()) : *at).second.push_back(point);
  }
  LawReport report;
  Progress progress("fit", common.quiet);
  for (auto& [name, of_model] : models) {
    report.series.push_back(explain_model(of_model, flags, common.seed));
    progress.update(static_cast<double>(report.series.size()) / static_cast<double>(models.size()), name);
  }
  explain_shapes(report, flags, common.seed);
  return report;
}

// JSON has no infinity: null.
Json number(double value) { return std::isfinite(value) ? Json(value) : Json(); }

Json explained_json(const Explained& explained) {
  Json forms = Json::array();
  for (size_t f = 0; f < explained.fits.size(); ++f) {
    const Fit& fit = explained.fits[f];
    Json parameters = Json::object();
    const auto names = parameter_names(fit.curve.form);
    for (size_t k = 0; k < names.size(); ++k) {
      parameters[names[k]] = {{"value", number(fit.curve.parameters[k])}};
      if (const auto& bands = explained.bands[f])
        parameters[names[k]]["low"] = number(bands->parameters[k].low),
        parameters[names[k]]["high"] = number(bands->parameters[k].high);
    }
    forms.push_back({{"form", std::string(name_of(fit.curve.form))},
                     {"parameters", parameters},
                     {"root_mean_square", std::sqrt(fit.squares / static_cast<double>(fit.points))},
                     {"aicc", number(fit.aicc())}});
  }
  return {{"x", explained.x},
          {"y", explained.y},
          {"preferred", std::string(name_of(explained.best().curve.form))},
          {"forms", forms}};
}

Json report_json(const LawReport& report, const LawFitFlags& flags) {
  Json json{{"unit", flags.unit}, {"cett", flags.cett}, {"series", Json::array()}};
  for (const ModelSeries& series : report.series) {
    Json item{{"model", series.model.model},
              {"activation", series.model.activation},
              {"parameters", series.model.parameters},
              {"dim", series.model.dim},
              {"layers", series.model.layers}};
    if (series.cett) item["shared_cett"] = *series.cett;
    item.update(explained_json(series.data));
    json["series"].push_back(item);
  }
  json["last"] = report.last;
  const auto add = [&](const char* name, const std::map<std::string, Explained>& of) {
    for (const auto& [activation, explained] : of) json[name][activation] = explained_json(explained);
  };
  add("ratio_against_parameters", report.sizes);
  add("limit_against_parameters", report.limits);
  add("ratio_against_width_over_depth", report.shapes);
  return json;
}

void print_explained(const Explained& explained) {
  for (size_t f = 0; f < explained.fits.size(); ++f) {
    const Fit& fit = explained.fits[f];
    fmt::print("  {} {:<12} AICc {:>8.1f}  rms {:.5f} ", f == explained.preferred ? '*' : ' ', name_of(fit.curve.form),
               fit.aicc(), std::sqrt(fit.squares / static_cast<double>(fit.points)));
    const auto names = parameter_names(fit.curve.form);
    for (size_t k = 0; k < names.size(); ++k) {
      fmt::print("  {} {:.4g}", names[k], fit.curve.parameters[k]);
      if (const auto& bands = explained.bands[f])
        fmt::print(" [{:.4g}, {:.4g}]", bands->parameters[k].low, bands->parameters[k].high);
    }
    fmt::print("\n");
  }
}

void print_report(const LawReport& report, const LawFitFlags& flags) {
  fmt::print("activation ratio against D = tokens / {:g}; * the form that AICc prefers; [95 % bootstrap band]\n",
             flags.unit);
  for (const ModelSeries& series : report.series) {
    const Explained& data = series.data;
    fmt::print("{} ({}): {} points, D {:.4g} to {:.4g}, ratio {:.4f} to {:.4f}", series.model.model,
               series.model.activation, data.x.size(), data.x.front(), data.x.back(), data.y.front(), data.y.back());
    if (series.cett) fmt::print(", one CETT {:.4f}", *series.cett);
    fmt::print("\n");
    print_explained(data);
  }
  const auto print = [&](const std::string& what, const std::map<std::string, Explained>& of) {
    for (const auto& [activation, explained] : of) {
      fmt::print("{}: {}\n", activation, what);
      print_explained(explained);
    }
  };
  print(fmt::format("ratio at D = {:.4g} against parameters", report.last), report.sizes);
  print("limit A0 against parameters", report.limits);
  print(fmt::format("ratio at D = {:.4g} against width / depth", report.last), report.shapes);
}

Chart chart_of(const LawReport& report, const LawFitFlags& flags, u64 seed) {
  Chart chart{.title = "Activation ratio and data",
              .x_label = fmt::format("tokens / {:g}", flags.unit),
              .y_label = "activation ratio",
              .series = {},
              .log_x = true};
  for (const ModelSeries& model : report.series) {
    const Explained& data = model.data;
    Series series{.name = model.model.model, .points = {}};
    for (size_t i = 0; i < data.x.size(); ++i) series.marks.emplace_back(data.x[i], data.y[i]);
    constexpr int steps = 60;
    std::vector<double> at;
    for (int i = 0; i <= steps; ++i)
      at.push_back(data.x.front() * std::pow(data.x.back() / data.x.front(), static_cast<double>(i) / steps));
    for (const double x : at) series.points.emplace_back(x, data.best().curve.at(x));
    if (const auto bands = bootstrap(data.best(), data.x, data.y, at, flags.resamples, seed))
      for (size_t i = 0; i < at.size(); ++i)
        series.band.push_back({at[i], bands->values[i].low, bands->values[i].high});
    chart.series.push_back(std::move(series));
  }
  return chart;
}

}  // namespace

Exit run_law_fit(const LawFitFlags& flags, const Common& common) {
  if (!(flags.unit > 0 && std::isfinite(flags.unit))) fail_usage("--unit is {}, expected a number above 0", flags.unit);
  if (!(flags.percent >= 0 && flags.percent <= 1000)) fail_usage("--percent is {}, expected 0 to 1000", flags.percent);
  if (const std::vector<std::string> known{"own", "shared"}; flags.cett != known[0] && flags.cett != known[1])
    fail_unknown("value", flags.cett, known, "--cett", Exit::usage);
  const LawReport report = make_report(flags, common);
  if (!flags.plot.empty()) write_text(flags.plot, svg(chart_of(report, flags, common.seed)));
  if (common.json)
    print_json(report_json(report, flags));
  else
    print_report(report, flags);
  return Exit::done;
}

}  // namespace sparsam
