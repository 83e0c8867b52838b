#include "formats/ctranslate2.h"

#include "fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return sparsam::fuzz_file(data, size, [](const sparsam::fs::path& path) {
    const auto file = sparsam::Ctranslate2File::open(path);
    for (const sparsam::TensorEntry& tensor : file.tensors()) file.floats(tensor.name);
  });
}
