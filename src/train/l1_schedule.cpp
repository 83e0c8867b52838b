#include "train/l1_schedule.h"

#include <charconv>
#include <cmath>
#include <numbers>

#include "base/error.h"
#include "formats/json.h"

namespace sparsam {

namespace {

double number(std::string_view text, std::string_view part, double most) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !(value >= 0 && value <= most))
    fail_usage("--l1: '{}' in '{}', expected a number of 0 to {}", printable(text), printable(part), most);
  return value;
}

}  // namespace

L1Schedule::L1Schedule(std::string_view text) {
  constexpr double most_weight = 1e6, most_steps = 1e15, all = 100;
  const bool constant = text.find_first_of("@,") == std::string_view::npos;
  for (bool more = true; more;) {
    const size_t comma = text.find(',');
    const std::string_view part = text.substr(0, comma);
    more = comma != std::string_view::npos;
    if (more) text.remove_prefix(comma + 1);
    const size_t at = part.find('@');
    Stage stage{.weight = number(part.substr(0, at), part, most_weight)};
    if (!constant) {
      if (at == std::string_view::npos)
        fail_usage("--l1: '{}' does not say where the stage ends, expected WEIGHT@STEP or WEIGHT@PERCENT%",
                   printable(part));
      std::string_view end = part.substr(at + 1);
      stage.percent = end.ends_with('%');
      if (stage.percent) end.remove_suffix(1);
      stage.end = number(end, part, stage.percent ? all : most_steps);
    }
    stages_.push_back(stage);
  }
}

void L1Schedule::resolve(i64 steps) {
  for (Stage& stage : stages_)
    if (stage.percent) stage.end *= static_cast<double>(steps) / 100, stage.percent = false;
  for (size_t i = 1; i < stages_.size(); ++i)
    if (!(stages_[i - 1].end < stages_[i].end))
      fail_usage("--l1: stage {} ends at step {:.6g}, the one before it at {:.6g}; expected a later one", i + 1,
                 stages_[i].end, stages_[i - 1].end);
}

double L1Schedule::weight(i64 step) const {
  const double t = static_cast<double>(step);
  size_t i = 0;
  while (i < stages_.size() && stages_[i].end < t) ++i;
  if (i == 0) return stages_.front().weight;
  if (i == stages_.size()) return stages_.back().weight;
  const Stage &before = stages_[i - 1], &stage = stages_[i];
  const double done = (t - before.end) / (stage.end - before.end);
  const double eta = 0.5 * (std::sin(std::numbers::pi * (done - 0.5)) + 1);
  return before.weight + eta * (stage.weight - before.weight);
}

}  // namespace sparsam
