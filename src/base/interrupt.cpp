#include "base/interrupt.h"

#include <unistd.h>

#include <csignal>

namespace sparsam {

namespace {
volatile std::sig_atomic_t received = 0;

extern "C" void on_signal(int signal) {
  if (received != 0) ::_exit(128 + signal);
  received = signal;
}
}  // namespace

void install_interrupt_handler() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

bool interrupted() { return received != 0; }
Exit interrupt_exit_code() { return received == SIGTERM ? Exit::terminated : Exit::interrupted; }

}  // namespace sparsam
