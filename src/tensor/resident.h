#pragma once

namespace rep {

/// Gives back to the kernel what the process holds for nothing: heap that was freed, and the pages
/// of the program and its libraries that nobody has written to, most of which loading alone read.
/// What of these is still needed comes back from the page cache.
void release_unused_memory();
/// The heap alone.
void release_freed_heap();

}  // namespace rep
