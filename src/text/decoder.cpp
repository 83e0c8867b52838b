#include "text/decoder.h"

#include <array>
#include <charconv>

#include "base/error.h"
#include "text/byte_level.h"

namespace sparsam {

std::string replace_all(std::string_view text, std::string_view what, std::string_view by) {
  std::string out;
  size_t done = 0;
  for (size_t at = 0; (at = text.find(what, done)) != std::string_view::npos; done = at + what.size())
    out.append(text, done, at - done).append(by);
  return out.append(text.substr(done));
}

namespace {

std::string run(Decoder::ByteAlphabet, std::string text, bool) {
  auto bytes = from_byte_alphabet(text);
  return bytes ? std::move(*bytes) : text;
}

std::string run(Decoder::ByteFallback, std::string text, bool) {
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return text;
  u8 byte = 0;
  const auto [end, error] = std::from_chars(text.data() + 3, text.data() + 5, byte, 16);
  return error == std::errc() && end == text.data() + 5 ? std::string(1, static_cast<char>(byte)) : text;
}

std::string run(const Decoder::Replace& replace, const std::string& text, bool) {
  return replace_all(text, replace.text, replace.by);
}

std::string run(const Decoder::Strip& strip, const std::string& text, bool) {
  std::string_view rest = text;
  for (size_t i = 0; i < strip.left && rest.starts_with(strip.text); ++i) rest.remove_prefix(strip.text.size());
  for (size_t i = 0; i < strip.right && rest.ends_with(strip.text); ++i) rest.remove_suffix(strip.text.size());
  return std::string(rest);
}

std::string run(const Decoder::Metaspace& metaspace, const std::string& text, bool first) {
  return replace_all(text, metaspace.space, first && metaspace.none_at_first ? "" : " ");
}

std::string run(const Decoder::WordPiece& word, std::string text, bool first) {
  if (!first) text = text.starts_with(word.prefix) ? text.substr(word.prefix.size()) : " " + text;
  if (!word.cleanup) return text;
  constexpr std::array<std::array<std::string_view, 2>, 11> shorter = {{{" .", "."},
                                                                        {" ?", "?"},
                                                                        {" !", "!"},
                                                                        {" ,", ","},
                                                                        {" ' ", "'"},
                                                                        {" n't", "n't"},
                                                                        {" 'm", "'m"},
                                                                        {" do not", " don't"},
                                                                        {" 's", "'s"},
                                                                        {" 've", "'ve"},
                                                                        {" 're", "'re"}}};
  for (const auto& [from, to] : shorter) text = replace_all(text, from, to);
  return text;
}

}  // namespace

std::string Decoder::token(std::string_view name, bool first, bool added) const {
  std::string text(name);
  for (const Step& step : steps) {
    if (!added || !std::holds_alternative<ByteAlphabet>(step))
      text = std::visit([&](const auto& s) { return run(s, std::move(text), first); }, step);
    if (text.size() > 64 * name.size() + 4096)
      fail("the tokenizer's decoder makes {} bytes of a token of {}", text.size(), name.size());
  }
  return text;
}

std::string Decoder::finish(std::string text) const {
  for (const Step& step : whole_steps)
    text = std::visit([&](const auto& s) { return run(s, std::move(text), false); }, step);
  return text;
}

}  // namespace sparsam
