# cmake --install and cpack: the program, its configurations with their schema, documents, the man page and what
# shells complete by, where GNU and Debian keep such things. scripts/package.sh makes the Debian package.
include(GNUInstallDirs)

set(CMAKE_SKIP_INSTALL_ALL_DEPENDENCY ON)  # cpack would build the tests first
set_target_properties(rep PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON)  # for a LibTorch outside the system's folders
install(TARGETS rep RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY configs DESTINATION ${CMAKE_INSTALL_DATADIR}/rep)
install(FILES results/published.yaml results/schema.json DESTINATION ${CMAKE_INSTALL_DATADIR}/rep/results)
install(FILES docs/rep.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)

# Documents lie to each other as in the source, so that their links hold.
install(FILES README.md CHANGELOG.md CONTRIBUTING.md CITATION.cff LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME copyright)
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR} FILES_MATCHING PATTERN "*.md")
install(FILES datasets/README.md DESTINATION ${CMAKE_INSTALL_DOCDIR}/datasets)
file(GLOB rep_results CONFIGURE_DEPENDS results/*.md)  # beside them lie a user's own runs
install(FILES ${rep_results} DESTINATION ${CMAKE_INSTALL_DOCDIR}/results)
install(DIRECTORY results/figures DESTINATION ${CMAKE_INSTALL_DOCDIR}/results)

# The program itself says how to complete its command line.
install(CODE "
  foreach(shell bash zsh fish)
    execute_process(COMMAND ${CMAKE_CROSSCOMPILING_EMULATOR} $<TARGET_FILE:rep> completion \${shell}
                    OUTPUT_FILE ${CMAKE_BINARY_DIR}/rep.\${shell} COMMAND_ERROR_IS_FATAL ANY)
  endforeach()")
install(FILES ${CMAKE_BINARY_DIR}/rep.bash
        DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME rep)
install(FILES ${CMAKE_BINARY_DIR}/rep.zsh DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions RENAME _rep)
install(FILES ${CMAKE_BINARY_DIR}/rep.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_VENDOR "The rep authors")
set(CPACK_PACKAGE_CONTACT "The rep authors")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "runs continual-learning experiments on images and measures their cost")
set(CPACK_PACKAGE_DESCRIPTION "REP (arXiv 2406.04772), prompt methods on frozen vision transformers, and the methods that they are compared
with, under one protocol: accuracy, forgetting, seconds, multiply-accumulates, bytes and joules.")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS libopenblas0-openmp)  # the reference BLAS is several times slower
include(CPack)
