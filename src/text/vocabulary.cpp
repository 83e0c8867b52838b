// A tokenizer as a vocabulary that a GGUF file can hold.
#include <algorithm>

#include "base/error.h"
#include "formats/json.h"
#include "text/pre_tokenizers.h"
#include "text/tokenizer.h"
#include "text/tokenizer_data.h"

namespace sparsam {
namespace {

[[noreturn]] void cannot(const TokenizerData& data, std::string_view what) {
  fail("{}: GGUF has no way to say {}", data.where, what);
}

Vocabulary with_tokens(const TokenizerData& data) {
  Vocabulary v{};
  static_cast<SpecialIds&>(v) = data.special;
  for (i32 id = 0; id < data.names.size(); ++id) {
    v.tokens.push_back(data.names[id].value_or(fmt::format("[PAD{}]", id)));
    v.types.push_back(data.names[id] ? TokenType::normal : TokenType::unused);
  }
  for (const AddedToken& token : data.added.all())
    v.types[static_cast<size_t>(token.id)] = token.special ? TokenType::control : TokenType::user_defined;
  if (data.prefix.size() > 1 || data.suffix.size() > 1) cannot(data, "that several tokens stand before a text");
  if (!data.prefix.empty()) v.bos = data.prefix[0], v.add_bos = true;
  if (!data.suffix.empty()) {
    if (v.eos && *v.eos != data.suffix[0]) cannot(data, "that the token after a text is not the end token");
    v.eos = data.suffix[0], v.add_eos = true;
  }
  if (!v.eos) v.eos = data.end_of_text;
  return v;
}

struct Merge {
  i32 rank, left, right, id;
};
std::vector<Merge> merges_of(const Bpe& bpe) {
  std::vector<Merge> merges;
  bpe.merges().each([&](i32 left, i32 right, MergeTable::Merge m) { merges.push_back({m.rank, left, right, m.id}); });
  std::sort(merges.begin(), merges.end(), [](const Merge& a, const Merge& b) { return a.rank < b.rank; });
  return merges;
}

std::vector<std::string> patterns_of(const TokenizerData& data) {
  std::vector<std::string> patterns;
  for (const Splitter::Stage& stage : data.splitter.stages) {
    if (std::holds_alternative<Splitter::Gpt2>(stage)) {
      patterns.emplace_back(gpt2_pattern);
    } else if (const auto* pattern = std::get_if<Splitter::Pattern>(&stage)) {
      if (pattern->matches != Matches::isolated && !(pattern->matches == Matches::removed && pattern->invert))
        cannot(data, "a pre-tokenizer that does anything but isolate its matches");
      patterns.push_back(pattern->regex.pattern());
    } else {
      cannot(data, "a pre-tokenizer that changes the text");
    }
  }
  return patterns;
}

void set_byte_level(const TokenizerData& data, const Bpe& bpe, Vocabulary& v) {
  for (const Normalizer::Step& step : data.normalizer.steps)
    if (!std::holds_alternative<NormalForm>(step)) cannot(data, "the normalizer of this byte-level BPE");
  v.model = "gpt2";
  const std::vector<std::string> patterns = patterns_of(data);
  for (const PreTokenizer& known : known_pre_tokenizers())
    if (known.patterns == patterns && known.ignore_merges == bpe.options().ignore_merges && v.pre.empty())
      v.pre = known.names[0];
  if (v.pre.empty()) {
    std::string text;
    for (const std::string& pattern : patterns) text.append(text.empty() ? "'" : ", '").append(pattern).append("'");
    fail("{}: llama.cpp has no name for the pre-tokenizer {}{}", data.where, text,
         bpe.options().ignore_merges ? " with ignore_merges" : "");
  }
  for (const Merge& m : merges_of(bpe)) v.merges.push_back(*data.names[m.left] + " " + *data.names[m.right]);
}

bool is_spaces(std::string_view text) {
  constexpr std::string_view space = "\u2581";
  while (text.starts_with(space)) text.remove_prefix(space.size());
  return text.empty();
}

// Sentencepiece's BPE has no list of merges but a score for each token: the sooner it is made the higher. Lists that
// were made from such a model order all merges by the token they make; only runs of spaces, which have one score, are
// mixed. A list that orders merges otherwise cannot be said.
void set_scores(const TokenizerData& data, const std::vector<Merge>& merges, Vocabulary& v) {
  std::vector<i32> last(v.tokens.size(), -1);  // rank of the last merge that makes a token
  for (const Merge& m : merges) last[static_cast<size_t>(m.id)] = m.rank;
  v.scores.assign(v.tokens.size(), 0.0f);
  i32 score = 0, previous = -1, open_until = -1;  // ranks up to which tokens are mixed
  std::vector<bool> made(v.tokens.size());
  for (const Merge& m : merges) {
    const size_t id = static_cast<size_t>(m.id);
    const bool mixed = m.rank <= open_until && m.id != previous;
    if (mixed && !(is_spaces(v.tokens[id]) && is_spaces(v.tokens[static_cast<size_t>(previous)])))
      fail("{}: GGUF cannot say merges whose order is not that of the tokens they make: '{}' between those of '{}'",
           data.where, printable(v.tokens[id]), printable(v.tokens[static_cast<size_t>(previous)]));
    if (!mixed && m.id != previous) --score;
    if (!made[id]) v.scores[id] = static_cast<float>(score);
    made[id] = true;
    open_until = std::max(open_until, last[id]);
    previous = m.id;
  }
  for (size_t id = 0; id < v.tokens.size(); ++id) {
    const std::string& name = v.tokens[id];
    if (name.size() == 6 && name.starts_with("<0x") && v.types[id] == TokenType::normal)
      v.types[id] = TokenType::byte;
    else if (v.types[id] == TokenType::normal && !made[id])
      v.scores[id] = static_cast<float>(--score);
  }
}

void set_scored_bpe(const TokenizerData& data, const Bpe& bpe, Vocabulary& v) {
  v.model = "llama", v.pre = "default";
  bool escapes = false;
  for (const Normalizer::Step& step : data.normalizer.steps) {
    const auto* prepend = std::get_if<Normalizer::Prepend>(&step);
    const auto* replace = std::get_if<Normalizer::Replace>(&step);
    if (prepend != nullptr && prepend->text == "\u2581" && !escapes)
      v.add_space_prefix = true;
    else if (replace != nullptr && !replace->regex && replace->text == " " && replace->by == "\u2581")
      escapes = true;
    else
      cannot(data, "the normalizer of this BPE");
  }
  for (const Splitter::Stage& stage : data.splitter.stages) {
    const auto* metaspace = std::get_if<Splitter::Metaspace>(&stage);
    const auto* pattern = std::get_if<Splitter::Pattern>(&stage);
    if (metaspace != nullptr && !escapes) {
      v.add_space_prefix = metaspace->prepend != Splitter::Prepend::never;
      escapes = true;
    } else if (pattern == nullptr || !escapes || pattern->regex.pattern() != " ") {  // which is no longer there
      cannot(data, "the pre-tokenizer of this BPE");
    }
  }
  if (!escapes) cannot(data, "a BPE over characters without sentencepiece's spaces");
  set_scores(data, merges_of(bpe), v);
  v.unk = bpe.options().unk;
  if (v.unk) v.types[static_cast<size_t>(*v.unk)] = TokenType::unknown;
}

void set_unigram(const TokenizerData& data, const Unigram& unigram, Vocabulary& v) {
  v.model = "t5", v.pre = "default";
  for (const Normalizer::Step& step : data.normalizer.steps) {
    const auto* replace = std::get_if<Normalizer::Replace>(&step);
    if (const auto* charsmap = std::get_if<Charsmap>(&step))
      v.charsmap = charsmap->bytes();
    else if (std::holds_alternative<Normalizer::Strip>(step) || (replace != nullptr && replace->regex))
      v.remove_extra_whitespaces = true;
    else
      cannot(data, "the normalizer of this Unigram model");
  }
  for (const Splitter::Stage& stage : data.splitter.stages) {
    const auto* pattern = std::get_if<Splitter::Pattern>(&stage);
    if (const auto* metaspace = std::get_if<Splitter::Metaspace>(&stage))
      v.add_space_prefix = metaspace->prepend != Splitter::Prepend::never;
    else if (pattern != nullptr && pattern->matches == Matches::removed && pattern->regex.pattern() == R"(\s+)")
      v.remove_extra_whitespaces = true;
    else
      cannot(data, "the pre-tokenizer of this Unigram model");
  }
  for (double score : unigram.scores()) v.scores.push_back(static_cast<float>(score));
  v.scores.resize(v.tokens.size());
  if (v.unk) v.types[static_cast<size_t>(*v.unk)] = TokenType::unknown;
}

void set_word_piece(const TokenizerData& data, const WordPiece& model, Vocabulary& v) {
  const auto* bert =
      data.normalizer.steps.size() == 1 ? std::get_if<Normalizer::Bert>(&data.normalizer.steps[0]) : nullptr;
  if (bert == nullptr || model.prefix() != "##" || bert->lowercase != bert->strip_accents)
    cannot(data, "the normalizer of this WordPiece model");
  v.model = "bert", v.pre = "default";
  v.lowercase = bert->lowercase;
  for (std::string& token : v.tokens) {
    if (token.starts_with('[') && token.ends_with(']')) continue;
    token = token.starts_with("##") ? token.substr(2) : "\u2581" + token;
  }
  if (!data.prefix.empty()) v.cls = data.prefix[0];
  if (!data.suffix.empty()) v.sep = data.suffix[0];
}

}  // namespace

Vocabulary Tokenizer::vocabulary() const {
  const TokenizerData& data = *data_;
  if (data.vocabulary) {
    Vocabulary v = *data.vocabulary;
    if (v.model != "llama" && v.model != "t5" && v.model != "gpt2" && v.model != "bert")
      cannot(data, "a sentencepiece model of kind '" + v.model + "'");
    if (data.from_sentencepiece) v.add_bos = !data.prefix.empty(), v.add_eos = !data.suffix.empty();
    return v;
  }
  Vocabulary v = with_tokens(data);
  if (const auto* bpe = std::get_if<Bpe>(&data.model))
    bpe->options().byte_level ? set_byte_level(data, *bpe, v) : set_scored_bpe(data, *bpe, v);
  else if (const auto* unigram = std::get_if<Unigram>(&data.model))
    set_unigram(data, *unigram, v);
  else
    set_word_piece(data, std::get<WordPiece>(data.model), v);
  return v;
}

}  // namespace sparsam
