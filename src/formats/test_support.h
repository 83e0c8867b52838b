// For tests and fuzzers of the readers: bytes that have a path, but touch no disk.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <string_view>

#include "base/files.h"
#include "base/test_support.h"

namespace sparsam {

class MemoryFile {
 public:
  explicit MemoryFile(std::string_view bytes) : descriptor_(::memfd_create("bytes", MFD_CLOEXEC)) {
    check(descriptor_ >= 0, "no file in memory");
    for (size_t done = 0; done < bytes.size();) {
      const auto written = ::write(descriptor_, bytes.data() + done, bytes.size() - done);
      check(written > 0, "writing to memory failed");
      done += static_cast<size_t>(written);
    }
  }
  ~MemoryFile() { ::close(descriptor_); }
  MemoryFile(const MemoryFile&) = delete;

  fs::path path() const { return fmt::format("/proc/self/fd/{}", descriptor_); }

 private:
  int descriptor_;
};

// What `open` says about a file of these bytes; "no error" where it reads them.
template <class Open>
std::string error_of_bytes(std::string_view bytes, Open&& open) {
  const MemoryFile file(bytes);
  return error_of([&] { open(file.path()); });
}

}  // namespace sparsam
