#include "train/data.h"

#include <gmock/gmock.h>

#include <map>
#include <set>

#include "train/test_support.h"

namespace sparsam {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

Tokenizer bytes_only() { return train_tokenizer({}, 257); }

Document document(const std::string& text) {
  const auto owner = std::make_shared<const std::string>(text);
  return {"test", *owner, owner};
}

TEST(HoldOut, CutsAtTheEndOfALine) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += "line " + std::to_string(i) + "\n";
  const Split split = hold_out({document(text)}, 0.05);
  ASSERT_EQ(split.train.size(), 1u);
  ASSERT_EQ(split.held_out.size(), 1u);
  EXPECT_EQ(std::string(split.train[0].text) + std::string(split.held_out[0].text), text);
  EXPECT_EQ(split.train[0].text.back(), '\n');
  EXPECT_NEAR(static_cast<double>(split.held_out[0].text.size()) / static_cast<double>(text.size()), 0.05, 0.002);
}

TEST(HoldOut, NeverSplitsACharacter) {
  std::string text;
  for (int i = 0; i < 99; ++i) text += "\u20ac";  // three bytes each, no line ends
  for (const double fraction : {0.03, 0.1, 0.334, 0.5}) {
    const Split split = hold_out({document(text)}, fraction);
    EXPECT_EQ(split.train[0].text.size() % 3, 0u) << fraction;
  }
}

TEST(HoldOut, TakesWholeDocumentsFromTheEnd) {
  const Split split = hold_out({document("aaaaaaaaaaaaaaaa"), document(""), document("bb"), document("cc")}, 0.2);
  EXPECT_EQ(split.train.size(), 2u);  // the empty one stays
  ASSERT_EQ(split.held_out.size(), 2u);
  EXPECT_EQ(split.held_out[0].text, "bb");
  EXPECT_TRUE(hold_out({document("abc")}, 0).held_out.empty());
}

TEST(Tokenize, EndsEachDocumentAndKeepsTheBytes) {
  const TemporaryDirectory directory;
  const Tokenizer tokenizer = bytes_only();
  const std::string odd("nul \0 and ill-formed \xff\xc3 bytes", 30);
  const std::vector<Document> documents{document("first"), document(odd)};
  const TokenFile tokens = tokenize(documents, tokenizer, directory / "cache", "train");
  std::vector<i32> ids(static_cast<size_t>(tokens.size()));
  tokens.copy(0, tokens.size(), ids.data());
  const i32 end = *tokenizer.end_of_text();
  ASSERT_EQ(tokens.size(), static_cast<i64>(5 + 1 + odd.size() + 1));
  EXPECT_EQ(ids[5], end);
  EXPECT_EQ(ids.back(), end);
  EXPECT_EQ(tokenizer.decode(std::span(ids).subspan(6, odd.size())), odd);
  const auto bytes = token_bytes(tokenizer);
  i64 sum = 0;
  for (const i32 id : ids) sum += bytes[static_cast<size_t>(id)];
  EXPECT_EQ(sum, static_cast<i64>(5 + odd.size()));
}

TEST(Tokenize, ReadsTheCacheAndRewritesADamagedOne) {
  const TemporaryDirectory directory;
  const Tokenizer tokenizer = bytes_only();
  const std::vector<Document> documents{document("some text")};
  const fs::path path = tokenize(documents, tokenizer, directory / "c", "train").path();
  const auto written = fs::last_write_time(path);
  tokenize(documents, tokenizer, directory / "c", "train");
  EXPECT_EQ(fs::last_write_time(path), written);
  fs::resize_file(path, fs::file_size(path) - 1);
  EXPECT_EQ(tokenize(documents, tokenizer, directory / "c", "train").size(), 10);
  // Other text, other file.
  EXPECT_NE(tokenize(std::vector{document("some texT")}, tokenizer, directory / "c", "train").path(), path);
}

TEST(OpenDocuments, RefusesNoTextAndMissingFiles) {
  const TemporaryDirectory directory;
  write_text(directory / "empty.txt", "");
  write_text(directory / "one.txt", "x");
  const auto open = [&](std::vector<std::string> names) {
    for (std::string& name : names) name = (directory / name).string();
    return open_documents(names);
  };
  EXPECT_THAT([&] { open({"empty.txt"}); }, ThrowsMessage<Error>(HasSubstr("empty.txt: no text")));
  EXPECT_THAT([&] { open({"missing.txt"}); }, ThrowsMessage<Error>(HasSubstr("missing.txt")));
  EXPECT_EQ(open({"empty.txt", "one.txt"}).size(), 2u);
}

TokenFile counting_tokens(const TemporaryDirectory& directory, i64 n) {
  std::vector<i32> ids(static_cast<size_t>(n));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<i32>(i);
  write_token_file(directory / "count.tokens", ids, 100'000, 0);
  return TokenFile::open(directory / "count.tokens");
}

TEST(Sampler, AnEpochHoldsEveryWindowOnce) {
  const TemporaryDirectory directory;
  for (const auto& [n, length] : std::vector<std::pair<i64, i64>>{{1000, 16}, {17, 16}, {33, 16}, {40, 16}, {5, 1}}) {
    const TokenFile tokens = counting_tokens(directory, n);
    Sampler sampler(tokens, length, 5);
    std::set<i32> offsets;
    for (i64 epoch = 0; epoch < 20; ++epoch) {
      std::set<i32> starts;
      std::vector<i32> window(static_cast<size_t>(length) + 1);
      for (i64 i = 0; i < sampler.windows(); ++i) {
        sampler.copy(epoch * sampler.windows() + i, window);
        for (size_t t = 1; t < window.size(); ++t) ASSERT_EQ(window[t], window[t - 1] + 1);
        starts.insert(window[0]);
      }
      ASSERT_EQ(static_cast<i64>(starts.size()), sampler.windows());
      // Side by side: no token is an input twice.
      EXPECT_EQ(*starts.rbegin() - *starts.begin(), (sampler.windows() - 1) * length);
      EXPECT_LT(*starts.begin(), length);
      offsets.insert(*starts.begin());
    }
    // Nearly all of the text is in use, and the cut moves.
    EXPECT_GE(sampler.windows() * length, n - 2 * length);
    if (n >= 3 * length && length > 1) {
      EXPECT_GT(offsets.size(), 4u);
    }
  }
}

TEST(Sampler, IsAFunctionOfSeedAndIndex) {
  const TemporaryDirectory directory;
  const TokenFile tokens = counting_tokens(directory, 500);
  Sampler forward(tokens, 8, 1), jumping(tokens, 8, 1), other(tokens, 8, 2);
  std::vector<std::vector<i32>> windows;
  for (i64 i = 0; i < 200; ++i) forward.copy(i, windows.emplace_back(9));
  std::vector<i32> window(9);
  i64 equal = 0;
  for (i64 i = 199; i >= 0; i -= 7) {
    jumping.copy(i, window);
    EXPECT_EQ(window, windows[static_cast<size_t>(i)]) << i;
    other.copy(i, window);
    equal += window == windows[static_cast<size_t>(i)];
  }
  EXPECT_LT(equal, 5);
}

TEST(Sampler, RefusesLessThanAWindow) {
  const TemporaryDirectory directory;
  const TokenFile tokens = counting_tokens(directory, 16);
  EXPECT_THAT([&] { Sampler(tokens, 16, 0); },
              ThrowsMessage<Error>(HasSubstr("16 tokens, but one training sequence takes 17")));
}

}  // namespace
}  // namespace sparsam
