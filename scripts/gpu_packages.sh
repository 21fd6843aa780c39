#!/usr/bin/env bash
# Collects what rep is built on, but for LibTorch, into a folder with which a machine without a network can build it.
#
# usage: scripts/gpu_packages.sh DIR     (scripts/gpu_check.sh --collect DIR is the same)
#
# On a Debian 12 where scripts/setup.sh has run: headers, libraries and CMake's descriptions of OpenCV, libjpeg, yaml-cpp,
# spdlog, fmt, nlohmann_json, CLI11, OpenSSL, libzip and GoogleTest are copied from Debian's packages, libraries with all
# that they use, and the reference BLAS and LAPACK are fetched. The other machine is an x86-64 with a C++ compiler, CMake 3.22 or newer and a C library not older than
# Debian 12's (2.36): `cmake -C DIR/packages.cmake` finds everything. DIR may be moved.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

if [[ ${1:-} =~ ^(-h|--help)$ || $# != 1 ]]; then
  print_help
  [[ $# == 1 ]] && exit 0 || exit 2
fi
need patchelf
make_afresh "$1"
mkdir -p "$1"/{include,lib,cmake}
folder=$(realpath "$1")
multiarch=$(g++ -print-multiarch)
readonly headers=(opencv4/opencv2 yaml-cpp spdlog fmt nlohmann CLI gtest openssl zip.h zipconf.h jerror.h jmorecfg.h
  jpegint.h jpeglib.h)
readonly libraries=(opencv_imgcodecs opencv_imgproc opencv_core jpeg yaml-cpp spdlog fmt crypto zip)

for header in "${headers[@]}"; do
  [[ -e /usr/include/$header ]] || fail "/usr/include/$header is missing; run scripts/setup.sh first"
  cp -rL "/usr/include/$header" "$folder/include/"
done
# OpenCV 4's modules that rep does not use.
find "$folder/include/opencv2" -mindepth 1 -maxdepth 1 -not -name 'core*' -not -name 'imgproc*' \
  -not -name 'imgcodecs*' -not -name 'opencv_modules.hpp' -exec rm -rf {} +
cp -L "/usr/include/$multiarch/jconfig.h" "$folder/include/"
cp -L "/usr/include/$multiarch"/openssl/* "$folder/include/openssl/"
cp -L "/usr/lib/$multiarch"/libgtest{,_main}.a "$folder/lib/"

# The libraries, with what they load: as a program that names them all would. The C++ runtime is the other machine's, as
# the newer one has to serve both; the reference BLAS does, since LibTorch brings its own.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
program=$work/program
(cd "$work" && apt-get -qq -o APT::Sandbox::User=root download libblas3 liblapack3 &&
  for package in *.deb; do dpkg -x "$package" .; done) || fail "libblas3 and liblapack3 cannot be fetched"
echo 'int main() {}' | g++ -x c++ - -x none -Wl,--no-as-needed "${libraries[@]/#/-l}" -o "$program"
ldd "$program" | sed -n 's/^[[:space:]]*\([^ ]*\) => \(\/[^ ]*\).*/\1 \2/p' | while read -r name path; do
  case $name in
    libstdc++.so* | libgcc_s.so* | libgomp.so* | libopenblas.so*) continue ;;
    libblas.so.3 | liblapack.so.3) path=$(echo "$work"/usr/lib/*/*/"$name") ;;
  esac
  is_of_libc "$name" || cp -L "$path" "$folder/lib/$name"
done
chmod -R u+w "$folder"
strip --strip-unneeded "$folder"/lib/*.so*
scripts/bundle_libraries.py --keep-named "$program" "$folder/lib"

cat >"$folder/packages.cmake" <<'CMAKE'
# What scripts/gpu_packages.sh collected, for cmake -C.
foreach(package OpenCV yaml-cpp spdlog nlohmann_json CLI11 GTest)
  set(${package}_DIR "${CMAKE_CURRENT_LIST_DIR}/cmake" CACHE PATH "")
endforeach()
set(CMAKE_MODULE_PATH "${CMAKE_CURRENT_LIST_DIR}/cmake" CACHE PATH "")
set(CMAKE_EXE_LINKER_FLAGS_INIT "-Wl,-rpath-link,${CMAKE_CURRENT_LIST_DIR}/lib" CACHE STRING "")
CMAKE
# By CMake's modules, which look in folders of the system's: as modules of our own.
target() { # NAME LIBRARY [DEFINITIONS]
  local file definitions=${3:+INTERFACE_COMPILE_DEFINITIONS \"$3\"}
  file=$(cd "$folder/lib" && find . \( -name "lib$2.so.*" -o -name "lib$2.a" \) -printf '%f')
  cat <<CMAKE
if(NOT TARGET $1)
  add_library($1 UNKNOWN IMPORTED)
  set_target_properties($1 PROPERTIES IMPORTED_LOCATION "\${CMAKE_CURRENT_LIST_DIR}/../lib/$file"
    INTERFACE_INCLUDE_DIRECTORIES "\${CMAKE_CURRENT_LIST_DIR}/../include" $definitions)
endif()
CMAKE
}
headers_only() { # NAME
  cat <<CMAKE
if(NOT TARGET $1)
  add_library($1 INTERFACE IMPORTED)
  set_target_properties($1 PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "\${CMAKE_CURRENT_LIST_DIR}/../include")
endif()
CMAKE
}
cd "$folder/cmake"
{ for module in core imgproc imgcodecs; do target "opencv_$module" "opencv_$module"; done
  # shellcheck disable=SC2016
  echo 'set(OpenCV_INCLUDE_DIRS "${CMAKE_CURRENT_LIST_DIR}/../include")'
  echo 'set(OpenCV_LIBS opencv_imgcodecs opencv_imgproc opencv_core)'; } >OpenCVConfig.cmake
target yaml-cpp yaml-cpp >yaml-cppConfig.cmake
{ target fmt::fmt fmt FMT_SHARED
  target spdlog::spdlog spdlog 'SPDLOG_SHARED_LIB;SPDLOG_COMPILED_LIB;SPDLOG_FMT_EXTERNAL'
  echo 'set_target_properties(spdlog::spdlog PROPERTIES INTERFACE_LINK_LIBRARIES fmt::fmt)'; } >spdlogConfig.cmake
headers_only nlohmann_json::nlohmann_json >nlohmann_jsonConfig.cmake
headers_only CLI11::CLI11 >CLI11Config.cmake
{ target GTest::gtest gtest
  target GTest::gtest_main gtest_main
  echo 'set_target_properties(GTest::gtest_main PROPERTIES INTERFACE_LINK_LIBRARIES GTest::gtest)'; } >GTestConfig.cmake
{ target JPEG::JPEG jpeg; echo 'set(JPEG_FOUND TRUE)'; } >FindJPEG.cmake
{ target OpenSSL::Crypto crypto; echo 'set(OPENSSL_FOUND TRUE)'; echo 'set(OpenSSL_FOUND TRUE)'; } >FindOpenSSL.cmake
{ target PkgConfig::libzip zip
  echo 'set(PkgConfig_FOUND TRUE)'
  echo 'macro(pkg_check_modules prefix)'
  echo '  set(${prefix}_FOUND 1)'
  echo 'endmacro()'; } >FindPkgConfig.cmake
cd - >/dev/null
say "$folder: $(du -sm "$folder" | cut -f 1) MB, $(find "$folder/lib" -name '*.so*' | wc -l) libraries"
