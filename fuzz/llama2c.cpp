#include "model/llama2c.h"

#include "fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return sparsam::fuzz_file(data, size, sparsam::load_llama2c);
}
