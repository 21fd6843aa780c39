#!/usr/bin/env bash
# Builds the fuzz targets with Clang's libFuzzer and sanitizers, and runs each for a while; a finding
# ends it, with the input under build/fuzz/findings.
#
# usage: scripts/fuzz.sh [--seconds N] [--install] [TARGET]...
#
#   --seconds N    how long each target runs (default: 60)
#   --install      install Debian's clang where it is missing
#   TARGET         cifar100, config, image, jpeg, npy, npz, pickle, pth, safetensors, stream51 or weights
#                  (default: all)
#
# Inputs that reached something new are kept in build/fuzz/corpus and begin the next run.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

seconds=60 install=no targets=()
while (($# > 0)); do
  case $1 in
    --seconds) seconds=${2:?"--seconds needs a number"}; shift ;;
    --install) install=yes ;;
    -h | --help) print_help; exit 0 ;;
    -*) echo "error: unknown option '$1'; see scripts/fuzz.sh --help" >&2; exit 2 ;;
    *) targets+=("$1") ;;
  esac
  shift
done
[[ $seconds =~ ^[1-9][0-9]*$ ]] || fail "--seconds needs a number from 1 on, not '$seconds'"
if ((${#targets[@]} == 0)); then
  targets=(cifar100 config image jpeg npy npz pickle pth safetensors stream51 weights)
fi

if ! command -v clang++ >/dev/null && [[ $install == yes ]]; then
  version=$(apt-cache depends clang | sed -n 's/.*Depends: clang-\([0-9]*\).*/\1/p' | head -n 1)
  sudo=$( ((EUID == 0)) || echo sudo)
  say "installing clang ${version:-}"
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends clang \
    ${version:+"libclang-rt-$version-dev"} >/dev/null
fi
command -v clang++ >/dev/null || fail "no clang++; add --install, or install Debian's package 'clang'"

build=build/fuzz
cmake=$(find_cmake)
"$cmake" -S tests/fuzz -B $build -G Ninja -DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_COMPILER=clang++ \
  >/dev/null
"$cmake" --build $build

# LibTorch and yaml-cpp are not instrumented: what they put into a container cannot be judged.
export ASAN_OPTIONS=detect_container_overflow=0:alloc_dealloc_mismatch=0:detect_leaks=0
mkdir -p $build/findings
for target in "${targets[@]}"; do
  say "$target, $seconds s"
  mkdir -p "$build/corpus/$target"
  REP_FUZZ_TARGET=$target REP_FUZZ_SEEDS=$build/corpus/$target "$build/fuzz" \
    -max_total_time="$seconds" -max_len=20000 -timeout=10 -rss_limit_mb=4096 -print_final_stats=1 \
    -artifact_prefix="$build/findings/$target-" "$build/corpus/$target" >"$build/$target.log" 2>&1 ||
    fail "a finding in $target: see the end of $build/$target.log"
  grep -E 'number_of_executed_units|^#.*DONE' "$build/$target.log"
done
