// The parts of a tokenizer, each against its definition.
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include "base/error.h"
#include "base/random.h"
#include "base/test_support.h"
#include "formats/json.h"
#include "text/decoder.h"
#include "text/gguf_vocabulary.h"
#include "text/pipeline_json.h"
#include "text/pre_tokenizers.h"
#include "text/tokenizer.h"
#include "text/unigram.h"
#include "text/word_piece.h"

namespace sparsam {
namespace {

const fs::path data = fs::path(SPARSAM_DATA);

Json json(std::string_view text) { return parse_json(text, "test"); }

std::string normalized(std::string_view description, std::string_view text) {
  Normalizer normalizer;
  const Json parsed = json(description);
  read_normalizer(Fields(parsed, "test"), normalizer);
  return normalizer.apply(text);
}

std::vector<std::string> pieces(std::string_view description, std::string_view text, bool first = true) {
  Splitter splitter;
  const Json parsed = json(description);
  read_pre_tokenizer(Fields(parsed, "test"), splitter);
  std::vector<std::string> result;
  splitter.split(text, first, [&](std::string_view piece) { result.emplace_back(piece); });
  return result;
}

using Strings = std::vector<std::string>;

TEST(Normalizer, FormsAreThoseOfUnicode) {
  const fs::path folder = data / "tokenizers/spm";
  if (!fs::exists(folder)) GTEST_SKIP() << "the data folder is not there";
  const std::pair<const char*, NormalForm> tables[] = {
      {"nfc.tsv", NormalForm::nfc}, {"nfd.tsv", NormalForm::nfd}, {"nfkd.tsv", NormalForm::nfkd}};
  for (const auto& [name, form] : tables) {
    std::istringstream lines(read_text(folder / name));
    int rows = 0;
    for (std::string line; std::getline(lines, line);) {
      const auto characters = [](const std::string& codes) {
        std::istringstream numbers(codes);
        std::string text;
        for (u32 code = 0; numbers >> std::hex >> code;) append_utf8(text, code);
        return text;
      };
      const size_t tab = line.find('\t'), end = line.find('\t', tab + 1);
      const std::string from = characters(line.substr(0, tab)), to = characters(line.substr(tab + 1, end - tab - 1));
      EXPECT_EQ(to_normal_form(from, form), to_normal_form(to, form)) << name << " " << line;
      if (form != NormalForm::nfc) {
        EXPECT_EQ(to_normal_form(from, form), to) << name << " " << line;
      }
      ++rows;
    }
    EXPECT_GT(rows, 10000) << name;
  }
}

TEST(Normalizer, KeepsWhatIsNotText) {
  EXPECT_EQ(to_normal_form("e\u0301a\xff\u0301 e\u0301", NormalForm::nfc), "\u00e9a\xff\u0301 \u00e9");
  EXPECT_EQ(to_normal_form("\uac01", NormalForm::nfd), "\u1100\u1161\u11a8");
  EXPECT_EQ(to_normal_form("\ufb01\u00b2", NormalForm::nfkc), "fi2");
  EXPECT_EQ(to_normal_form("", NormalForm::nfc), "");
}

TEST(Normalizer, Steps) {
  EXPECT_EQ(normalized(R"({"type":"Lowercase"})", "ÀB\u0130ß"), "àbi\u0307ß");
  EXPECT_EQ(normalized(R"({"type":"StripAccents"})", "e\u0301\u00e9"), "e\u00e9");
  EXPECT_EQ(normalized(R"({"type":"Prepend","prepend":"_"})", "a"), "_a");
  EXPECT_EQ(normalized(R"({"type":"Prepend","prepend":"_"})", ""), "");
  EXPECT_EQ(normalized(R"({"type":"Strip","strip_left":false,"strip_right":true})", " a \u00a0\n"), " a");
  EXPECT_EQ(normalized(R"({"type":"Replace","pattern":{"Regex":" {2,}"},"content":"_"})", "a   b c"), "a_b c");
  EXPECT_EQ(normalized(R"({"type":"Replace","pattern":{"String":"aa"},"content":"b"})", "aaaaa"), "bba");
  EXPECT_EQ(normalized(R"({"type":"BertNormalizer"})", "H\u00e9\t\u4e2d\u0007x"), "he  \u4e2d x");
  EXPECT_EQ(normalized(R"({"type":"BertNormalizer","lowercase":false})", "H\u00e9"), "H\u00e9");
}

TEST(Normalizer, CannotBeMadeToExplode) {
  Json steps = Json::array();
  const Json twice{{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aa"}};
  for (int i = 0; i < 60; ++i) steps.push_back(twice);
  EXPECT_THROW(normalized(Json{{"type", "Sequence"}, {"normalizers", steps}}.dump(), "a"), Error);
  for (int i = 0; i < 10; ++i) steps.push_back(twice);
  EXPECT_THROW(normalized(Json{{"type", "Sequence"}, {"normalizers", steps}}.dump(), ""), Error);
  EXPECT_THROW(normalized(Json{{"type", "Prepend"}, {"prepend", std::string(1000, 'a')}}.dump(), "a"), Error);
  Json stages = Json::array();
  for (int i = 0; i < 100; ++i) stages.push_back({{"type", "Digits"}});
  EXPECT_THROW(pieces(Json{{"type", "Sequence"}, {"pretokenizers", stages}}.dump(), "a"), Error);
}

TEST(Splitter, EveryUseOfMatches) {  // the examples of Hugging Face's documentation: "the-final--countdown"
  const auto split = [](const char* behavior, bool invert = false) {
    const Json description{
        {"type", "Split"}, {"pattern", {{"String", "-"}}}, {"behavior", behavior}, {"invert", invert}};
    return pieces(description.dump(), "the-final--countdown");
  };
  EXPECT_EQ(split("Removed"), (Strings{"the", "final", "countdown"}));
  EXPECT_EQ(split("Isolated"), (Strings{"the", "-", "final", "-", "-", "countdown"}));
  EXPECT_EQ(split("MergedWithPrevious"), (Strings{"the-", "final-", "-", "countdown"}));
  EXPECT_EQ(split("MergedWithNext"), (Strings{"the", "-final", "-", "-countdown"}));
  EXPECT_EQ(split("Contiguous"), (Strings{"the", "-", "final", "--", "countdown"}));
  EXPECT_EQ(split("Removed", true), (Strings{"-", "-", "-"}));
}

TEST(Splitter, Kinds) {
  EXPECT_EQ(pieces(R"({"type":"Whitespace"})", "Hey, you_2!? a"), (Strings{"Hey", ",", "you_2", "!?", "a"}));
  EXPECT_EQ(pieces(R"({"type":"WhitespaceSplit"})", " Hey,  you "), (Strings{"Hey,", "you"}));
  EXPECT_EQ(pieces(R"({"type":"BertPreTokenizer"})", "Hey, you!?"), (Strings{"Hey", ",", "you", "!", "?"}));
  EXPECT_EQ(pieces(R"({"type":"Digits","individual_digits":true})", "a12"), (Strings{"a", "1", "2"}));
  EXPECT_EQ(pieces(R"({"type":"Digits"})", "a12b"), (Strings{"a", "12", "b"}));
  EXPECT_EQ(pieces(R"({"type":"CharDelimiterSplit","delimiter":"|"})", "a|b||c"), (Strings{"a", "b", "c"}));
  const auto metaspace = [](const char* scheme, bool split, std::string_view text, bool first) {
    const Json description{{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", scheme}, {"split", split}};
    return pieces(description.dump(), text, first);
  };
  EXPECT_EQ(metaspace("always", true, "a b  c", false), (Strings{"_a", "_b", "_", "_c"}));
  EXPECT_EQ(metaspace("first", true, "a b", true), (Strings{"_a", "_b"}));
  EXPECT_EQ(metaspace("first", true, "a b", false), (Strings{"a", "_b"}));
  EXPECT_EQ(metaspace("never", false, "a b", true), (Strings{"a_b"}));
  EXPECT_EQ(metaspace("always", true, " a", true), (Strings{"_a"}));
  // Falcon cuts digits after ByteLevel, where the bytes of other characters look like digits: ² is one.
  EXPECT_EQ(pieces(R"({"type":"Sequence","pretokenizers":[{"type":"ByteLevel","add_prefix_space":false},
                       {"type":"Digits","individual_digits":true}]})",
                   "a 12"),
            (Strings{"a", "\u0120", "1", "2"}));
}

// Of all ways to cut a text, the one of the highest sum.
TEST(Unigram, IsTheBestOfAllWays) {
  Random random(1);
  Lexicon lexicon;
  const Strings texts = {"<unk>", "a", "b", "ab", "ba", "aab", "\u00e9", "\u00e9a", "bab", "abab"};
  lexicon.assign({texts.begin(), texts.end()});
  for (int repeat = 0; repeat < 200; ++repeat) {
    std::vector<double> scores = {0};
    for (size_t i = 1; i < texts.size(); ++i) scores.push_back(-1 - static_cast<double>(random.below(1000000)) / 1e5);
    const double worst = *std::min_element(scores.begin(), scores.end()) - 10;
    const Unigram model(lexicon, scores, 0, std::nullopt);
    std::string text;
    const std::string_view letters[] = {"a", "b", "\u00e9", "c"};
    for (int i = 0; i < 7; ++i) text += letters[random.below(4)];
    std::vector<i32> ids;
    model.encode(text, ids);
    double best = -1e9;
    std::vector<i32> expected;
    const auto search = [&](auto&& self, size_t at, double sum, std::vector<i32> path) -> void {
      if (at == text.size() && sum > best) best = sum, expected = path;
      if (at == text.size()) return;
      for (size_t id = 1; id < texts.size(); ++id)
        if (std::string_view(text).substr(at).starts_with(texts[id])) {
          auto longer = path;
          longer.push_back(static_cast<i32>(id));
          self(self, at + texts[id].size(), sum + scores[id], longer);
        }
      if (text[at] == 'c') {  // the one character that no token is
        if (path.empty() || path.back() != 0) path.push_back(0);
        self(self, at + 1, sum + worst, path);
      }
    };
    search(search, 0, 0, {});
    ASSERT_EQ(ids, expected) << text;
  }
}

TEST(WordPiece, LongestFirst) {
  Lexicon lexicon;
  lexicon.assign({"[UNK]", "un", "##aff", "##able", "##a", "##\u00e9", "u", ""});
  const WordPiece model(lexicon, "##", 0, 10);
  const auto ids = [&](std::string_view word) {
    std::vector<i32> out;
    model.encode(word, out);
    return out;
  };
  EXPECT_EQ(ids("unaffable"), (std::vector<i32>{1, 2, 3}));
  EXPECT_EQ(ids("una\u00e9"), (std::vector<i32>{1, 4, 5}));
  EXPECT_EQ(ids("unx"), (std::vector<i32>{0}));
  EXPECT_EQ(ids("unaffableaaa"), (std::vector<i32>{0}));  // 12 characters
  EXPECT_EQ(ids(""), std::vector<i32>{});
}

TEST(Decoder, Steps) {
  Decoder decoder;
  const Json llama = json(R"({"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"\u2581"},
    "content":" "},{"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]})");
  read_decoder(Fields(llama, "test"), decoder);
  EXPECT_EQ(decoder.token("\u2581a", false, false), " a");
  EXPECT_EQ(decoder.token("<0xE4>", false, false), "\xE4");
  EXPECT_EQ(decoder.token("<0xZZ>", false, false), "<0xZZ>");
  EXPECT_EQ(decoder.finish("  a "), " a ");
  Decoder bert;
  const Json word_piece = json(R"({"type":"WordPiece","prefix":"##","cleanup":true})");
  read_decoder(Fields(word_piece, "test"), bert);
  EXPECT_EQ(bert.token("##ing", false, false), "ing");
  EXPECT_EQ(bert.token("ing", false, false), " ing");
  EXPECT_EQ(bert.token(".", false, false), ".");
}

// A table whose root leads to the replacement at byte 0 for "a".
std::string small_charsmap() {
  std::vector<u32> units(256);
  units[0] = 0;                            // offset 0: children at their label
  units['a'] = 'a' | 1u << 8 | 'b' << 10;  // has a value; offset 'b': the value stands at 'a' ^ 'b'
  units['a' ^ 'b'] = 1u << 31;
  const u32 size = 1024;
  std::string bytes(reinterpret_cast<const char*>(&size), 4);
  bytes.append(reinterpret_cast<const char*>(units.data()), size).append("xy").push_back('\0');
  return bytes;
}

TEST(Charsmap, ReplacesAndRefuses) {
  const std::string good = small_charsmap();
  std::string out;
  Charsmap(good, "test").append(out, "bab\u00e9a");
  EXPECT_EQ(out, "bxyb\u00e9xy");
  const auto refused = [](std::string bytes) { EXPECT_THROW(Charsmap(bytes, "test"), Error); };
  refused(""), refused(good.substr(0, 3)), refused(good.substr(0, 1028)), refused(good.substr(0, good.size() - 1));
  std::string outside = good;
  outside[4 + 4 * 'c' + 2] = '\x7F';  // a node whose children are beyond the array
  refused(outside);
  std::string far = good;
  far[4 + 4 * ('a' ^ 'b')] = 99;  // a value beyond the replacements
  refused(far);
}

TEST(Sentencepiece, DamagedModelsAreRefusedOrRead) {
  const fs::path file = data / "tokenizers/spm/test_model.model";
  if (!fs::exists(file)) GTEST_SKIP() << "the data folder is not there";
  const std::string model = read_text(file);
  Random random(2);
  const fs::path damaged = fs::path(testing::TempDir()) / "damaged.model";
  int refused = 0;
  for (int i = 0; i < 150; ++i) {
    std::string bytes = model;
    if (i % 3 == 0)
      bytes.resize(random.below(bytes.size()));
    else
      for (int k = 0; k < 3; ++k)
        bytes[random.below(i % 3 == 1 ? 2000 : bytes.size())] = static_cast<char>(random.below(256));
    write_text(damaged, bytes);
    try {
      Tokenizer::load(damaged).encode("I saw a girl with a telescope.");
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 50);
  fs::remove(damaged);
}

TEST(Tokenizer, OfADirectoryWithASentencepieceModel) {
  const fs::path models = data / "tokenizers";
  if (!fs::exists(models)) GTEST_SKIP() << "the data folder is not there";
  const fs::path folder = fs::path(testing::TempDir()) / "sparsam_spm";
  fs::create_directories(folder);
  fs::copy_file(models / "spm/llama2.model", folder / "tokenizer.model", fs::copy_options::overwrite_existing);
  EXPECT_EQ(Tokenizer::load(folder).prefix(), std::vector<i32>{1});  // the model has such a token
  write_text(folder / "tokenizer_config.json",
             R"({"add_bos_token": false, "add_eos_token": true, "eos_token": {"content": "</s>"},
                 "chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]})");
  const Tokenizer tokenizer = Tokenizer::load(folder);
  EXPECT_TRUE(tokenizer.prefix().empty());
  EXPECT_EQ(tokenizer.suffix(), std::vector<i32>{2});
  EXPECT_EQ(tokenizer.chat_template(), "d");
  EXPECT_TRUE(tokenizer.vocabulary().add_eos);
  write_text(folder / "chat_template.jinja", "j");
  EXPECT_EQ(Tokenizer::load(folder).chat_template(), "j");
  EXPECT_EQ(tokenizer.encode("a</s>b").size(), 3u);
  EXPECT_EQ(tokenizer.encode("a</s>b", SpecialTokens::as_text).size(), 5u);
  fs::remove_all(folder);
}

TEST(PreTokenizers, UnknownNamesAreRefused) {
  Vocabulary v{};
  v.model = "gpt2", v.pre = "llama-bqe", v.tokens = {"a"}, v.types = {TokenType::normal};
  const std::string error = error_of([&] { Tokenizer::from_vocabulary(v, "file"); });
  EXPECT_NE(error.find("llama-bpe"), std::string::npos) << error;
  for (const PreTokenizer& known : known_pre_tokenizers()) {
    v.pre = known.names[0];
    EXPECT_EQ(Tokenizer::from_vocabulary(v, v.pre).encode("a"), std::vector<i32>{0}) << v.pre;
  }
}

TEST(Llama2cVocabulary, Truncated) {
  const fs::path file = data / "weights/stories260K/tok512.bin";
  if (!fs::exists(file)) GTEST_SKIP() << "the data folder is not there";
  const std::string bytes = read_text(file);
  EXPECT_EQ(read_llama2c_vocabulary(bytes, "t").tokens.size(), 512u);
  EXPECT_THROW(read_llama2c_vocabulary(bytes.substr(0, bytes.size() - 1), "t"), Error);
  EXPECT_THROW(read_llama2c_vocabulary(bytes.substr(0, 3), "t"), Error);
  EXPECT_THROW(read_llama2c_vocabulary(std::string(40, '\xFF'), "t"), Error);
  const Tokenizer tokenizer = Tokenizer::load(file);
  EXPECT_EQ(tokenizer.beginning_of_text(), 1);
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("Once upon a time, Zoe\u00e9")), "Once upon a time, Zoe\u00e9");
}

}  // namespace
}  // namespace sparsam
