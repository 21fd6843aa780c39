#pragma once

namespace rep {

/// From here on SIGINT and SIGTERM only set a flag; a second one ends the process at once (130).
void catch_interrupts();
/// Whether to stop: one has arrived. The training loop asks after every step.
bool interrupted();

/// Of several processes that train together: from here on interrupted() is true only once
/// request_stop() was called, which each does when it knows of a signal in any of them.
void synchronise_interrupts();
bool signal_received();  // in this process
void request_stop();

}  // namespace rep
