#include "train/metrics.h"

#include "base/error.h"

namespace sparsam {

MetricsFile::MetricsFile(const fs::path& path, i64 last_step) : path_(path) {
  std::string kept;
  if (fs::exists(path)) {
    std::ifstream old(path);
    for (std::string line; std::getline(old, line);) {
      try {
        const Json metrics = parse_json(line, path.string());
        if (Fields(metrics, path.string()).required<i64>("step") <= last_step) kept += line + '\n';
      } catch (const Error&) {  // a line that was cut off
      }
    }
  }
  write_text(path, kept);
  file_.open(path, std::ios::app);
  if (!file_) fail("{}: cannot open for writing", path.string());
}

void MetricsFile::write(const Json& metrics) {
  file_ << metrics.dump() << '\n' << std::flush;
  if (!file_) fail("{}: cannot write", path_.string());
}

}  // namespace sparsam
