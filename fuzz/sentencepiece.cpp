#include "fuzz/fuzz.h"
#include "text/tokenizer_data.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sparsam;
  return fuzz([&] { read_sentencepiece(text_of(data, size), "input"); });
}
