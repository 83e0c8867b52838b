#include "measure/plot.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace sparsam {

namespace {

constexpr double width = 720, height = 440, left = 70, right = 170, top = 40, bottom = 55;
// Okabe and Ito's colours, which all eyes tell apart.
constexpr const char* colours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"};

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '<')
      out += "&lt;";
    else if (c == '&')
      out += "&amp;";
    else
      out += c;
  }
  return out;
}

// Numbers to put at the ticks of [low, high]: about five, multiples of 1, 2 or 5 times a power of ten.
std::vector<double> ticks(double low, double high) {
  const double rough = (high - low) / 5, power = std::pow(10, std::floor(std::log10(rough)));
  double step = power;
  for (const double factor : {1., 2., 5., 10.})
    if (factor * power >= rough) {
      step = factor * power;
      break;
    }
  std::vector<double> values;
  for (double v = std::ceil(low / step) * step; v <= high + step * 1e-9; v += step)
    values.push_back(std::abs(v) < step * 1e-9 ? 0 : v);
  return values;
}

class Axes {
 public:
  explicit Axes(const Chart& chart) : log_(chart.log_x) {
    for (const Series& series : chart.series) {
      for (const auto& [x, y] : series.points) include(x, y);
      for (const auto& [x, y] : series.marks) include(x, y);
      for (const auto& [x, low, high] : series.band) include(x, low), include(x, high);
    }
    widen(x_low_, x_high_, 0);
    widen(y_low_, y_high_, 0.05);
  }
  bool finite(double x, double y) const { return std::isfinite(y) && std::isfinite(scaled(x)); }
  double x(double value) const { return left + (scaled(value) - x_low_) / (x_high_ - x_low_) * (width - left - right); }
  double y(double value) const {
    return height - bottom - (value - y_low_) / (y_high_ - y_low_) * (height - top - bottom);
  }
  std::vector<double> x_ticks() const {
    if (!log_) return ticks(x_low_, x_high_);
    std::vector<double> values;
    for (double power = std::floor(x_low_); power <= x_high_; ++power)
      for (const double digit : {1., 2., 5.})
        if (const double v = digit * std::pow(10, power);
            std::log10(v) >= x_low_ - 1e-9 && std::log10(v) <= x_high_ + 1e-9 && (digit == 1 || x_high_ - x_low_ < 3))
          values.push_back(v);
    return values;
  }
  std::vector<double> y_ticks() const { return ticks(y_low_, y_high_); }

 private:
  void include(double x, double y) {
    if (!finite(x, y)) return;
    x_low_ = std::min(x_low_, scaled(x)), x_high_ = std::max(x_high_, scaled(x));
    y_low_ = std::min(y_low_, y), y_high_ = std::max(y_high_, y);
  }
  double scaled(double value) const { return log_ ? std::log10(value) : value; }
  static void widen(double& low, double& high, double part) {
    if (low > high) low = 0, high = 1;
    if (low == high) low -= 0.5, high += 0.5;
    const double more = (high - low) * part;
    low -= more, high += more;
  }
  bool log_;
  double x_low_ = std::numeric_limits<double>::infinity(), x_high_ = -x_low_, y_low_ = x_low_, y_high_ = -x_low_;
};

void add_text(std::string& out, double x, double y, const char* anchor, const std::string& text,
              const char* more = "") {
  out += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\"{}>{}</text>\n", x, y, anchor, more,
                     escaped(text));
}

void add_marks(std::string& out, const Axes& axes, const std::vector<std::pair<double, double>>& points,
               const char* colour) {
  for (const auto& [x, y] : points)
    if (axes.finite(x, y))
      out += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.5\" fill=\"{}\"/>\n", axes.x(x), axes.y(y), colour);
}

// There along the lower side, back along the upper one.
void add_band(std::string& out, const Axes& axes, const std::vector<std::array<double, 3>>& band, const char* colour) {
  std::string path;
  for (const auto& [x, low, high] : band)
    if (axes.finite(x, low) && axes.finite(x, high)) path += fmt::format("{:.1f},{:.1f} ", axes.x(x), axes.y(low));
  for (auto at = band.rbegin(); at != band.rend(); ++at)
    if (const auto& [x, low, high] = *at; axes.finite(x, low) && axes.finite(x, high))
      path += fmt::format("{:.1f},{:.1f} ", axes.x(x), axes.y(high));
  out += fmt::format("<polygon points=\"{}\" fill=\"{}\" fill-opacity=\"0.15\"/>\n", path, colour);
}

void add_axes(std::string& out, const Chart& chart, const Axes& axes) {
  const double floor = height - bottom, wall = width - right;
  for (const double v : axes.x_ticks()) {
    out += fmt::format("<line x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\" stroke=\"#ddd\"/>\n", axes.x(v), top,
                       floor);
    add_text(out, axes.x(v), floor + 18, "middle", fmt::format("{:.4g}", v));
  }
  for (const double v : axes.y_ticks()) {
    out += fmt::format("<line x1=\"{1}\" x2=\"{2}\" y1=\"{0:.1f}\" y2=\"{0:.1f}\" stroke=\"#ddd\"/>\n", axes.y(v), left,
                       wall);
    add_text(out, left - 8, axes.y(v) + 4, "end", fmt::format("{:.4g}", v));
  }
  out += fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"none\" stroke=\"#444\"/>\n", left, top,
                     wall - left, floor - top);
  add_text(out, width / 2, 24, "middle", chart.title, " font-weight=\"bold\"");
  add_text(out, (left + wall) / 2, height - 14, "middle", chart.x_label);
  add_text(out, 18, (top + floor) / 2, "middle", chart.y_label,
           fmt::format(" transform=\"rotate(-90 18 {:.1f})\"", (top + floor) / 2).c_str());
}

}  // namespace

std::string svg(const Chart& chart) {
  const Axes axes(chart);
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" "
      "font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
      width, height);
  add_axes(out, chart, axes);
  for (size_t s = 0; s < chart.series.size(); ++s) {
    const Series& series = chart.series[s];
    const char* colour = colours[s % std::size(colours)];
    if (!series.band.empty()) add_band(out, axes, series.band, colour);
    add_marks(out, axes, series.line ? series.marks : series.points, colour);
    std::string path;
    for (const auto& [x, y] : series.points)
      if (axes.finite(x, y)) path += fmt::format("{:.1f},{:.1f} ", axes.x(x), axes.y(y));
    if (series.line)
      out += fmt::format("<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.8\"/>\n", path, colour);
    const double y = top + 14 + 18 * static_cast<double>(s);
    out += fmt::format("<circle cx=\"{}\" cy=\"{}\" r=\"4\" fill=\"{}\"/>\n", width - right + 16, y - 4, colour);
    add_text(out, width - right + 26, y, "start", series.name);
  }
  return out + "</svg>\n";
}

}  // namespace sparsam
