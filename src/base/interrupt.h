// Ctrl-C and SIGTERM: the first asks the running work to stop at the next safe point, a second ends the process at
// once.
#pragma once

#include "base/error.h"

namespace sparsam {

void install_interrupt_handler();
bool interrupted();
Exit interrupt_exit_code();  // 130 after SIGINT, 143 after SIGTERM

}  // namespace sparsam
