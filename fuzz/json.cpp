#include "formats/json.h"

#include "fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sparsam;
  return fuzz([&] {
    const Json json = parse_json(text_of(data, size), "input");
    check(parse_json(format_json(json, "input"), "again") == json, "a value changes when it is written and read");
  });
}
