#include "ops/cpu/targets.h"

#include <hwy/highway.h>
#include <hwy/targets.h>

#include "base/error.h"
#include "base/types.h"

namespace sparsam::cpu {

namespace {
std::vector<i64> supported() {
  static const std::vector<int64_t> all = hwy::SupportedAndGeneratedTargets();  // before any restriction
  return {all.begin(), all.end()};
}
}  // namespace

std::vector<std::string> targets() {
  std::vector<std::string> names;
  for (i64 target : supported()) names.emplace_back(hwy::TargetName(target));
  return names;
}

void restrict_to(std::string_view target) {
  i64 wanted = 0;  // no restriction
  for (i64 candidate : supported())
    if (hwy::TargetName(candidate) == target) wanted = candidate;
  check(wanted != 0 || target.empty(), "target '{}' is not among those of this processor", target);
  hwy::SetSupportedTargetsForTest(wanted);
  hwy::GetChosenTarget().DeInit();  // the next dispatch chooses anew
}

}  // namespace sparsam::cpu
