#include "core/interrupt.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <initializer_list>

#include "core/error.h"

namespace rep {
namespace {

std::atomic<bool> arrived{false};
std::atomic<bool> together{false}, told{false};
static_assert(std::atomic<bool>::is_always_lock_free, "else a signal handler may not touch it");

extern "C" void on_signal(int) {
  if (arrived.exchange(true)) _exit(static_cast<int>(ExitCode::kInterrupted));
}

}  // namespace

void catch_interrupts() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;  // reads and writes under way go on; the loop asks for the flag
  for (const int signal : {SIGINT, SIGTERM}) sigaction(signal, &action, nullptr);
  // A file over the user's size limit is then a failed write, which is told like a full disk.
  ::signal(SIGXFSZ, SIG_IGN);
}

bool interrupted() { return together ? told : arrived; }
void synchronise_interrupts() { together = true; }
bool signal_received() { return arrived; }
void request_stop() { told = true; }

}  // namespace rep
