#include "formats/json.h"
#include "fuzz/fuzz.h"
#include "model/hugging_face.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sparsam;
  return fuzz([&] { read_hugging_face(parse_json(text_of(data, size), "config.json"), "config.json"); });
}
