#include "ops/cpu/targets.h"

#include "base/error.h"
#include "base/types.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/targets.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {
const char* compiled_for() { return hwy::TargetName(HWY_TARGET); }
}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sparsam::cpu {
HWY_EXPORT(compiled_for);

namespace {
const std::vector<int64_t>& supported() {
  static const std::vector<int64_t> all = hwy::SupportedAndGeneratedTargets();  // before any restriction
  return all;
}
}  // namespace

std::vector<std::string> targets() {
  std::vector<std::string> names;
  for (i64 target : supported()) names.emplace_back(hwy::TargetName(target));
  return names;
}

std::string target() { return HWY_DYNAMIC_DISPATCH(compiled_for)(); }

void restrict_to(std::string_view name) {
  i64 wanted = 0;  // no restriction
  for (i64 candidate : supported())
    if (hwy::TargetName(candidate) == name) wanted = candidate;
  check(wanted != 0 || name.empty(), "target '{}' is not among those of this processor", name);
  hwy::SetSupportedTargetsForTest(wanted);
  hwy::GetChosenTarget().DeInit();  // the next dispatch chooses anew
}

}  // namespace sparsam::cpu
#endif
