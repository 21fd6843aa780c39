#!/usr/bin/env bash
# Installs what is missing from Debian's packages, configures and builds rep.
#
# usage: scripts/setup.sh [--preset release|dev|asan] [--torch PATH] [--tests] [--jobs N] [--no-install]
#        scripts/setup.sh --packages
#
#   --preset P     the build: release (default), dev (warnings are errors) or asan (sanitizers)
#   --torch PATH   build against the LibTorch in PATH (an unpacked LibTorch, or the
#                  torch.utils.cmake_prefix_path of a Python) instead of Debian's libtorch-dev,
#                  in a build folder of its own
#   --tests        build the tests too
#   --jobs N       compile N files at once (default: as many as cores and memory allow)
#   --no-install   leave packages alone
#   --packages     print the names of Debian's packages that it needs, and do nothing
#
# Works as root or, where a package is missing, through sudo. Run again, it does only what is left.
# The executable is build/release/rep.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

preset=release torch='' target=rep jobs='' install=yes list=no
while (($# > 0)); do
  case $1 in
    --preset) preset=${2:?"--preset needs release, dev or asan"}; shift ;;
    --torch) torch=${2:?"--torch needs a folder"}; shift ;;
    --jobs) jobs=${2:?"--jobs needs a number"}; shift ;;
    --tests) target=all ;;
    --no-install) install=no ;;
    --packages) list=yes ;;
    -h | --help) print_help; exit 0 ;;
    *) echo "error: unknown option '$1'; see scripts/setup.sh --help" >&2; exit 2 ;;
  esac
  shift
done
[[ $preset =~ ^(release|dev|asan)$ ]] || fail "no preset '$preset'; take release, dev or asan"
[[ -z $jobs || $jobs =~ ^[1-9][0-9]*$ ]] || fail "--jobs needs a number from 1 on, not '$jobs'"

packages=(g++ cmake ninja-build ccache pkg-config git ca-certificates libopencv-dev libjpeg-dev
  libyaml-cpp-dev libspdlog-dev nlohmann-json3-dev libcli11-dev libgtest-dev libvalijson-dev libzip-dev
  libssl-dev)
if [[ -z $torch ]]; then packages+=(libtorch-dev libgloo-dev libdnnl-dev libopenblas0-openmp); fi
if [[ $list == yes ]]; then
  printf '%s\n' "${packages[@]}"
  exit
fi

# Sets `missing` to the packages that are not installed.
find_missing() {
  local installed
  installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${packages[@]}" 2>/dev/null ||
    true)
  missing=()
  for package in "${packages[@]}"; do
    grep -q -x -F "installed $package" <<<"$installed" || missing+=("$package")
  done
}

install_packages() {
  command -v apt-get >/dev/null ||
    fail "this is not a Debian system (no apt-get): install the equivalents of ${packages[*]}" \
      "by hand, then run scripts/setup.sh --no-install"
  find_missing
  if ((${#missing[@]} == 0)); then return; fi
  say "installing ${missing[*]}"
  ((EUID == 0)) || command -v sudo >/dev/null ||
    fail "packages are missing and this is neither root nor a machine with sudo;" \
      "have an administrator run: apt-get install ${missing[*]}"

  local log=build/apt.log apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y
    -o DPkg::Lock::Timeout=300)
  mkdir -p build
  # Old lists may still do when the update fails (no network, a local mirror): the install decides.
  as_root "${apt[@]}" update >"$log" 2>&1 || true
  if ! as_root "${apt[@]}" install --no-install-recommends "${missing[@]}" >>"$log" 2>&1; then
    # Every package apt cannot name has a line "E: ..." of its own.
    fail "the packages cannot be installed: $(grep -a '^E: \|^sudo: ' "$log" | head -n 1)" \
      "(all that was said is in $log)"
  fi
}

# LibTorch's matrix products go through libblas.so.3. OpenBLAS's OpenMP build shares LibTorch's
# threads; the pthread build has a second pool that fights with them, and the reference BLAS is slow.
select_blas() {
  local triplet name wanted link
  triplet=$(g++ -print-multiarch)
  for name in libblas.so.3 liblapack.so.3 libopenblas.so.0; do
    link=$name-$triplet
    wanted=/usr/lib/$triplet/openblas-openmp/$name
    if [[ ! -e $wanted || $(readlink "/etc/alternatives/$link") == "$wanted" ]]; then continue; fi
    if update-alternatives --query "$link" 2>/dev/null | grep -q '^Status: manual'; then
      say "note: $link was set by hand to $(readlink "/etc/alternatives/$link"), so it stays;" \
        "rep is fastest with $wanted"
    elif as_root update-alternatives --set "$link" "$wanted" >/dev/null; then
      say "selected $wanted as the system's $name"
    else
      say "note: could not select $wanted as the system's $name (not root): rep may run slowly"
    fi
  done
}

if [[ $install == yes ]]; then
  install_packages
  if [[ -z $torch ]]; then select_blas; fi
fi

cmake=$(find_cmake)
folder=$(build_folder "$preset" "$torch")
arguments=()
if [[ -n $torch ]]; then arguments=(-B "$folder" -DCMAKE_PREFIX_PATH="$(realpath "$torch")"); fi
say "configuring $folder"
"$cmake" --preset "$preset" --log-level=WARNING "${arguments[@]}" >/dev/null ||
  fail "CMake could not configure $folder; what it lacks is said above"

jobs=${jobs:-$(choose_jobs)}
say "building $folder with $jobs jobs"
"$cmake" --build "$folder" --target "$target" -j "$jobs" ||
  fail "$folder did not compile; the compiler's message is above"
say "built $folder/rep"
