#include "text/chat_template.h"

#include "fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sparsam;
  return fuzz([&] {
    const std::vector<ChatMessage> messages{{"system", "be brief"}, {"user", "why? "}, {"assistant", "<a>\n b"}};
    ChatTemplate::parse(text_of(data, size), "input").render(messages, {.bos = "<s>", .eos = "</s>"});
  });
}
