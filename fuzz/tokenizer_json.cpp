#include "fuzz/fuzz.h"
#include "text/tokenizer.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sparsam;
  return fuzz([&] {
    const Tokenizer tokenizer = Tokenizer::from_json(text_of(data, size), "tokenizer.json");
    tokenizer.decode(tokenizer.encode("A text, 12 <s>  \xff"));
  });
}
