#include "infer/generate.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "infer/test_support.h"

namespace sparsam {
namespace {

struct Output {
  Generation generation;
  std::string emitted;
};

Output run(const GenerateOptions& options, i64 positions = 64, u64 seed = 1) {
  Architecture architecture = tiny_llama_like;
  architecture.vocab = tiny_tokenizer().vocab_size() + 5;  // a padded table
  const TinyModel tiny = tiny_model(architecture, seed);
  const auto backend = make_backend("cpu");
  Session session(tiny.model, *backend, {.cache = DType::f32, .positions = positions});
  Output result;
  result.generation = generate(session, tiny_tokenizer(), tiny_tokenizer().encode("the cat"), options,
                               [&](std::string_view text) { return result.emitted += text, true; });
  return result;
}

TEST(Generate, GreedyTakesTheMostProbableEachTime) {
  const Output r = run({.tokens = 12, .past_end_of_text = true});
  ASSERT_EQ(r.generation.tokens.size(), 12u);
  Architecture architecture = tiny_llama_like;
  architecture.vocab = tiny_tokenizer().vocab_size() + 5;
  const TinyModel tiny = tiny_model(architecture, 1);
  const auto backend = make_backend("reference");
  const Transformer transformer(tiny.model, *backend, Compute::f32, 64);
  std::vector<i32> ids = tiny_tokenizer().encode("the cat");
  for (const i32 token : r.generation.tokens) {
    Arena arena;
    const i64 n = static_cast<i64>(ids.size());
    const auto hidden = transformer.forward({.ids = {ids.data(), {n}}, .sequences = 1, .start = 0}, arena);
    const auto logits = transformer.logits(hidden.slice(n - 1, 1), arena);
    EXPECT_EQ(std::max_element(logits.begin(), logits.end() - 5) - logits.begin(), token);
    ids.push_back(token);
  }
}

TEST(Generate, TextIsWhatWasEmittedAndCountsAddUp) {
  const Output r = run({.tokens = 30, .sampling = {.temperature = 1, .seed = 3}, .past_end_of_text = true});
  EXPECT_EQ(r.emitted, r.generation.text);
  EXPECT_EQ(r.generation.end, GenerationEnd::length);
  EXPECT_EQ(r.generation.tokens.size(), 30u);
  EXPECT_EQ(r.generation.steps, 29);
  EXPECT_EQ(r.generation.prompt_tokens, static_cast<i64>(tiny_tokenizer().encode("the cat").size()));
}

TEST(Generate, StopStringsEndTheText) {
  GenerateOptions options{.tokens = 40, .sampling = {.temperature = 1, .seed = 3}, .past_end_of_text = true};
  const std::string text = run(options).generation.text;
  const auto graphic = [](char c) { return c > ' ' && c <= '~'; };
  const auto found = std::find_if(text.begin() + 8, text.end(), graphic);
  ASSERT_NE(found, text.end());
  options.stop = {std::string(1, *found)};
  const Output r = run(options);
  EXPECT_EQ(r.generation.end, GenerationEnd::stop_string);
  EXPECT_EQ(r.generation.text, text.substr(0, text.find(*found)));
  EXPECT_EQ(r.emitted, r.generation.text);
}

TEST(Generate, EndOfTextEndsIt) {
  // <|endoftext|> is id 0, about one draw in 300.
  for (u64 seed = 1; seed < 200; ++seed) {
    const Output r = run({.tokens = 50, .sampling = {.temperature = 1.5, .seed = seed}});
    EXPECT_EQ(std::count(r.generation.tokens.begin(), r.generation.tokens.end(), 0), 0);
    if (r.generation.end == GenerationEnd::end_of_text) return;
  }
  FAIL() << "end of text never came";
}

TEST(Generate, EndsWhenPositionsAreUsedUp) {
  const i64 prompt = static_cast<i64>(tiny_tokenizer().encode("the cat").size());
  const Output r = run({.tokens = 30, .past_end_of_text = true}, prompt + 4);
  EXPECT_EQ(r.generation.end, GenerationEnd::positions);
  EXPECT_EQ(r.generation.tokens.size(), 5u);  // the last one is predicted, but has no place
}

TEST(Generate, EndsWhenAskedTo) {
  const TinyModel tiny = tiny_model();
  const auto backend = make_backend("cpu");
  Session session(tiny.model, *backend);
  const Generation g = generate(session, tiny_tokenizer(), tiny_tokenizer().encode("the"),
                                {.tokens = 60, .past_end_of_text = true}, [](std::string_view) { return false; });
  EXPECT_EQ(g.end, GenerationEnd::callback);
  EXPECT_LT(g.tokens.size(), 60u);
}

}  // namespace
}  // namespace sparsam
