#include "train/manifest.h"

#include <fmt/format.h>

#include <fstream>

#include "base/threads.h"

namespace sparsam {

namespace {

std::string cpu_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name")) return printable(line.substr(std::min(line.find(':') + 2, line.size())));
  return "unknown";
}

std::string compiler_name() {
#ifdef __clang__
  return fmt::format("Clang {}.{}.{}", __clang_major__, __clang_minor__, __clang_patchlevel__);
#else
  return fmt::format("GCC {}.{}.{}", __GNUC__, __GNUC_MINOR__, __GNUC_PATCHLEVEL__);
#endif
}

}  // namespace

std::string program_version() { return SPARSAM_VERSION; }

Json environment_json() {
  return {{"version", program_version()}, {"compiler", compiler_name()}, {"cpu", cpu_name()}, {"threads", threads()}};
}

}  // namespace sparsam
