#include "formats/idx.h"

#include "fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return sparsam::fuzz_file(data, size, sparsam::read_idx);
}
