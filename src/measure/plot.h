// Small line and point charts as SVG text: for reports that a browser opens without anything else.
#pragma once

#include <array>
#include <string>
#include <utility>
#include <vector>

namespace sparsam {

struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points;      // (x, y); those that are not finite are left out
  bool line = true;                                   // else a mark for each point
  std::vector<std::pair<double, double>> marks = {};  // beside a line, in its colour
  std::vector<std::array<double, 3>> band = {};       // (x, low, high) around a line
};
struct Chart {
  std::string title, x_label, y_label;
  std::vector<Series> series;
  bool log_x = false;  // x above 0
};
std::string svg(const Chart& chart);

}  // namespace sparsam
