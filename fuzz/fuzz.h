// What every fuzzer does: hands the bytes to a reader, whose errors are expected; all else (a crash, a sanitizer's
// finding, memory or time without bound) is what libFuzzer reports.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "formats/test_support.h"

namespace sparsam {

inline std::string_view text_of(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// Calls read(), of which an Error is no finding.
template <class Read>
int fuzz(Read&& read) {
  try {
    read();
  } catch (const Error&) {
  }
  return 0;
}

// The same with a path to the bytes.
template <class Open>
int fuzz_file(const std::uint8_t* data, std::size_t size, Open&& open) {
  const MemoryFile file(text_of(data, size));
  return fuzz([&] { open(file.path()); });
}

}  // namespace sparsam

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
