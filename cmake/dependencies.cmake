# Everything rep is built on, from the system's packages (Debian: scripts/setup.sh) or, for LibTorch,
# from CMAKE_PREFIX_PATH. Nothing is downloaded here.
find_package(Threads REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS CXX)  # LibTorch's at::parallel_for is compiled into its callers
find_package(OpenCV REQUIRED COMPONENTS core imgproc imgcodecs)
find_package(JPEG REQUIRED)  # libjpeg-turbo, which OpenCV decodes with
find_package(yaml-cpp REQUIRED)
find_package(spdlog REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(OpenSSL REQUIRED COMPONENTS Crypto)  # SHA-256
find_package(PkgConfig REQUIRED)
pkg_check_modules(libzip REQUIRED IMPORTED_TARGET libzip)
if(TARGET yaml-cpp::yaml-cpp)  # the name since 0.8
  set(YAML_TARGET yaml-cpp::yaml-cpp)
else()
  set(YAML_TARGET yaml-cpp)
endif()

find_package(Torch 1.13 QUIET)
if(NOT Torch_FOUND)
  find_package(Torch REQUIRED)  # a version file that knows no ranges
endif()
if(TORCH_CXX_FLAGS MATCHES "CXX11_ABI=0")
  message(FATAL_ERROR "This LibTorch uses the old libstdc++ ABI; take a cxx11-abi build (any release from 2.7)")
endif()
# The newest LibTorch headers need C++20; the sources are valid in both.
get_target_property(_torch_standard torch CXX_STANDARD)
if(_torch_standard AND _torch_standard GREATER CMAKE_CXX_STANDARD)
  set(CMAKE_CXX_STANDARD ${_torch_standard})
endif()

# oneDNN (tensor/products.cpp): the very library that Debian's LibTorch multiplies bf16 with. Other builds of
# LibTorch hold a oneDNN of their own, of another version under the same names: then its products are LibTorch's.
set(ONEDNN "")
if(Torch_VERSION VERSION_LESS 2 AND CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  # By its files: Debian's dnnl-config.cmake demands OpenCL's headers, which libdnnl-dev does not bring.
  find_path(ONEDNN_INCLUDE_DIR dnnl.hpp REQUIRED)
  find_library(ONEDNN_LIBRARY dnnl REQUIRED)
  set(ONEDNN ${ONEDNN_LIBRARY})
endif()
