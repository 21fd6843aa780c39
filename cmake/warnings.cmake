# rep_warnings: what our own sources are held to; system headers are exempt.
add_library(rep_warnings INTERFACE)
target_compile_options(rep_warnings INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wno-unknown-pragmas)
if(REP_WERROR)
  target_compile_options(rep_warnings INTERFACE -Werror)
endif()
