// The interpreter alone: within an archive a changed byte fails its checksum.
#include "formats/pickle.h"

#include "fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return sparsam::fuzz([&] { sparsam::read_pickle(std::as_bytes(std::span(data, size)), "input"); });
}
