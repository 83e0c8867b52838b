// sparsam tokenize, sparsam detokenize: text <-> token ids, as the files of a model define them.
#include <algorithm>
#include <charconv>

#include "cli/common.h"
#include "infer/text_stream.h"

namespace sparsam {

namespace {

struct TokenFlags {
  std::string model;
  bool no_special = false, special_as_text = false;
};

void add_flags(CLI::App* verb, TokenFlags& flags) {
  verb->add_option("MODEL", flags.model,
                   "directory, tokenizer.json, tokenizer.model or .gguf (or .tiktoken, .bin of llama2.c)")
      ->required();
}

std::vector<i32> encode(const Tokenizer& tokenizer, std::string_view text, const TokenFlags& flags) {
  std::vector<i32> ids;
  if (!flags.no_special) ids = tokenizer.prefix();
  tokenizer.encode(text, ids, flags.special_as_text ? SpecialTokens::as_text : SpecialTokens::recognise);
  if (!flags.no_special) ids.insert(ids.end(), tokenizer.suffix().begin(), tokenizer.suffix().end());
  return ids;
}

// Ids between anything that is no digit: spaces, lines, commas, the brackets of a JSON array.
std::vector<i32> parse_ids(std::string_view text) {
  std::vector<i32> ids;
  for (size_t i = 0; i < text.size();) {
    constexpr std::string_view between = " \t\r\n,[]";
    if (between.find(text[i]) != std::string_view::npos) {
      ++i;
      continue;
    }
    i32 id = 0;
    const char* begin = text.data() + i;
    const auto [end, error] = std::from_chars(begin, text.data() + text.size(), id);
    const size_t length = std::min(text.find_first_of(between, i), text.size()) - i;
    if (error != std::errc() || end != begin + length)
      fail("standard input: byte {}: found '{}', expected a token id", i, printable(text.substr(i, length)));
    ids.push_back(id);
    i += length;
  }
  return ids;
}

// Without the tokens that tokenize puts around a text.
std::span<const i32> inner(std::span<const i32> ids, const Tokenizer& tokenizer) {
  const std::vector<i32>&prefix = tokenizer.prefix(), &suffix = tokenizer.suffix();
  if (ids.size() >= prefix.size() && std::equal(prefix.begin(), prefix.end(), ids.begin()))
    ids = ids.subspan(prefix.size());
  if (ids.size() >= suffix.size() &&
      std::equal(suffix.begin(), suffix.end(), ids.end() - static_cast<i64>(suffix.size())))
    ids = ids.first(ids.size() - suffix.size());
  return ids;
}

}  // namespace

void add_tokenize(CLI::App& program, Command& command) {
  const auto flags = std::make_shared<TokenFlags>();
  CLI::App* verb = add_verb(program, command, "tokenize", "token ids of the text on standard input, as it is");
  add_flags(verb, *flags);
  verb->add_flag("--no-special", flags->no_special, "do not add the tokens that belong around a text");
  verb->add_flag("--special-as-text", flags->special_as_text, "read special tokens in the text as plain text");
  add_example(verb, "printf 'Hello' | sparsam tokenize model | sparsam detokenize model");
  on_chosen(verb, command, [flags, &command] {
    const Tokenizer tokenizer = Tokenizer::load(flags->model);
    const std::string text = read_text("-");
    const std::vector<i32> ids = encode(tokenizer, text, *flags);
    if (command.common.json) {
      Json pieces = Json::array();
      for (i32 id : ids) pieces.push_back(to_well_formed(tokenizer.bytes_of(id)));
      print_json({{"ids", ids}, {"tokens", pieces}, {"count", ids.size()}, {"bytes", text.size()}});
      return Exit::done;
    }
    std::string line;
    for (size_t i = 0; i < ids.size(); ++i) line.append(i == 0 ? "" : " ").append(std::to_string(ids[i]));
    fmt::print("{}\n", line);
    return Exit::done;
  });
}

void add_detokenize(CLI::App& program, Command& command) {
  const auto flags = std::make_shared<TokenFlags>();
  CLI::App* verb = add_verb(program, command, "detokenize", "text of the token ids on standard input");
  add_flags(verb, *flags);
  verb->add_flag("--no-special", flags->no_special, "the ids come without the tokens that belong around a text");
  add_example(verb, "echo 15496 995 | sparsam detokenize model");
  on_chosen(verb, command, [flags, &command] {
    const Tokenizer tokenizer = Tokenizer::load(flags->model);
    const std::vector<i32> ids = parse_ids(read_text("-"));
    const std::string text = tokenizer.decode(flags->no_special ? std::span<const i32>(ids) : inner(ids, tokenizer));
    if (command.common.json)
      print_json({{"text", to_well_formed(text)}, {"count", ids.size()}, {"bytes", text.size()}});
    else
      std::fwrite(text.data(), 1, text.size(), stdout);
    return Exit::done;
  });
}

}  // namespace sparsam
