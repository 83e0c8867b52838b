#include <cmath>
#include <cstring>

#include "base/error.h"
#include "text/decoder.h"
#include "text/vocabulary.h"

namespace sparsam {

Vocabulary read_llama2c_vocabulary(std::string_view bytes, std::string_view where) {
  std::string_view rest = bytes;
  const auto take = [&](size_t count) {
    if (count > rest.size()) fail("{}: ends in the middle of token data ({} bytes)", where, bytes.size());
    const std::string_view taken = rest.substr(0, count);
    rest.remove_prefix(count);
    return taken;
  };
  const auto number = [&]<class T>(T value) {
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  };
  Vocabulary v{};
  v.model = "llama", v.pre = "default";
  const i32 longest = number(i32{});
  if (longest < 1) fail("{}: the longest token has {} bytes, expected 1 or more", where, longest);
  while (!rest.empty()) {
    const float score = number(float{});
    const i32 length = number(i32{});
    const size_t id = v.tokens.size();
    if (!std::isfinite(score) || length < 1 || length > longest)
      fail("{}: token {} has score {} and {} bytes, expected a number and 1 to {}", where, id, score, length, longest);
    const std::string_view text = take(static_cast<size_t>(length));
    const bool byte = length == 6 && text.starts_with("<0x");
    v.tokens.push_back(replace_all(text, " ", "\u2581"));
    v.scores.push_back(score);
    v.types.push_back(byte ? TokenType::byte : TokenType::normal);
  }
  constexpr size_t specials = 3;
  if (v.tokens.size() <= specials) fail("{}: {} tokens, expected more than {}", where, v.tokens.size(), specials);
  v.tokens[0] = "<unk>", v.tokens[1] = "<s>", v.tokens[2] = "</s>";  // written there as "\n<s>\n"
  v.types[0] = TokenType::unknown, v.types[1] = v.types[2] = TokenType::control;
  v.unk = 0, v.bos = 1, v.eos = 2;
  v.add_bos = v.add_space_prefix = true;
  return v;
}

}  // namespace sparsam
