// sparsam backends: what the cpu backend accelerates; sparsam version.
#include <fmt/ranges.h>

#include "base/threads.h"
#include "cli/common.h"
#include "ops/ops.h"

namespace sparsam {

void add_backends(CLI::App& program, Command& command) {
  CLI::App* verb = add_verb(program, command, "backends", "operations that the cpu backend accelerates");
  add_example(verb, "sparsam backends");
  on_chosen(verb, command, [&command] {
    const auto accelerated = accelerated_operations();
    const auto targets = instruction_sets();
    if (command.common.json) {
      print_json({{"backends", {"cpu", "reference"}},
                  {"accelerated", accelerated},
                  {"targets", targets},
                  {"threads", threads()}});
      return Exit::done;
    }
    fmt::print("cpu: {} threads, instruction sets {} (the first is used)\n", threads(), fmt::join(targets, ", "));
    fmt::print("accelerated operations; the others run in the reference:\n");
    for (const std::string_view name : accelerated) fmt::print("  {}\n", name);
    return Exit::done;
  });
}

void add_version(CLI::App& program, Command& command) {
  CLI::App* verb = add_verb(program, command, "version", "version of this program");
  on_chosen(verb, command, [&command] {
    if (command.common.json)
      print_json({{"version", SPARSAM_VERSION}, {"compiler", __VERSION__}});
    else
      fmt::print("sparsam {}\n", SPARSAM_VERSION);
    return Exit::done;
  });
}

}  // namespace sparsam
