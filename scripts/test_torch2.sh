#!/usr/bin/env bash
# Builds rep against a LibTorch 2.x and runs the unit tests with it.
#
# usage: scripts/test_torch2.sh [PATH | --install]
#
#   PATH        an unpacked LibTorch 2.x, or the torch.utils.cmake_prefix_path of a Python
#   --install   the LibTorch inside Python's package torch 2.13.0, fetched by pip into build/
#   (neither)   the LibTorch inside the torch that python3 imports
#
# Where there is no LibTorch 2.x to be had, and none was named, it says so and exits with 0.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

skip() {
  say "skipped, LibTorch 2.x was not tested: $*"
  exit 0
}

# Fetches the wheel alone: LibTorch needs none of torch's Python dependencies.
install_torch() {
  local version=2.13.0 folder log=build/pip.log
  folder=build/python-torch-$version
  torch=$folder/torch/share/cmake
  if [[ ! -f $torch/Torch/TorchConfig.cmake ]]; then
    python3 -m pip --version >/dev/null 2>&1 || skip "python3 has no pip"
    mkdir -p build
    say "fetching torch $version with pip"
    rm -rf "$folder" "$folder.part"
    python3 -m pip install --quiet --no-deps --target "$folder.part" "torch==$version" \
      >"$log" 2>&1 || skip "pip cannot install torch $version: $(grep -a '^ERROR' "$log" | tail -n 1)"
    mv "$folder.part" "$folder"
  fi
  # The CMake files of a CUDA build ask for the CUDA toolkit. A pip set to PyTorch's CPU wheels
  # (PIP_EXTRA_INDEX_URL) gets a build without CUDA.
  if [[ -e $folder/torch/lib/libtorch_cuda.so ]] && ! command -v nvcc >/dev/null; then
    skip "pip gave a CUDA build of torch, which needs the CUDA toolkit to compile against"
  fi
}

case ${1:-} in
  -h | --help) print_help; exit 0 ;;
  --install) install_torch ;;
  '')
    torch=$(python3 -c 'import torch; print(torch.utils.cmake_prefix_path)' 2>/dev/null) ||
      skip "python3 has no torch; give a LibTorch's folder, or --install"
    ;;
  *) torch=$1 ;;
esac

version=$(torch_version "$torch")
version_at_least "$version" 2.0 || fail "'$torch' holds LibTorch $version; 2.0 or newer is needed"
say "LibTorch $version in $torch"
exec scripts/test.sh --torch "$torch" --label unit
