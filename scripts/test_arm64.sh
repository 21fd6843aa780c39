#!/usr/bin/env bash
# Cross-builds rep for 64-bit ARM, runs the quick tests and a short experiment under qemu, and compares the contact
# sheet of the pictures and the result with this machine's, which must be the same.
#
# usage: scripts/test_arm64.sh [--install] [--build-only]
#
#   --install     install the cross-compiler and qemu from Debian's packages, and make the ARM root from them
#   --build-only  stop once build/arm64/rep is built
#
# The root (build/arm64-root: Debian's arm64 packages of what rep is built on, unpacked) is made once. Where compiler,
# qemu or packages are not to be had, it says so and exits with 0. build/release/rep is what it compares with.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

install=no build_only=no
for argument in "$@"; do
  case $argument in
    --install) install=yes ;;
    --build-only) build_only=yes ;;
    -h | --help) print_help; exit 0 ;;
    *) echo "error: unknown option '$argument'; see scripts/test_arm64.sh --help" >&2; exit 2 ;;
  esac
done
[[ $(uname -m) == x86_64 ]] || { say "skipped: this cross-builds from x86-64; here scripts/test.sh is the test"; exit 0; }

skip() {
  say "skipped, 64-bit ARM was not tested: $*"
  exit 0
}

readonly root=$PWD/build/arm64-root
readonly packages=(libtorch-dev libgloo-dev libopenblas0-openmp libopencv-dev libjpeg-dev libyaml-cpp-dev libspdlog-dev
  nlohmann-json3-dev libcli11-dev libgtest-dev libvalijson-dev libzip-dev libssl-dev libc6-dev libstdc++-12-dev libgomp1)

# Debian's arm64 packages with all they depend on, unpacked into the root; the machine's own packages stay as they are.
make_root() {
  local apt=$PWD/build/arm64-apt part=$root.part package link
  rm -rf "$part"
  mkdir -p "$part" "$apt"/{lists/partial,cache/archives/partial,state}
  : >"$apt/state/status"
  local options=(-o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State="$apt/state"
    -o Dir::State::lists="$apt/lists" -o Dir::Cache="$apt/cache" -o Dir::State::status="$apt/state/status"
    -o APT::Install-Recommends=false -o Debug::NoLocking=1 -o APT::Sandbox::User=root)
  say "fetching arm64 packages"
  apt-get "${options[@]}" -qq update || return 1
  apt-get "${options[@]}" -qq -y --download-only install "${packages[@]}" >/dev/null || return 1
  say "unpacking them into ${root#"$PWD"/}"
  for package in "$apt"/cache/archives/*.deb; do dpkg -x "$package" "$part" || return 1; done
  # Links from the root on would lead into this machine.
  find "$part" -type l -lname '/*' | while read -r link; do
    ln -sfn "$(realpath -m --relative-to "$(dirname "$link")" "$part$(readlink "$link")")" "$link"
  done
  # What update-alternatives would link when a package is configured.
  local lib=$part/usr/lib/aarch64-linux-gnu library
  for library in libblas.so.3 liblapack.so.3 libopenblas.so.0; do
    [[ -e $lib/openblas-openmp/$library ]] && ln -sfn "openblas-openmp/$library" "$lib/$library"
  done
  rm -rf "$apt"
  mv "$part" "$root"
}

if [[ $install == yes ]]; then
  tools=()
  command -v aarch64-linux-gnu-g++ >/dev/null || tools+=(g++-aarch64-linux-gnu)
  command -v qemu-aarch64-static >/dev/null || tools+=(qemu-user-static)
  if ((${#tools[@]} > 0)); then
    say "installing ${tools[*]}"
    apt-get -qq update >/dev/null || skip "package lists cannot be fetched"
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "${tools[@]}" >/dev/null ||
      skip "no ${tools[*]} to be had"
  fi
  [[ -d $root ]] || make_root || skip "Debian's arm64 packages are not to be had"
fi
command -v aarch64-linux-gnu-g++ >/dev/null || skip "no aarch64-linux-gnu-g++; --install installs it"
command -v qemu-aarch64-static >/dev/null || skip "no qemu-aarch64-static; --install installs it"
[[ -d $root ]] || skip "no ${root#"$PWD"/}; --install makes it"

# An OpenBLAS that is told to take an x86's kernels stops on ARM.
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
cmake=$(find_cmake)
readonly tests=(token_rows_test safetensors_test image_test resample_test jpeg_test synthetic_test attention_test)
say "cross-building build/arm64"
"$cmake" --preset arm64 >build/arm64-configure.log 2>&1 ||
  { tail -n 20 build/arm64-configure.log; fail "cannot configure"; }
"$cmake" --build build/arm64 --target rep
file -b build/arm64/rep 2>/dev/null || true
if [[ $build_only == yes ]]; then exit 0; fi
"$cmake" --build build/arm64 --target "${tests[@]}"

emulate=(qemu-aarch64-static -L "$root" -cpu max)
status=0
for test in "${tests[@]}"; do
  say "$test under qemu"
  "${emulate[@]}" "build/arm64/tests/$test" --gtest_brief=1 || status=1
done

x86=build/release/rep
[[ -x $x86 ]] || fail "$x86 is not built; run scripts/setup.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
short=(--set train.epochs=1 --set stream.tasks=2 --set backbone.weights=random --set threads=1
  --limit-train 8 --limit-test 4)
for machine in x86 arm64; do
  if [[ $machine == x86 ]]; then run=("$x86"); else run=("${emulate[@]}" build/arm64/rep); fi
  say "the short quickstart on $machine"
  "${run[@]}" check configs/quickstart.yaml --preview "$work/$machine.png" "${short[@]}" >/dev/null
  "${run[@]}" run configs/quickstart.yaml --output "$work/$machine" "${short[@]}" >"$work/$machine.log"
done
cmp "$work/x86.png" "$work/arm64.png" || { say "the pictures differ"; status=1; }
# Times, memory and the machine differ; accuracies, MACs and what was carried do not.
python3 - "$work" <<'PYTHON' || status=1
import json, sys
def of(name):
    result = json.load(open(f"{sys.argv[1]}/{name}/result.json"))
    return {"accuracy": result["accuracy"], "metrics": result["metrics"], "macs": result["cost"]["total"]["macs"],
            "state": result["cost"]["state_bytes"], "data": result["inputs"]["dataset"], "tasks": result["tasks"]}
x86, arm = of("x86"), of("arm64")
for key in x86:
    if x86[key] != arm[key]:
        sys.exit(f"{key} differs: {x86[key]} on x86-64, {arm[key]} on arm64")
print("the result is the same on x86-64 and arm64")
PYTHON
if ((status == 0)); then say "64-bit ARM: all tests passed"; fi
exit "$status"
