// As a model, and the vocabulary within.
#include "formats/gguf.h"

#include "fuzz/fuzz.h"
#include "model/gguf.h"
#include "text/gguf_vocabulary.h"
#include "text/tokenizer.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sparsam;
  fuzz_file(data, size, load_gguf);
  return fuzz_file(data, size, [](const fs::path& path) {
    const Tokenizer tokenizer = Tokenizer::from_vocabulary(read_vocabulary(GgufFile::open(path)), "input");
    tokenizer.decode(tokenizer.encode("A text, 12 <s>\xff"));
  });
}
