// Learning rates over a run of S steps: a linear warm-up over the first W steps, then
//   cosine    from the peak to the final rate along half a cosine              (Loshchilov & Hutter 2017, 1608.03983)
//   wsd       the peak, then over the last D steps linearly to the final rate  (warm-up-stable-decay: Hu et al. 2024,
//             2404.06395)
//   constant  the peak
#pragma once

#include "model/config.h"

namespace sparsam {

enum class ScheduleKind : u8 { cosine, wsd, constant };
template <>
std::vector<std::string> enum_names<ScheduleKind>();

struct Schedule {
  ScheduleKind kind = ScheduleKind::cosine;
  double peak = 0, final = 0;            // learning rates
  i64 warmup = 0, decay = 0, steps = 0;  // W, D, S
  double learning_rate(i64 step) const;  // step = 1 ... S; the last one gets the final rate
};

}  // namespace sparsam
