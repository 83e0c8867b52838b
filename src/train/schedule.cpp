#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace sparsam {

template <>
std::vector<std::string> enum_names<ScheduleKind>() {
  return {"cosine", "wsd", "constant"};
}

double Schedule::learning_rate(i64 step) const {
  const auto fraction = [](i64 done, i64 of) { return static_cast<double>(done) / static_cast<double>(of); };
  if (step <= warmup) return peak * fraction(step, warmup);
  if (step >= steps && kind != ScheduleKind::constant) return final;
  switch (kind) {
    case ScheduleKind::cosine: {
      const double done = fraction(step - warmup, steps - warmup);
      return final + (peak - final) * 0.5 * (1 + std::cos(std::numbers::pi * done));
    }
    case ScheduleKind::wsd: {
      const i64 begin = std::max(warmup, steps - decay);
      return step <= begin ? peak : peak + (final - peak) * fraction(step - begin, steps - begin);
    }
    case ScheduleKind::constant:
      return peak;
  }
  return peak;
}

}  // namespace sparsam
