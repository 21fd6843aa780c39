#pragma once

namespace rep {

/// From here on SIGINT and SIGTERM only set a flag; a second one ends the process at once (130).
void catch_interrupts();
/// Whether to stop: one has arrived. The training loop asks after every step.
bool interrupted();

/// Several processes stop together: from here on interrupted() is true only once interrupt() was
/// called, which each does when it knows that a signal has arrived in any of them.
void interrupt_together();
bool signal_arrived();  // in this process
void interrupt();

}  // namespace rep
