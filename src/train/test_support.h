// For tests of training: a temporary directory, a short text, a tiny run.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include "base/threads.h"
#include "text/corpus.h"
#include "train/run.h"

namespace sparsam {

// The models are so small that threads would only wait for each other.
class TrainTest : public ::testing::Test {
 protected:
  TrainTest() { set_threads(1); }
  ~TrainTest() override { set_threads(0); }
};

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (fs::temp_directory_path() / "sparsam-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  const fs::path& path() const { return path_; }
  fs::path operator/(std::string_view name) const { return path_ / name; }

 private:
  fs::path path_;
};

// A run of a few thousand parameters on 30 kB of stories.
inline RunOptions tiny_run(const TemporaryDirectory& directory, std::string_view out) {
  const fs::path text = directory / "stories.txt";
  if (!fs::exists(text)) write_text(text, embedded_corpus(30'000, 3).text);
  RunOptions options;
  options.sources.data = {text.string()};
  options.architecture = {.vocab = 300, .context = 16, .layers = 2, .dim = 16, .heads = 2};
  options.recipe.steps = 20, options.recipe.batch = 3, options.recipe.accumulate = 2, options.recipe.lr = 1e-2;
  options.upkeep.eval_every = 10, options.upkeep.eval_tokens = 300, options.upkeep.save_every = 10;
  options.out = directory / out;
  options.measure_peak = false;
  return options;
}

}  // namespace sparsam
