// sparsam corpus: the embedded corpus, and its entropy.
#include "text/corpus.h"

#include <optional>

#include "base/progress.h"
#include "cli/common.h"

namespace sparsam {

namespace {

// Writes stories until there are `words` of them; returns all but the text.
Corpus write_corpus(i64 words, u64 seed, const std::function<void(std::string_view)>& write) {
  StoryGenerator generator(seed);
  Corpus corpus;
  while (corpus.words < words) {
    const Story story = generator.next();
    write(story.text), write("\n\n");
    corpus.bits += story.bits, corpus.words += story.words, ++corpus.stories;
  }
  return corpus;
}

}  // namespace

void add_corpus(CLI::App& program, Command& command) {
  struct CorpusFlags {
    i64 words = 100000;
    std::string out;
  };
  const auto flags = std::make_shared<CorpusFlags>();
  CLI::App* verb = add_verb(program, command, "corpus", "write the embedded corpus, whose entropy is known");
  verb->add_option("--tokens", flags->words, "words to write, to the end of the last story")
      ->check(in_range(1, i64{1} << 40))
      ->capture_default_str();
  verb->add_option("--out", flags->out, "file (default: standard output)");
  add_example(verb, "sparsam corpus --tokens 1000000 --seed 1 --out stories.txt");
  on_chosen(verb, command, [flags, &command] {
    const Common& common = command.common;
    std::optional<AtomicFile> file;
    if (!flags->out.empty()) file.emplace(flags->out);
    std::string text;
    i64 bytes = 0;
    const Corpus corpus = write_corpus(flags->words, common.seed, [&](std::string_view part) {
      bytes += static_cast<i64>(part.size());
      if (file)
        file->write(part);
      else if (common.json)
        text.append(part);
      else
        fmt::print("{}", part);
    });
    if (file) file->commit();
    const double bits_per_byte = corpus.bits / static_cast<double>(bytes);
    const double bits_per_word = corpus.bits / static_cast<double>(corpus.words);
    const double expected = expected_story().bits_per_byte();
    if (common.json) {
      Json json{{"stories", corpus.stories},
                {"words", corpus.words},
                {"bytes", bytes},
                {"bits", corpus.bits},
                {"bits_per_byte", bits_per_byte},
                {"bits_per_word", bits_per_word},
                {"expected_bits_per_byte", expected},
                {"seed", common.seed}};
      if (file)
        json["out"] = flags->out;
      else
        json["text"] = text;
      print_json(json);
    } else if (!common.quiet) {
      fmt::print(
          stderr,
          "{} stories, {} words, {} bytes: {:.4f} bits per byte, {:.4f} bits per word (an endless corpus: {:.4f} "
          "bits per byte)\n",
          corpus.stories, format_count(static_cast<double>(corpus.words)), format_count(static_cast<double>(bytes)),
          bits_per_byte, bits_per_word, expected);
    }
    return Exit::done;
  });
}

}  // namespace sparsam
