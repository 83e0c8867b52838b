#include "cli/verbs.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/threads.h"

namespace sparsam {

CLI::App* add_verb(CLI::App& program, Command& command, const char* name, const char* description) {
  CLI::App* verb = program.add_subcommand(name, description);
  Common& common = command.common;
  verb->add_flag("--json", common.json, "print one JSON object and nothing else on standard output");
  verb->add_flag("--quiet,-q", common.quiet, "no progress");
  verb->add_option("--seed", common.seed, "seed of everything that is drawn")->capture_default_str();
  verb->add_option("--threads", common.threads, "threads (default: OMP_NUM_THREADS, else all processors)")
      ->check(in_range(1, 4096));
  return verb;
}

namespace {

std::vector<std::string> verb_names(const CLI::App& program) {
  std::vector<std::string> names;
  for (const CLI::App* verb : program.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(verb->get_name());
  return names;
}

std::vector<std::string> flag_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    for (const std::string& name : option->get_snames()) names.push_back("-" + name);
  }
  return names;
}

// The text of a wrong command line. CLI11 stops at the first mistake it meets; a misspelt flag explains more than the
// required one that it stands for.
[[noreturn]] void fail_parse(const CLI::App& program, const CLI::ParseError& error) {
  const CLI::App* verb = &program;
  std::string name;  // "law fit"
  for (auto chosen = program.get_subcommands(); !chosen.empty(); chosen = verb->get_subcommands()) {
    verb = chosen.front();
    name += (name.empty() ? "" : " ") + verb->get_name();
  }
  const CLI::App& app = *verb;
  const std::string where = name.empty() ? "command line" : name;
  for (const std::string& argument : app.remaining(true)) {
    if (argument.size() > 1 && argument[0] == '-')
      fail_unknown("flag", argument.substr(0, argument.find('=')), flag_names(app), where, Exit::usage);
    fail_usage("{}: unexpected argument '{}'; see sparsam {}{}--help", where, argument, name, name.empty() ? "" : " ");
  }
  fail_usage("{}: {}; see sparsam {}{}--help", where, error.what(), name, name.empty() ? "" : " ");
}

// OMP_NUM_THREADS may be a list, one number a nesting level: the first counts. 0: not given.
int threads_of_environment() {
  const char* text = std::getenv("OMP_NUM_THREADS");
  const long count = text ? std::strtol(text, nullptr, 10) : 0;
  return count >= 1 && count <= 4096 ? static_cast<int>(count) : 0;
}

Exit parse_and_run(CLI::App& program, Command& command, int argc, char** argv) {
  program.name("sparsam");
  program.require_subcommand(1);
  program.failure_message(CLI::FailureMessage::simple);
  program.footer("sparsam VERB --help explains a verb.");
  if (argc < 2) {
    fmt::print(stderr, "{}", program.help());
    return Exit::usage;
  }
  const std::string_view first = argv[1];
  const std::vector<std::string> verbs = verb_names(program);
  if (!first.starts_with('-') && std::find(verbs.begin(), verbs.end(), first) == verbs.end())
    fail_unknown("verb", first, verbs, "command line", Exit::usage);
  try {
    program.parse(argc, argv);
  } catch (const CLI::Success& help) {
    program.exit(help);
    return Exit::done;
  } catch (const CLI::ParseError& error) {
    fail_parse(program, error);
  }
  set_threads(command.common.threads ? command.common.threads : threads_of_environment());
  return command.run();
}

}  // namespace

Exit run(CLI::App& program, Command& command, int argc, char** argv) {
  Exit code = Exit::failed;
  try {
    code = parse_and_run(program, command, argc, argv);
    if (std::fflush(stdout) != 0 || std::ferror(stdout)) fail("standard output: cannot write");
  } catch (const Error& error) {
    fmt::print(stderr, "sparsam: {}\n", error.what());
    return error.code;
  } catch (const std::bad_alloc&) {
    fmt::print(stderr, "sparsam: out of memory\n");
    return Exit::failed;
  } catch (const std::exception& error) {  // of the standard library: a file system that changes under us
    fmt::print(stderr, "sparsam: {}\n", error.what());
    return Exit::failed;
  }
  return code;
}

}  // namespace sparsam
