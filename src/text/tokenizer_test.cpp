#include "text/tokenizer.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>

#include "base/error.h"
#include "base/random.h"
#include "base/test_support.h"
#include "base/threads.h"
#include "formats/json.h"
#include "text/bpe.h"
#include "text/regex.h"
#include "text/splitter.h"

namespace sparsam {
namespace {

const std::string golden = SPARSAM_TEST_DATA "/text/";
const fs::path data = SPARSAM_DATA;

Json read_json(const fs::path& path) { return parse_json(read_text(path), path.string()); }

Tokenizer small() { return Tokenizer::load(golden + "tokenizer_small.json"); }

std::string random_bytes(Random& random, size_t size, std::string_view alphabet = {}) {
  std::string text;
  while (text.size() < size)
    text.push_back(alphabet.empty() ? static_cast<char>(random.below(256)) : alphabet[random.below(alphabet.size())]);
  return text;
}

// Random text of whole characters, often of the same kind in a row, with some ill-formed bytes.
std::string random_text(Random& random, size_t size) {
  const std::string_view pieces[] = {" ",
                                     "  ",
                                     "\n",
                                     "'s",
                                     "'ll",
                                     "'",
                                     "a",
                                     "Z",
                                     "xyz",
                                     "0",
                                     "42",
                                     ".",
                                     "!?",
                                     "é",
                                     "中",
                                     "\t",
                                     "½",
                                     "\u00a0",
                                     "\u3000",
                                     "😀",
                                     "\u0301",
                                     "Ж",
                                     "\u180e",
                                     "\xff",
                                     "\xe2\x82",
                                     "\xed\xa0\x80",
                                     "\xf4\x90\x80\x80",
                                     "\xc0\xaf",
                                     "\u2028"};
  std::string text;
  while (text.size() < size) {
    if (random.below(8) == 0)
      append_utf8(text, static_cast<u32>(random.below(0x3000)));  // never a surrogate
    else
      text += pieces[random.below(std::size(pieces))];
  }
  return text;
}

// A directory from before tokenizer.json.
class VocabularyAndMerges : public testing::Test {
 protected:
  VocabularyAndMerges() {
    fs::create_directories(folder);
    const std::string text = "low lower lowest \u00e9t\u00e9 e\u0301te\u0301 12 123 low low lower lowest";
    learnt = train_tokenizer(std::vector<std::string_view>{text, text}, 280);
    const Json json = parse_json(learnt->to_json(), "learnt");
    write_text(folder / "vocab.json", json["model"]["vocab"].dump());
    std::string merges = "#version: 0.2\n";
    for (const Json& merge : json["model"]["merges"])
      merges += merge.is_string() ? merge.get<std::string>() + "\n"
                                  : merge[0].get<std::string>() + " " + merge[1].get<std::string>() + "\n";
    write_text(folder / "merges.txt", merges);
  }
  ~VocabularyAndMerges() override { fs::remove_all(folder); }
  Tokenizer with(const Json& config) const {
    write_text(folder / "tokenizer_config.json", config.dump());
    return Tokenizer::load(folder);
  }
  std::string refusal(const Json& config) const {
    return error_of([&] { with(config); });
  }
  const fs::path folder = fs::temp_directory_path() / fmt::format("sparsam_vocab_{}", ::getpid());
  std::optional<Tokenizer> learnt;
};

TEST_F(VocabularyAndMerges, AreGpt2sWhereTheConfigSaysSo) {
  const std::string text = "lower, \u00e9t\u00e9 123<|endoftext|> lowest\n";
  const Tokenizer plain = with({{"tokenizer_class", "GPT2Tokenizer"}});
  EXPECT_EQ(plain.encode(text), learnt->encode(text));
  EXPECT_EQ(plain.decode(plain.encode(text)), text);
  EXPECT_EQ(plain.end_of_text(), learnt->end_of_text());
  EXPECT_TRUE(plain.prefix().empty());
  const Tokenizer spaced = with({{"tokenizer_class", "GPT2TokenizerFast"}, {"add_prefix_space", true}});
  EXPECT_EQ(spaced.encode("low"), learnt->encode(" low"));
  // OPT's way: a token before each text, here one that is added to the vocabulary.
  write_text(folder / "added_tokens.json", R"({"<s>": 300})");
  const Tokenizer opt = with({{"tokenizer_class", "GPT2Tokenizer"},
                              {"bos_token", {{"__type", "AddedToken"}, {"content", "<s>"}, {"lstrip", false}}},
                              {"add_bos_token", true}});
  EXPECT_EQ(opt.prefix(), std::vector<i32>{300});
  EXPECT_EQ(opt.encode("<s>"), std::vector<i32>{300});
}

TEST_F(VocabularyAndMerges, AreQwensWhereTheConfigSaysSo) {
  const Tokenizer qwen = with({{"tokenizer_class", "Qwen2Tokenizer"},
                               {"added_tokens_decoder", {{"301", {{"content", "<|im_end|>"}, {"special", true}}}}},
                               {"eos_token", "<|im_end|>"}});
  EXPECT_EQ(qwen.encode("e\u0301te\u0301"), qwen.encode("\u00e9t\u00e9"));
  EXPECT_EQ(qwen.encode("123"), (std::vector{*qwen.id_of("1"), *qwen.id_of("2"), *qwen.id_of("3")}));  // digit by digit
  EXPECT_EQ(qwen.encode("<|im_end|>"), std::vector<i32>{301});
  EXPECT_EQ(qwen.end_of_text(), learnt->end_of_text());
}

TEST_F(VocabularyAndMerges, OfUnknownKindsAreRefused) {
  const auto says = [](const std::string& error, std::string_view part) {
    EXPECT_NE(error.find(part), std::string::npos) << "'" << error << "' does not say '" << part << "'";
  };
  says(refusal({{"tokenizer_class", "RobertaTokenizer"}}), "RobertaTokenizer");
  says(refusal(Json::object()), "neither tokenizer_class nor model_type");
  write_text(folder / "config.json", R"({"model_type": "opt"})");
  EXPECT_EQ(with(Json::object()).encode("lower"), learnt->encode("lower"));
  says(refusal({{"add_bos_token", true}, {"bos_token", "<none>"}}), "<none>");
  write_text(folder / "merges.txt", "l o w\n");
  says(refusal({{"tokenizer_class", "GPT2Tokenizer"}}), "l o w");
  fs::remove(folder / "merges.txt");
  says(refusal({{"tokenizer_class", "GPT2Tokenizer"}}), "nor vocab.json with merges.txt");
}

TEST(Tokenizer, IdsAreThoseOfHuggingFace) {
  const Json cases = read_json(golden + "tokenizer_golden.json");
  const Json base = read_json(golden + "tokenizer_small.json");
  for (const Json& layout : cases["layouts"]) {
    Json json = base;
    for (const auto& [key, value] : layout["patch"].items()) {
      if (key != "model") {
        json[key] = value;
        continue;
      }
      json["model"]["ignore_merges"] = value["ignore_merges"];
      auto& merges = json["model"]["merges"].get_ref<Json::array_t&>();
      merges.resize(value["merges"].get<size_t>());
    }
    const std::string name = layout["name"];
    const Tokenizer tokenizer = Tokenizer::from_json(json.dump(), name);
    for (size_t i = 0; i < cases["texts"].size(); ++i) {
      const std::string text = cases["texts"][i];
      const auto ids = tokenizer.encode(text);
      EXPECT_EQ(ids, layout["ids"][i].get<std::vector<i32>>()) << name << ": '" << text << "'";
      if (name != "prefix_space" && name != "added") {
        EXPECT_EQ(tokenizer.decode(ids), text) << name;
      }
    }
  }
}

TEST(Tokenizer, GivesBackAnyBytes) {
  const Tokenizer tokenizer = small();
  Random random(1);
  for (size_t size : {0, 1, 2, 3, 7, 47, 48, 49, 50, 300, 5000}) {
    for (int i = 0; i < 20; ++i) {
      for (const std::string& text :
           {random_bytes(random, size), random_bytes(random, size, "aeth \n"), random_text(random, size)}) {
        const auto ids = tokenizer.encode(text);
        ASSERT_EQ(tokenizer.decode(ids), text);
        ASSERT_EQ(encode_parallel(tokenizer, text), ids);
      }
    }
  }
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(all)), all);
}

TEST(Tokenizer, SpecialTokensAreTextWhenAsked) {
  const Tokenizer tokenizer = small();
  ASSERT_EQ(tokenizer.end_of_text(), 0);
  EXPECT_EQ(tokenizer.beginning_of_text(), std::nullopt);
  const std::string text = "one<|endoftext|>two";
  const auto ids = tokenizer.encode(text);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 0), 1);
  const auto plain = tokenizer.encode(text, SpecialTokens::as_text);
  EXPECT_EQ(std::count(plain.begin(), plain.end(), 0), 0);
  EXPECT_EQ(tokenizer.decode(ids), text);
  EXPECT_EQ(tokenizer.decode(plain), text);
  EXPECT_THROW(tokenizer.decode(std::vector<i32>{700}), Error);
  EXPECT_THROW(tokenizer.bytes_of(-1), Error);
}

TEST(Tokenizer, ParallelIdsAreTheSame) {
  const Tokenizer tokenizer = small();
  Random random(2);
  std::string text;
  while (text.size() < (6u << 20)) {
    text += random_text(random, 4000);
    if (random.below(40) == 0) text += "<|endoftext|>";
    if (random.below(400) == 0) text += std::string(1 << 19, 'a');
  }
  const auto ids = tokenizer.encode(text);
  EXPECT_EQ(encode_parallel(tokenizer, text), ids);
  EXPECT_EQ(tokenizer.decode(ids), text);
}

TEST(Splitter, ScannerEqualsTheRegularExpression) {
  const Regex regex(gpt2_pattern, "GPT-2");
  Random random(3);
  const auto compare = [&](const std::string& text) {
    std::vector<std::string> scanned, matched;
    split_gpt2(text, [&](std::string_view piece) { scanned.emplace_back(piece); });
    regex.split(text, [&](std::string_view piece) { matched.emplace_back(piece); });
    ASSERT_EQ(scanned, matched) << "'" << text << "'";
  };
  for (int i = 0; i < 20000; ++i) compare(random_text(random, 1 + random.below(40)));
  for (int i = 0; i < 2000; ++i) compare(random_bytes(random, 1 + random.below(40)));
  std::string all;  // every code point, between letters, numbers and spaces
  for (u32 c = 0; c < 0x110000; c += c < 0x3400 || c > 0x1f000 ? 1 : 17) {
    if (c >= 0xD800 && c < 0xE000) continue;
    append_utf8(all, c);
    all += c % 3 == 0 ? "a" : c % 3 == 1 ? " " : "1";
    if (c > 0x20000) c += 97;
  }
  compare(all);
}

// Long runs of one kind must not be taken for a pattern that explodes.
TEST(Splitter, LongRunsAreMatched) {
  const Regex regex(R"([^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
                    "Llama 3");
  constexpr size_t size = 2 << 20;
  for (char c : {' ', '\n', 'a', '\'', '\xff'}) {
    std::vector<size_t> sizes;
    regex.split(std::string(size, c) + "1", [&](std::string_view piece) { sizes.push_back(piece.size()); });
    EXPECT_EQ(sizes, c == ' ' ? (std::vector<size_t>{size - 1, 1, 1}) : (std::vector<size_t>{size, 1})) << c;
  }
  EXPECT_THROW(Regex("(a+)+$", "t").split(std::string(40, 'a') + "b", [](std::string_view) {}), Error);
}

TEST(Splitter, SafeCutsDoNotChangeThePieces) {
  Random random(4);
  for (int i = 0; i < 3000; ++i) {
    const std::string text = random_text(random, 60);
    std::vector<std::string> whole, parts;
    split_gpt2(text, [&](std::string_view piece) { whole.emplace_back(piece); });
    for (std::string_view rest = text; !rest.empty();) {
      const size_t end = gpt2_safe_cut(rest, 1 + random.below(10));
      split_gpt2(rest.substr(0, end), [&](std::string_view piece) { parts.emplace_back(piece); });
      rest.remove_prefix(end);
    }
    ASSERT_EQ(parts, whole) << "'" << text << "'";
  }
}

// The definition, word for word: while a pair has a merge, the leftmost of lowest rank is merged.
TEST(MergeTable, QueueAndScanFollowTheDefinition) {
  Random random(5);
  std::vector<std::array<i32, 3>> merges;  // left, right -> id
  MergeTable table;
  for (i32 id = 4; id < 60; ++id) {
    const i32 left = static_cast<i32>(random.below(static_cast<u64>(std::min(id, 12)))),
              right = static_cast<i32>(random.below(static_cast<u64>(std::min(id, 12))));
    if (std::any_of(merges.begin(), merges.end(), [&](auto& m) { return m[0] == left && m[1] == right; })) continue;
    table.add(left, right, {static_cast<i32>(merges.size()), id});
    merges.push_back({left, right, id});
  }
  for (size_t size : {0, 1, 2, 5, 20, 47, 48, 49, 200}) {
    for (int repeat = 0; repeat < 50; ++repeat) {
      std::vector<i32> symbols;
      for (size_t i = 0; i < size; ++i) symbols.push_back(static_cast<i32>(random.below(4)));
      std::vector<i32> expected = symbols;
      for (bool again = true; again;) {
        again = false;
        for (const auto& [left, right, id] : merges) {
          for (size_t i = 0; i + 1 < expected.size() && !again; ++i)
            if (expected[i] == left && expected[i + 1] == right)
              expected[i] = id, expected.erase(expected.begin() + static_cast<i64>(i) + 1), again = true;
          if (again) break;
        }
      }
      table.apply(symbols);
      ASSERT_EQ(symbols, expected);
    }
  }
}

TEST(Training, IsTheDefinitionOnTinyTexts) {
  // "low" 5 times, "lower" 2, "newest" 6, "widest" 3 (Sennrich et al. 2016, without their end-of-word mark). Ties go to
  // the greatest pair: (w, e) of "newest" and "lower" occurs 8 times, (e, s), (s, t) 9 each.
  std::string text;
  for (auto [word, count] : {std::pair{"low\n", 5}, {"lower\n", 2}, {"newest\n", 6}, {"widest\n", 3}})
    for (int i = 0; i < count; ++i) text += word;
  const std::string_view view = text;
  const Tokenizer tokenizer = train_tokenizer(std::span(&view, 1), 257 + 5);
  std::vector<std::string> learnt;
  for (i32 id = 257; id < tokenizer.vocab_size(); ++id) learnt.emplace_back(tokenizer.bytes_of(id));
  EXPECT_EQ(learnt, (std::vector<std::string>{"st", "est", "ow", "low", "west"}));
  EXPECT_EQ(tokenizer.encode("lowest").size(), 2u);
}

TEST(Training, IsDeterministicAndReadBack) {
  Random random(6);
  std::string text;
  for (int i = 0; i < 40; ++i)
    text += random_text(random, 2000) + "<|endoftext|>" + random_bytes(random, 2000, "abc def\n");
  const std::string_view view = text;
  const int before = threads();
  set_threads(1);
  const Tokenizer one = train_tokenizer(std::span(&view, 1), 600);
  set_threads(2);
  const Tokenizer two = train_tokenizer(std::span(&view, 1), 600);
  set_threads(before);
  EXPECT_EQ(one.to_json(), two.to_json());
  EXPECT_EQ(one.vocab_size(), 600);
  const Tokenizer again = Tokenizer::from_json(one.to_json(), "again");
  EXPECT_EQ(again.to_json(), one.to_json());
  EXPECT_EQ(again.encode(text), one.encode(text));
  EXPECT_EQ(one.decode(one.encode(text)), text);
  for (i32 id = 1; id < 600; ++id) EXPECT_EQ(one.bytes_of(id).find("<|"), std::string_view::npos);

  const Tokenizer empty = train_tokenizer({}, 1000);
  EXPECT_EQ(empty.vocab_size(), 257);
  EXPECT_EQ(empty.decode(empty.encode(text)), text);
  EXPECT_THROW(train_tokenizer({}, 256), Error);
}

TEST(Training, MergesAreTheReferenceOfCs336) {
  const fs::path folder = data / "tokenizers/cs336";
  if (!fs::exists(folder)) GTEST_SKIP() << "the data folder is not there";
  const std::string text = read_text(folder / "corpus.en");
  const std::string_view view = text;
  const Json trained = parse_json(train_tokenizer(std::span(&view, 1), 500).to_json(), "trained");
  std::string merges;
  for (const Json& merge : trained["model"]["merges"])
    merges += merge[0].get<std::string>() + " " + merge[1].get<std::string>() + "\n";
  EXPECT_EQ(merges, read_text(folder / "train-bpe-reference-merges.txt"));
  const Json vocab = read_json(folder / "train-bpe-reference-vocab.json");
  for (const auto& [token, id] : vocab.items()) EXPECT_EQ(trained["model"]["vocab"][token], id);
}

TEST(TokenizerJson, RefusesByName) {
  const Json base = read_json(golden + "tokenizer_small.json");
  const auto refusal = [&](std::string_view pointer, const Json& value) {
    Json json = base;
    json[Json::json_pointer(std::string(pointer))] = value;
    return error_of([&] { Tokenizer::from_json(json.dump(), "t"); });
  };
  const auto says = [](const std::string& error, std::string_view part) {
    EXPECT_NE(error.find(part), std::string::npos) << "'" << error << "' does not say '" << part << "'";
  };
  says(refusal("/model/type", "WordLevel"), "WordLevel");
  says(refusal("/model/byte_fallback", true), "byte_fallback");
  says(refusal("/model/dropout", 0.1), "dropout");
  says(refusal("/model/end_of_word_suffix", "</w>"), "end_of_word_suffix");
  says(refusal("/model/new_field", 1), "new_field");
  says(refusal("/new_field", 1), "new_field");
  says(refusal("/normalizer", {{"type", "NFX"}}), "NFX");
  says(refusal("/pre_tokenizer", {{"type", "UnicodeScripts"}}), "UnicodeScripts");
  says(refusal("/pre_tokenizer/type", "Whitespace"), "add_prefix_space");
  says(refusal("/post_processor", {{"type", "PairProcessing"}}), "PairProcessing");
  says(refusal("/decoder", {{"type", "CTC"}}), "CTC");
  says(refusal("/truncation", {{"max_length", 5}}), "truncation");
  says(refusal("/added_tokens/0/id", 5), "<|endoftext|>");
  const auto split = [&](const char* regex) {
    return refusal("/pre_tokenizer",
                   {{"type", "Sequence"},
                    {"pretokenizers",
                     {{{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}, {"invert", false}},
                      {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}});
  };
  EXPECT_EQ(split("a+"), "no error");
  says(split("\\w+"), "\\w");
  says(split("([a"), "not valid");
  says(split("[a&&b]"), "&&");
}

TEST(TokenizerJson, BeginningOfText) {
  Json json = read_json(golden + "tokenizer_small.json");
  const auto bos = Json::parse(R"({"type":"TemplateProcessing",
    "single":[{"SpecialToken":{"id":"<|endoftext|>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"pair":[],
    "special_tokens":{"<|endoftext|>":{"id":"<|endoftext|>","ids":[0],"tokens":["<|endoftext|>"]}}})");
  json["post_processor"] = {{"type", "Sequence"},
                            {"processors", {{{"type", "ByteLevel"}, {"trim_offsets", true}}, bos}}};
  EXPECT_EQ(Tokenizer::from_json(json.dump(), "t").beginning_of_text(), 0);
}

TEST(TokenizerJson, AddedTokens) {
  Json json = read_json(golden + "tokenizer_small.json");
  const auto token = [](int id, const char* content, const char* field) {
    Json added{{"id", id}, {"content", content}, {"special", false}, {"normalized", false}};
    added[field] = true;
    return added;
  };
  const i32 size = static_cast<i32>(small().vocab_size());
  json["added_tokens"].push_back(token(size, "<l>", "lstrip"));
  json["added_tokens"].push_back(token(size + 1, "<r>", "rstrip"));
  json["added_tokens"].push_back(token(size + 2, "word", "single_word"));
  const Tokenizer tokenizer = Tokenizer::from_json(json.dump(), "t");
  const auto count = [&](std::string_view text, i32 id) {
    const auto ids = tokenizer.encode(text);
    return std::count(ids.begin(), ids.end(), size + id);
  };
  EXPECT_EQ(tokenizer.encode("a  <l>"), tokenizer.encode("a<l>"));
  EXPECT_EQ(tokenizer.encode("<r> \n b"), tokenizer.encode("<r>b"));
  EXPECT_NE(tokenizer.encode("<l> b"), tokenizer.encode("<l>b"));
  EXPECT_EQ(count("a word, word", 2), 2);
  EXPECT_EQ(count("words sword word_ w\u00f6rd", 2), 0);
}

TEST(TokenizerJson, HostileFiles) {
  const fs::path folder = data / "hostile";
  if (!fs::exists(folder)) GTEST_SKIP() << "the data folder is not there";
  int seen = 0;
  const Json cases = read_json(folder / "cases.json");
  for (const Json& item : cases) {
    const std::string file = item["file"], expect = item["expect"];
    if (!file.starts_with("tokenizer-json/") && !file.starts_with("sentencepiece/")) continue;
    ++seen;
    const std::string error = error_of([&] {
      const Tokenizer tokenizer = Tokenizer::load(folder / file);
      tokenizer.encode(std::string(40, 'a') + "b");
    });
    if (expect == "accept") {
      EXPECT_EQ(error, "no error") << file;
    }
    if (expect == "reject") {
      EXPECT_NE(error, "no error") << file;
    }
  }
  EXPECT_EQ(seen, 17);
}

TEST(Tokenizer, Gpt2) {
  const fs::path folder = data / "tokenizers";
  if (!fs::exists(folder)) GTEST_SKIP() << "the data folder is not there";
  const Tokenizer tokenizer = Tokenizer::load(folder / "hf/gpt2");
  EXPECT_EQ(tokenizer.vocab_size(), 50257);
  EXPECT_EQ(tokenizer.end_of_text(), 50256);
  EXPECT_EQ(Tokenizer::load(folder / "hf/gpt-j").encode("a<|extratoken_1|>"), (std::vector<i32>{64, 50257}));
  const Json paragraph = read_json(folder / "vectors/gpt2_encoded_tokens.json");
  EXPECT_EQ(tokenizer.encode(paragraph["text"].get<std::string>()), paragraph["token_ids"].get<std::vector<i32>>());
}

TEST(Tokenizer, GivesBackAllTexts) {
  const fs::path folder = data / "text";
  if (!fs::exists(folder)) GTEST_SKIP() << "the data folder is not there";
  const Tokenizer tokenizer = small();
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file() || entry.file_size() > (sanitized ? 200'000 : 2 << 20)) continue;
    const std::string text = read_text(entry.path());
    const auto ids = tokenizer.encode(text);
    EXPECT_EQ(tokenizer.decode(ids), text) << entry.path();
    EXPECT_EQ(encode_parallel(tokenizer, text), ids) << entry.path();
  }
}

}  // namespace
}  // namespace sparsam
