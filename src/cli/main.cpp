#include "cli/verbs.h"

int main(int argc, char** argv) {
  using namespace sparsam;
  CLI::App program{"sparsam trains transformers, measures where their compute is wasted, and takes it out."};
  Command command;
  for (const auto add :
       {add_train,     add_eval,    add_classify, add_score,      add_drop,     add_grow,     add_shrink,
        add_linearize, add_convert, add_sparsity, add_law,        add_recall,   add_generate, add_inspect,
        add_bench,     add_corpus,  add_tokenize, add_detokenize, add_backends, add_version})
    add(program, command);
  return static_cast<int>(run(program, command, argc, argv));
}
