// Published ids of texts, set by set: every vector must be equal.
#include <gtest/gtest.h>
#include <sentencepiece_processor.h>
#include <unistd.h>

#include <iterator>
#include <span>
#include <sstream>

#include "base/error.h"
#include "base/test_support.h"
#include "formats/json.h"
#include "text/tokenizer.h"

namespace sparsam {
namespace {

const fs::path data = fs::path(SPARSAM_DATA) / "tokenizers";

Json read_json(const fs::path& path) { return parse_json(read_text(path), path.string()); }

std::vector<i32> with_special(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<i32> ids = tokenizer.prefix();
  tokenizer.encode(text, ids);
  ids.insert(ids.end(), tokenizer.suffix().begin(), tokenizer.suffix().end());
  return ids;
}

class TokenizerVectors : public testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(data)) GTEST_SKIP() << "the data folder is not there";
  }
  void same(const std::vector<i32>& ids, const std::vector<i32>& expected, std::string_view text) {
    ++vectors;
    EXPECT_EQ(ids, expected) << "'" << text << "'";
  }
  int vectors = 0;
};

// llama.cpp's: texts between marks, a line of ids for each.
std::vector<std::pair<std::string, std::vector<i32>>> vocabulary_tests(const std::string& name) {
  std::string inputs = read_text(data / ("gguf-vocab/ggml-vocab-" + name + ".gguf.inp"));
  std::istringstream outputs(read_text(data / ("gguf-vocab/ggml-vocab-" + name + ".gguf.out")));
  const std::string mark = "\n__ggml_vocab_test__\n";
  std::vector<std::pair<std::string, std::vector<i32>>> tests;
  for (std::string line; std::getline(outputs, line);) {
    const size_t end = std::min(inputs.find(mark), inputs.size());
    std::istringstream numbers(line);
    tests.emplace_back(inputs.substr(0, end), std::vector<i32>{std::istream_iterator<i32>(numbers), {}});
    inputs.erase(0, end + mark.size());
  }
  return tests;
}

TEST_F(TokenizerVectors, OfLlamaCpp) {
  for (const char* name : {"bert-bge", "falcon", "gpt-2", "llama-spm", "mpt", "phi-3", "starcoder"}) {
    SCOPED_TRACE(name);
    const Tokenizer tokenizer = Tokenizer::load(data / ("gguf-vocab/ggml-vocab-" + std::string(name) + ".gguf"));
    for (const auto& [text, ids] : vocabulary_tests(name)) same(tokenizer.encode(text), ids, text);
  }
  EXPECT_EQ(vectors, 7 * 46);
}

// The same vocabularies as Hugging Face and sentencepiece write them.
TEST_F(TokenizerVectors, OfLlamaCppInOtherFiles) {
  const std::pair<const char*, const char*> twins[] = {{"hf/gpt2", "gpt-2"},
                                                       {"hf/llama", "llama-spm"},
                                                       {"hf/mptt", "mpt"},
                                                       {"hf/mptct", "mpt"},
                                                       {"hf/bertt", "bert-bge"},
                                                       {"spm/llama2.model", "llama-spm"},
                                                       {"spm/llama2c_tokenizer.bin", "llama-spm"},
                                                       {"tiktoken/llama3.tiktoken", "llama-bpe"},
                                                       {"tiktoken/r50k_base.tiktoken", "gpt-2"}};
  int files = 0;
  for (const auto& [file, name] : twins) {
    if (sanitized && std::string_view(file).starts_with("hf/")) continue;  // other tests read these
    SCOPED_TRACE(file);
    const Tokenizer tokenizer = Tokenizer::load(data / file);
    for (const auto& [text, ids] : vocabulary_tests(name)) same(tokenizer.encode(text), ids, text);
    ++files;
  }
  EXPECT_EQ(files, sanitized ? 4 : 9);
  EXPECT_EQ(vectors, files * 46);
}

TEST_F(TokenizerVectors, OfTransformersJs) {
  struct Set {
    const char *family, *model, *file;
  };
  const Set sets[] = {{"gpt2", "Xenova/gpt2", "hf/gpt2"},
                      {"gpt2", "openai-community/gpt2", "hf/gpt2"},
                      {"bert", "Xenova/bert-base-uncased", "hf/bertt"},
                      {"distilbert", "Xenova/distilbert-base-uncased-finetuned-sst-2-english", "hf/bertt"},
                      {"llama", "Xenova/llama-tokenizer", "hf/llama"},
                      {"t5", "Xenova/t5-small", "hf/t5"},
                      {"t5", "google-t5/t5-small", "hf/t5"},
                      {"gpt2", "Xenova/gpt-4", "tiktoken/cl100k_base.tiktoken"},
                      {"llama", "Xenova/llama3-tokenizer-new", "tiktoken/llama3.tiktoken"},
                      {"falcon", "tiiuae/falcon-7b", "gguf-vocab/ggml-vocab-falcon.gguf"}};
  const Json all = read_json(data / "vectors/transformersjs_vectors.json");
  for (const Set& set : std::span(sets).first(sanitized ? 3 : std::size(sets))) {  // reading the files takes long
    SCOPED_TRACE(set.model);
    const Tokenizer tokenizer = Tokenizer::load(data / set.file);
    for (const auto& [name, item] : all[set.family]["models"][set.model].items()) {
      const auto text = item["text"].get<std::string>();
      if (text == "hello" && item["ids"].size() > 3) continue;  // one of a pair of texts
      same(with_special(tokenizer, text), item["ids"].get<std::vector<i32>>(), text);
    }
  }
  EXPECT_EQ(vectors, sanitized ? 81 : 253);
}

TEST_F(TokenizerVectors, OfSwiftTransformers) {
  struct Set {
    const char* file;
    std::vector<const char*> models;
    const char* paragraph;
  };
  const Set sets[] = {{"hf/bertt", {"bert-base-uncased", "google-bert/bert-base-uncased"}, "bert_uncased_encoded"},
                      {"hf/gpt2", {"distilgpt2"}, "gpt2_encoded_tokens"},
                      {"hf/llama", {"coreml-projects/Llama-2-7b-chat-coreml"}, "llama_encoded"},
                      {"hf/t5", {"t5-base"}, "t5_base_encoded"},
                      {"tiktoken/llama3.tiktoken", {"pcuenq/Llama-3.2-1B-Instruct-tokenizer"}, "llama_3.2_encoded"},
                      {"gguf-vocab/ggml-vocab-falcon.gguf", {"tiiuae/falcon-7b"}, "falcon_encoded"}};
  const Json all = read_json(data / "vectors/tokenizer_tests.json");
  for (const auto& [file, models, paragraph] : std::span(sets).first(sanitized ? 2 : std::size(sets))) {
    SCOPED_TRACE(file);
    const Tokenizer tokenizer = Tokenizer::load(data / file);
    for (const char* model : models)
      for (const Json& item : all[model]) {
        const auto text = item["input"].get<std::string>();
        same(with_special(tokenizer, text), item["encoded"]["input_ids"].get<std::vector<i32>>(), text);
      }
    const Json item = read_json(data / "vectors" / (std::string(paragraph) + ".json"));
    const auto ids = item["token_ids"].get<std::vector<i32>>();
    same(with_special(tokenizer, item["text"].get<std::string>()), ids, paragraph);
    if (std::string_view(paragraph) != "bert_uncased_encoded") {  // whose text was cleaned up afterwards
      EXPECT_EQ(tokenizer.decode(ids), item["decoded_text"].get<std::string>()) << paragraph;
    }
  }
  EXPECT_EQ(vectors, sanitized ? 56 : 127 + 6);
}

TEST_F(TokenizerVectors, OfSquadQuestions) {
  const Tokenizer tokenizer = Tokenizer::load(data / "hf/bertt");
  const Json texts = read_json(data / "vectors/question_tokens.json");
  const Json ids = read_json(data / "vectors/tokenized_questions.json");
  ASSERT_EQ(texts.size(), ids.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto text = texts[i]["original"].get<std::string>();
    same(tokenizer.encode(text), ids[i].get<std::vector<i32>>(), text);
  }
  EXPECT_EQ(vectors, 10570);
}

// Lines of two books, encoded by sentencepiece's own library.
TEST_F(TokenizerVectors, OfTheSentencepieceLibrary) {
  struct Set {
    const char *model, *file;
    int different;  // lines on which the two are allowed to differ
  };
  // The library adds scores in single precision, Hugging Face and we in double: a few lines have ways of equal score.
  const Set sets[] = {{"spm/llama2.model", "spm/llama2.model", 0},
                      {"spm/llama2.model", "hf/llama", 0},
                      {"spm/llama2.model", "gguf-vocab/ggml-vocab-llama-spm.gguf", 0},
                      {"spm/llama2.model", "spm/llama2c_tokenizer.bin", 0},
                      {"spm/test_model.model", "spm/test_model.model", 0},
                      {"spm/maxtext_c4_32k.model", "spm/maxtext_c4_32k.model", 0},
                      {"hf/t0pp/spiece.model", "hf/t0pp/spiece.model", 0},
                      {"hf/t0pp/spiece.model", "hf/t0pp", 10},
                      {"hf/t0pp/spiece.model", "hf/t5", 10}};
  std::istringstream books(read_text(data / "spm/botchan.txt") + read_text(data / "spm/wagahaiwa_nekodearu.txt"));
  const size_t most = sanitized ? 300 : 3000;
  std::vector<std::string> lines;
  for (std::string line; std::getline(books, line) && lines.size() < most;)
    if (line.find('<') == std::string::npos) lines.push_back(line);
  for (const Set& set : sets) {
    sentencepiece::SentencePieceProcessor library;
    ASSERT_TRUE(library.Load((data / set.model).string()).ok());
    const Tokenizer tokenizer = Tokenizer::load(data / set.file);
    int different = 0;
    for (const std::string& line : lines) {
      std::vector<int> ids;
      ASSERT_TRUE(library.Encode(line, &ids).ok());
      different += tokenizer.encode(line) != ids;
    }
    EXPECT_LE(different, set.different) << set.file;
  }
}

// A tokenizer, as GGUF would hold it, gives the same ids.
TEST_F(TokenizerVectors, StayThroughVocabularies) {
  const std::string text = read_text(data / "spm/botchan.txt").substr(0, sanitized ? 10'000 : 100'000) +
                           " 42 \u00e9t\u00e9 \u4e2d\u6587 \U0001F600";
  const char* const files[] = {"hf/gpt2",  "hf/bertt",
                               "hf/t5",    "spm/llama2.model",  // one of each kind
                               "hf/gpt-j", "hf/llama",
                               "hf/mptt",  "hf/tokenformer-neox",  // the rest of them
                               "hf/t0pp",  "gguf-vocab/ggml-vocab-starcoder.gguf"};
  for (const char* file : std::span(files).first(sanitized ? 4 : std::size(files))) {
    const Tokenizer tokenizer = Tokenizer::load(data / file);
    const Vocabulary vocabulary = tokenizer.vocabulary();
    EXPECT_EQ(static_cast<i64>(vocabulary.tokens.size()), tokenizer.vocab_size());
    EXPECT_EQ(vocabulary.types.size(), vocabulary.tokens.size());
    const Tokenizer again = Tokenizer::from_vocabulary(vocabulary, file);
    EXPECT_EQ(with_special(again, text), with_special(tokenizer, text)) << file;
    const Tokenizer json = Tokenizer::from_json(again.to_json(), file);
    EXPECT_EQ(with_special(json, text), with_special(tokenizer, text)) << file;
    EXPECT_EQ(json.decode(json.encode(text)), tokenizer.decode(tokenizer.encode(text))) << file;
  }
  EXPECT_THROW(Tokenizer::load(data / "gguf-vocab/ggml-vocab-gpt-2.gguf.inp"), Error);
}

// GPT-2's first files, and the tokenizer.json that came later.
TEST_F(TokenizerVectors, OfVocabularyAndMerges) {
  const fs::path folder = fs::temp_directory_path() / fmt::format("sparsam_merges_{}", ::getpid());
  fs::create_directories(folder);
  fs::copy_file(data / "gpt2/gpt2_vocab.json", folder / "vocab.json");
  fs::copy_file(data / "gpt2/gpt2_merges.txt", folder / "merges.txt");
  write_text(folder / "config.json", R"({"model_type": "gpt2"})");
  const Tokenizer old = Tokenizer::load(folder), twin = Tokenizer::load(data / "hf/gpt2");
  EXPECT_EQ(old.vocab_size(), twin.vocab_size());
  EXPECT_EQ(old.end_of_text(), twin.end_of_text());
  for (const auto& [text, ids] : vocabulary_tests("gpt-2")) same(old.encode(text), ids, text);
  const std::string text =
      read_text(data / "spm/botchan.txt").substr(0, sanitized ? 10'000 : 100'000) + "<|endoftext|> 42\r\n";
  EXPECT_EQ(old.encode(text), twin.encode(text));
  EXPECT_EQ(Tokenizer::from_json(old.to_json(), "again").encode(text), twin.encode(text));
  fs::remove_all(folder);
}

}  // namespace
}  // namespace sparsam
