// The verbs of the program. Each adds its subcommand and flags to the program and, when chosen, leaves what is to be
// run in `command`: main parses, runs, and turns Error into a message and an exit code.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

#include "base/error.h"
#include "base/types.h"

namespace sparsam {

// Flags that every verb has.
struct Common {
  bool json = false;   // results as one JSON object on standard output, nothing else there
  bool quiet = false;  // no progress
  u64 seed = 0;
  int threads = 0;  // 0: the machine's
};

struct Command {
  Common common;
  std::function<Exit()> run;
};

// A subcommand with the common flags.
CLI::App* add_verb(CLI::App& program, Command& command, const char* name, const char* description);

// The range of a flag, silent in the help (CLI11 would print both limits beside the flag).
inline CLI::Validator in_range(i64 least, i64 most) { return CLI::Range(least, most).description(""); }

// Parses the command line and runs the verb: everything between main and the verbs. Errors go to standard error as
// "sparsam: ...", and become the exit codes of base/error.h.
Exit run(CLI::App& program, Command& command, int argc, char** argv);

void add_train(CLI::App& program, Command& command);
void add_eval(CLI::App& program, Command& command);
void add_classify(CLI::App& program, Command& command);
void add_score(CLI::App& program, Command& command);
void add_drop(CLI::App& program, Command& command);
void add_grow(CLI::App& program, Command& command);
void add_shrink(CLI::App& program, Command& command);
void add_linearize(CLI::App& program, Command& command);
void add_convert(CLI::App& program, Command& command);
void add_sparsity(CLI::App& program, Command& command);
void add_law(CLI::App& program, Command& command);
void add_recall(CLI::App& program, Command& command);
void add_generate(CLI::App& program, Command& command);
void add_inspect(CLI::App& program, Command& command);
void add_bench(CLI::App& program, Command& command);
void add_corpus(CLI::App& program, Command& command);
void add_tokenize(CLI::App& program, Command& command);
void add_detokenize(CLI::App& program, Command& command);
void add_backends(CLI::App& program, Command& command);
void add_version(CLI::App& program, Command& command);

}  // namespace sparsam
