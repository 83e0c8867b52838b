#include "text/pipeline_json.h"

#include <algorithm>

#include "base/error.h"

namespace sparsam {

void refuse(std::string_view where, std::string_view what) { fail("{}: {} is not supported", where, what); }

void refuse_type(const Fields& fields, std::string_view type) {
  refuse(fields.where(), fmt::format("type '{}'", printable(type)));
}

namespace {

// Bounds on what a hostile file can make of a text; published files stay far below.
constexpr size_t most_steps = 64, longest_content = 256;

void check_steps(const Fields& fields, size_t steps) {
  if (steps > most_steps) fail("{}: more than {} steps", fields.where(), most_steps);
}

std::string content_of(Fields& fields, const char* field) {
  std::string content = fields.required<std::string>(field);
  if (content.size() > longest_content)
    fail("{}: '{}' has {} bytes, expected at most {}", fields.where(), field, content.size(), longest_content);
  return content;
}

std::string type_of(Fields& fields) { return fields.required<std::string>("type"); }

struct PatternText {
  std::string text;
  bool regex;
};

PatternText pattern_of(Fields& fields) {
  Fields pattern = fields.object("pattern");
  const auto regex = pattern.optional<std::string>("Regex"), literal = pattern.optional<std::string>("String");
  pattern.finish();
  if (regex.has_value() == literal.has_value())
    fail("{}: found {} patterns, expected one of Regex, String", pattern.where(), regex ? 2 : 0);
  if (literal && literal->empty()) fail("{}: the pattern is empty", pattern.where());
  return {regex ? *regex : *literal, regex.has_value()};
}

std::string escaped(std::string_view literal) {
  std::string text;
  for (char c : literal) {
    const bool punctuation =
        static_cast<u8>(c) < 0x80 && detail::ascii_kinds[static_cast<u8>(c)] == detail::Kind::other;
    if (punctuation && c > ' ') text += '\\';
    text += c;
  }
  return text;
}

Matches matches_of(Fields& fields, const char* otherwise) {
  const std::string name = otherwise != nullptr ? fields.or_default<std::string>("behavior", otherwise)
                                                : fields.required<std::string>("behavior");
  const std::vector<std::string> names = {"Isolated", "Removed", "Contiguous", "MergedWithPrevious", "MergedWithNext"};
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) fail_unknown("behavior", name, names, fields.where());
  return static_cast<Matches>(found - names.begin());
}

constexpr std::string_view word_class = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control})";

Splitter::Metaspace metaspace_of(Fields& fields) {
  Splitter::Metaspace metaspace;
  metaspace.space = fields.or_default<std::string>("replacement", "\u2581");
  if (metaspace.space.empty() || utf8_at(metaspace.space, 0).length != static_cast<int>(metaspace.space.size()))
    fail("{}: the replacement '{}' is not one character", fields.where(), printable(metaspace.space));
  fields.ignore("str_rep");
  const auto add = fields.optional<bool>("add_prefix_space");
  const std::vector<std::string> schemes = {"always", "first", "never"};
  const std::string scheme = fields.or_default<std::string>("prepend_scheme", add && !*add ? "never" : "always");
  const auto found = std::find(schemes.begin(), schemes.end(), scheme);
  if (found == schemes.end()) fail_unknown("prepend_scheme", scheme, schemes, fields.where());
  metaspace.prepend = static_cast<Splitter::Prepend>(found - schemes.begin());
  if (add && !*add && scheme != "never")
    fail("{}: add_prefix_space is false, but prepend_scheme is '{}'", fields.where(), scheme);
  metaspace.split = fields.or_default<bool>("split", true);
  return metaspace;
}

}  // namespace

std::string from_base64(std::string_view text, std::string_view where) {
  std::string bytes;
  u32 bits = 0;
  int count = 0;
  while (text.ends_with('=')) text.remove_suffix(1);
  for (char c : text) {
    const int digit = c >= 'A' && c <= 'Z'   ? c - 'A'
                      : c >= 'a' && c <= 'z' ? c - 'a' + 26
                      : c >= '0' && c <= '9' ? c - '0' + 52
                      : c == '+'             ? 62
                      : c == '/'             ? 63
                                             : -1;
    if (digit < 0) fail("{}: not base64", where);
    bits = bits << 6 | static_cast<u32>(digit);
    if ((count += 6) >= 8) bytes.push_back(static_cast<char>(bits >> (count -= 8) & 0xFF));
  }
  return bytes;
}

void read_normalizer(Fields fields, Normalizer& normalizer) {
  const std::string type = type_of(fields);
  const auto add = [&](Normalizer::Step step) { normalizer.steps.push_back(std::move(step)); };
  if (type == "NFC") {
    add(NormalForm::nfc);
  } else if (type == "NFD") {
    add(NormalForm::nfd);
  } else if (type == "NFKC") {
    add(NormalForm::nfkc);
  } else if (type == "NFKD") {
    add(NormalForm::nfkd);
  } else if (type == "Lowercase") {
    add(Normalizer::Lowercase{});
  } else if (type == "StripAccents") {
    add(Normalizer::StripAccents{});
  } else if (type == "Nmt") {
    add(Normalizer::Nmt{});
  } else if (type == "ByteLevel") {
    add(Normalizer::ByteAlphabet{});
  } else if (type == "Prepend") {
    add(Normalizer::Prepend{content_of(fields, "prepend")});
  } else if (type == "Strip") {
    const bool left = fields.or_default<bool>("strip_left", true);
    add(Normalizer::Strip{left, fields.or_default<bool>("strip_right", true)});
  } else if (type == "Replace") {
    PatternText pattern = pattern_of(fields);
    Normalizer::Replace replace{.text = {}, .regex = {}, .by = content_of(fields, "content")};
    if (pattern.regex)
      replace.regex.emplace(pattern.text, fields.where());
    else
      replace.text = std::move(pattern.text);
    add(std::move(replace));
  } else if (type == "BertNormalizer") {
    const bool lowercase = fields.or_default<bool>("lowercase", true);
    add(Normalizer::Bert{.clean_text = fields.or_default<bool>("clean_text", true),
                         .chinese_characters = fields.or_default<bool>("handle_chinese_chars", true),
                         .strip_accents = fields.or_default<bool>("strip_accents", lowercase),
                         .lowercase = lowercase});
  } else if (type == "Precompiled") {
    const std::string table = fields.or_default<std::string>("precompiled_charsmap", "");
    if (!table.empty()) add(Charsmap(from_base64(table, fields.where()), fields.where()));
  } else if (type == "Sequence") {
    for (const Json& part : fields.required<std::vector<Json>>("normalizers"))
      read_normalizer(Fields(part, fields.where()), normalizer);
  } else {
    refuse_type(fields, type);
  }
  check_steps(fields, normalizer.steps.size());
  fields.finish();
}

bool read_pre_tokenizer(Fields fields, Splitter& splitter) {
  const std::string type = type_of(fields);
  const auto add = [&](std::string_view pattern, Matches matches, bool invert = false) {
    if (pattern == gpt2_pattern && matches == Matches::isolated && !invert)
      splitter.stages.emplace_back(Splitter::Gpt2{});
    else
      splitter.stages.emplace_back(Splitter::Pattern{Regex(pattern, fields.where()), matches, invert});
  };
  const std::string punctuation = R"([\p{P}!-/:-@\[-`{-~])", space = R"(\s+)";
  bool bytes = false;
  if (type == "ByteLevel") {
    bytes = true;
    if (fields.or_default<bool>("add_prefix_space", true)) splitter.stages.emplace_back(Splitter::AddSpace{});
    if (fields.or_default<bool>("use_regex", true)) splitter.stages.emplace_back(Splitter::Gpt2{});
    splitter.stages.emplace_back(Splitter::ByteAlphabet{});
    fields.ignore("trim_offsets");
  } else if (type == "Split") {
    const PatternText pattern = pattern_of(fields);
    const Matches matches = matches_of(fields, nullptr);
    add(pattern.regex ? pattern.text : escaped(pattern.text), matches, fields.or_default<bool>("invert", false));
  } else if (type == "Digits") {
    add(fields.or_default<bool>("individual_digits", false) ? R"(\p{N})" : R"(\p{N}+)", Matches::isolated);
  } else if (type == "Punctuation") {
    add(punctuation, matches_of(fields, "Isolated"));
  } else if (type == "Whitespace") {
    splitter.stages.emplace_back(
        Splitter::Pattern{Regex(fmt::format("[{0}]+|[^{0}\\s]+", word_class), fields.where()), Matches::removed, true});
  } else if (type == "WhitespaceSplit") {
    add(space, Matches::removed);
  } else if (type == "BertPreTokenizer") {
    add(space, Matches::removed), add(punctuation, Matches::isolated);
  } else if (type == "CharDelimiterSplit") {
    const std::string delimiter = fields.required<std::string>("delimiter");
    if (delimiter.empty()) fail("{}: the delimiter is empty", fields.where());
    add(escaped(delimiter), Matches::removed);
  } else if (type == "Metaspace") {
    splitter.stages.emplace_back(metaspace_of(fields));
  } else if (type == "Sequence") {
    for (const Json& part : fields.required<std::vector<Json>>("pretokenizers")) {
      const bool now = read_pre_tokenizer(Fields(part, fields.where()), splitter);
      if (now && bytes) refuse(fields.where(), "more than one ByteLevel");
      bytes |= now;
    }
  } else {
    refuse_type(fields, type);
  }
  check_steps(fields, splitter.stages.size());
  fields.finish();
  return bytes;
}

namespace {

// One step; true if what follows works on the text of all tokens.
void read_decoder_step(Fields fields, Decoder& decoder, bool& fused) {
  const std::string type = type_of(fields);
  std::vector<Decoder::Step>& steps = fused ? decoder.whole_steps : decoder.steps;
  if (type == "Sequence") {
    for (const Json& part : fields.required<std::vector<Json>>("decoders"))
      read_decoder_step(Fields(part, fields.where()), decoder, fused);
  } else if (type == "Fuse") {
    fused = true;
  } else if (type == "Replace") {
    const PatternText pattern = pattern_of(fields);
    if (pattern.regex) refuse(fields.where(), "a decoder that replaces a regular expression");
    steps.emplace_back(Decoder::Replace{pattern.text, content_of(fields, "content")});
  } else if (type == "Strip") {
    const std::string text = fields.or_default<std::string>("content", " ");
    if (text.empty()) fail("{}: the content to strip is empty", fields.where());
    const i64 left = fields.or_default<i64>("start", 0, {.least = 0}),
              right = fields.or_default<i64>("stop", 0, {.least = 0});
    steps.emplace_back(Decoder::Strip{text, static_cast<size_t>(left), static_cast<size_t>(right)});
  } else if (fused) {
    refuse(fields.where(), fmt::format("'{}' after Fuse", printable(type)));
  } else if (type == "ByteLevel") {
    steps.emplace_back(Decoder::ByteAlphabet{});
    for (const char* field : {"add_prefix_space", "trim_offsets", "use_regex"}) fields.ignore(field);
  } else if (type == "ByteFallback") {
    steps.emplace_back(Decoder::ByteFallback{});
  } else if (type == "Metaspace") {
    const Splitter::Metaspace metaspace = metaspace_of(fields);
    steps.emplace_back(Decoder::Metaspace{metaspace.space, metaspace.prepend != Splitter::Prepend::never});
  } else if (type == "WordPiece") {
    const std::string prefix = fields.or_default<std::string>("prefix", "##");
    steps.emplace_back(Decoder::WordPiece{prefix, fields.or_default<bool>("cleanup", true)});
  } else {
    refuse_type(fields, type);
  }
  check_steps(fields, decoder.steps.size() + decoder.whole_steps.size());
  fields.finish();
}

i32 id_in(const Json& json, const std::string& where) {
  if (!json.is_number_integer() || json.get<i64>() < 0 || json.get<i64>() >= largest_vocabulary)
    fail("{}: found {}, expected a token id", where, printable(format_json(json, where)));
  return static_cast<i32>(json.get<i64>());
}

}  // namespace

void read_decoder(Fields fields, Decoder& decoder) {
  bool fused = false;
  read_decoder_step(std::move(fields), decoder, fused);
}

void read_post_processor(Fields fields, std::vector<i32>& prefix, std::vector<i32>& suffix) {
  const std::string type = type_of(fields);
  const auto around = [&](const std::vector<i32>& before, const std::vector<i32>& after) {
    prefix.insert(prefix.begin(), before.begin(), before.end());
    suffix.insert(suffix.end(), after.begin(), after.end());
  };
  if (type == "Sequence") {
    for (const Json& part : fields.required<std::vector<Json>>("processors"))
      read_post_processor(Fields(part, fields.where()), prefix, suffix);
  } else if (type == "TemplateProcessing") {
    const Json special = fields.or_default<Json>("special_tokens", Json::object());
    std::vector<i32> parts[2];  // before and after the text
    bool text_seen = false;
    for (const Json& part : fields.required<std::vector<Json>>("single")) {
      Fields piece(part, fields.where());
      if (piece.find("Sequence") != nullptr) {
        if (text_seen) refuse(fields.where(), "a template that holds the text twice");
        text_seen = true;
        continue;
      }
      const std::string name = piece.object("SpecialToken").required<std::string>("id");
      Fields all(special, fields.where() + ": special_tokens");
      const std::string place = fmt::format("{}: special token '{}'", fields.where(), printable(name));
      for (const Json& id : all.object(name).required<std::vector<Json>>("ids"))
        parts[text_seen].push_back(id_in(id, place));
    }
    around(parts[0], parts[1]);
  } else if (type == "BertProcessing" || type == "RobertaProcessing") {
    const auto pair = [&](const char* field) {
      const auto items = fields.required<std::vector<Json>>(field);
      if (items.size() != 2) fail("{}: '{}' is not a pair of token and id", fields.where(), field);
      return id_in(items[1], fmt::format("{}: {}", fields.where(), field));
    };
    const i32 first = pair("cls");
    around({first}, {pair("sep")});
  } else if (type != "ByteLevel") {  // which only moves offsets
    refuse_type(fields, type);
  }
}

}  // namespace sparsam
