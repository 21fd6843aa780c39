#pragma once

namespace rep {

/// From here on SIGINT and SIGTERM only set a flag; a second one ends the process at once (130).
void catch_interrupts();
/// Whether one has arrived: the training loop asks after every step.
bool interrupted();

}  // namespace rep
